# Copyright 2026 The fusionzoo authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Official MMP checkpoints (github.com/YiLunLee/missing_aware_prompts) to ours.

The official script writes Lightning checkpoints whose `state_dict` holds `text_embeddings.*`, `token_type_embeddings.*`,
`transformer.*`, `pooler.*`, `{complete,missing_text,missing_img}_prompt` and `<task>_classifier.*`.
"""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..configuration.configuration_mmp import MmpConfig
from .modeling_mmp import MmpForSequenceClassification
from .state_reader import StateReader


_TASKS = {
    "mmimdb": "multi_label_classification",
    "food101": "single_label_classification",
    "hatememes": "single_label_classification",
}
_PROMPTS = ("complete_prompt", "missing_text_prompt", "missing_img_prompt")  # T = 0, 1, 2
_HEAD = {"0": "dense", "1": "norm", "3": "out_proj"}
_BLOCK = "transformer.blocks."
_BLOCK_PARTS = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_NAMES = {
    "token_type_embeddings.weight": "embeddings.token_type_embeddings.weight",
    "transformer.cls_token": "embeddings.cls_token",
    "transformer.pos_embed": "embeddings.position_embeddings",
    "transformer.patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "transformer.patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "transformer.norm.weight": "layernorm.weight",
    "transformer.norm.bias": "layernorm.bias",
    "pooler.dense.weight": "pooler.dense.weight",
    "pooler.dense.bias": "pooler.dense.bias",
}


def official_options() -> dict[str, Any]:
    """Fields of `MmpConfig` that switch on the official code's behaviour where ours differs."""
    return {"absent_inputs": "filler"}


def convert_config(options: Mapping[str, Any], state: Mapping[str, torch.Tensor], **fields: Any) -> MmpConfig:
    """Our configuration for official options.

    Args:
        options: the official run's options; of them `prompt_type`, `prompt_layers`, `multi_layer_prompt`, `learnt_p`,
            `drop_rate` and `num_heads` (or `num_attention_heads`) matter.
        state: the official state dict, from whose shapes all sizes are read.
        **fields: fields of `MmpConfig` that override what is derived.

    Raises:
        ValueError: the state dict is not one of MMP's.
    """
    lacking = [name for name in (*_PROMPTS, "transformer.pos_embed") if name not in state]
    if lacking:
        raise ValueError(f"This is no state dict of the official MMP code: it lacks {lacking[0]}.")
    heads = [name.removesuffix(".3.bias") for name in state if name.endswith("_classifier.3.bias")]
    if len(heads) != 1:
        raise ValueError(f"Expected one <task>_classifier in the state dict, found {heads or 'none'}.")
    head, task = heads[0], heads[0].removesuffix("_classifier")
    patch = state["transformer.patch_embed.proj.weight"]
    rows, length, width = state["complete_prompt"].shape
    layers = list(options.get("prompt_layers", range(rows)))
    prompt_type = options.get("prompt_type", "input")
    if not options.get("multi_layer_prompt", True):
        layers, prompt_type = layers[:1] or [0], "input"  # officially always at the input
    words, positions = (state[f"text_embeddings.{name}_embeddings.weight"] for name in ("word", "position"))
    backbone = {
        "model_type": "vilt",
        "hidden_size": width,
        "num_hidden_layers": 1 + max(int(name.split(".")[2]) for name in state if name.startswith(_BLOCK)),
        "num_attention_heads": options.get("num_heads", options.get("num_attention_heads", 12)),
        "intermediate_size": state[f"{_BLOCK}0.mlp.fc1.weight"].shape[0],
        "image_size": round((state["transformer.pos_embed"].shape[1] - 1) ** 0.5) * patch.shape[-1],
        "patch_size": patch.shape[-1],
        "vocab_size": words.shape[0],
        "max_position_embeddings": positions.shape[0],
        "type_vocab_size": state["text_embeddings.token_type_embeddings.weight"].shape[0],
        "modality_type_vocab_size": state["token_type_embeddings.weight"].shape[0],
        "qkv_bias": f"{_BLOCK}0.attn.qkv.bias" in state,
        "hidden_act": "gelu",
        "hidden_dropout_prob": options.get("drop_rate", 0.1),
        "attention_probs_dropout_prob": 0.0,
        # transformers has one for all; the official text embedding has 1e-12, which makes no visible difference.
        "layer_norm_eps": options.get("layer_norm_eps_transformer", 1e-6),
    }
    values = {
        "backbone_config": backbone,
        "prompt_type": prompt_type,
        "prompt_length": length,
        "prompt_layers": layers,
        "learn_prompts": bool(options.get("learnt_p", True)),
        "classifier_factor": state[f"{head}.0.bias"].shape[0] // width,
        "cls_token_id": min(101, words.shape[0] - 1),
        "num_labels": state[f"{head}.3.bias"].shape[0],
        "problem_type": options.get("problem_type", _TASKS.get(task, "single_label_classification")),
    }
    return MmpConfig(**{**values, **fields})


def convert_state_dict(
    state: Mapping[str, torch.Tensor], config: MmpConfig
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Official weights under our names.

    Args:
        state: official names; may be partial (gradients, say).
        config: ours, from `convert_config`.

    Returns:
        Our state dict for `MmpForSequenceClassification`, and what was not used, as flat tensors by official name.
    """
    reader, base = StateReader(state), "mmp.backbone_model."
    ours: dict[str, torch.Tensor] = {}
    for name in state:
        if name in _NAMES:
            ours[base + _NAMES[name]] = reader.take(name)
        elif name.startswith("text_embeddings.") and not name.endswith("position_ids"):
            ours[f"{base}embeddings.{name}"] = reader.take(name)
        elif block := re.fullmatch(r"transformer\.blocks\.(\d+)\.(.*)\.(weight|bias)", name):
            layer, part, leaf = f"{base}encoder.layer.{block[1]}.", block[2], block[3]
            if part == "attn.qkv":
                for target, piece in zip(("query", "key", "value"), reader.take(name).chunk(3)):
                    ours[f"{layer}attention.attention.{target}.{leaf}"] = piece
            elif part in _BLOCK_PARTS:
                ours[f"{layer}{_BLOCK_PARTS[part]}.{leaf}"] = reader.take(name)
        elif head := re.fullmatch(r"[^.]+_classifier\.([013])\.(weight|bias)", name):
            ours[f"classifier.{_HEAD[head[1]]}.{head[2]}"] = reader.take(name)
    if all(map(reader.has, _PROMPTS)):
        ours["mmp.prompts"] = torch.stack([reader.take(name) for name in _PROMPTS])
    return ours, reader.unused()


def build_model(
    state: Mapping[str, torch.Tensor], config: MmpConfig
) -> tuple[MmpForSequenceClassification, dict[str, Any]]:
    """Our model with official weights.

    Returns:
        The model in eval mode, and a report: `missing` (our parameters that the state does not hold; they keep their
        initial values) and `unused` (official names whose numbers were not all used).

    Raises:
        ValueError: the state holds something that the configuration has no place for.
    """
    converted, unused = convert_state_dict(state, config)
    model = MmpForSequenceClassification(config)
    missing, unexpected = model.load_state_dict(converted, strict=False)
    if unexpected:
        raise ValueError(f"The checkpoint does not fit its options: no place for {', '.join(sorted(unexpected))}.")
    return model.eval(), {"missing": sorted(missing), "unused": sorted(unused)}


def convert_checkpoint(checkpoint: str | Path, out: str | Path, official: bool = False) -> dict[str, Any]:
    """Converts a Lightning checkpoint of the official code and saves a folder for `from_pretrained`.

    Args:
        checkpoint: the `.ckpt` file; read without executing anything it may contain.
        out: folder to write.
        official: reproduce the official behaviour (`official_options`) instead of the corrected one.

    Returns:
        The report of `build_model`.
    """
    file = torch.load(checkpoint, map_location="cpu", weights_only=True)
    recorded = file.get("hyper_parameters", {})
    config = convert_config(
        recorded.get("config", recorded), file["state_dict"], **(official_options() if official else {})
    )
    model, report = build_model(file["state_dict"], config)
    model.save_pretrained(out)
    return report


def main(argv: list[str] | None = None) -> None:
    """`fusionzoo convert mmp CHECKPOINT OUT`."""
    parser = argparse.ArgumentParser(prog="fusionzoo convert mmp", description=main.__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--official", action="store_true", help="keep the official code's behaviour, for comparison")
    arguments = parser.parse_args(argv)
    report = convert_checkpoint(**vars(arguments))
    print(f"Written to {arguments.out}. Not in the checkpoint: {report['missing'] or 'nothing'}.")


if __name__ == "__main__":
    main()
