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
"""Official DCP checkpoints (github.com/hulianyuyy/Deep_Correlated_Prompting) to ours.

The official script writes Lightning checkpoints whose `state_dict` holds `model.{prompt_learner,image_encoder,
text_encoder}.*` and `<task>_classifier.*`. It lacks the six queries of the dynamic prompts, which officially are drawn
anew by every construction and never trained: `official_queries(seed)` draws them again.

What the official code does that ours does not by default is switched on by `official_options`.
"""

import argparse
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..configuration.configuration_dcp import DcpConfig
from .modeling_dcp import DcpForSequenceClassification
from .state_reader import StateReader


_TASKS = {
    "mmimdb": "multi_label_classification",
    "food101": "single_label_classification",
    "hatememes": "single_label_classification",
}
_TYPES = ("complete", "image", "text")  # official names of T = 0, 1, 2: what is left
_TOWERS = {"vision": "image", "text": "text"}
_BLOCK_PARTS = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_VISION_NAMES = {
    "conv1.weight": "embeddings.patch_embedding.weight",
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}
_TEXT_NAMES = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}


def official_options() -> dict[str, Any]:
    """Fields of `DcpConfig` that switch on the official code's behaviour where ours differs."""
    return {"dynamic_queries": "fixed", "skip_absent_towers": False}


def convert_config(options: Mapping[str, Any], state: Mapping[str, torch.Tensor], **fields: Any) -> DcpConfig:
    """Our configuration for official options.

    Args:
        options: the official run's options; of them `prompt_length`, `vision` and `text` (sizes of the towers that
            their weights do not show: `num_attention_heads`, `eos_token_id`, ...), `hidden_act`, `layer_norm_eps` and
            `problem_type` matter. Officially a head is 64 wide and the end-of-text id is the last of the vocabulary.
        state: the official state dict, from whose shapes all sizes are read.
        **fields: fields of `DcpConfig` that override what is derived.

    Raises:
        ValueError: the state dict is not one of DCP's.
    """
    wanted = (
        "image_encoder.conv1.weight",
        "text_encoder.token_embedding.weight",
        "prompt_learner.text_prompt_missing",
    )
    lacking = [name for name in wanted if f"model.{name}" not in state]
    if lacking:
        raise ValueError(f"This is no state dict of the official DCP code: it lacks model.{lacking[0]}.")
    head, task = _head(state)
    conv = state["model.image_encoder.conv1.weight"]
    patches = state["model.image_encoder.positional_embedding"].shape[0] - 1
    vocabulary, text_width = state["model.text_encoder.token_embedding.weight"].shape
    shared = {
        "projection_dim": state["model.text_encoder.text_projection"].shape[1],
        "hidden_act": options.get("hidden_act", "quick_gelu"),
        "layer_norm_eps": options.get("layer_norm_eps", 1e-5),
    }
    towers = {}
    for name, width in (("vision", conv.shape[0]), ("text", text_width)):
        blocks = f"model.{_TOWERS[name]}_encoder.transformer.resblocks."
        towers[name] = {
            "model_type": f"clip_{name}_model",
            "hidden_size": width,
            "num_hidden_layers": _count(state, blocks),
            "num_attention_heads": width // 64,
            "intermediate_size": state[f"{blocks}0.mlp.c_fc.weight"].shape[0],
            **shared,
        }
    towers["vision"] |= {"patch_size": conv.shape[-1], "image_size": round(patches**0.5) * conv.shape[-1]}
    towers["text"] |= {
        "vocab_size": vocabulary,
        "max_position_embeddings": state["model.text_encoder.positional_embedding"].shape[0],
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": 0,
    }
    for name, tower in towers.items():
        tower |= options.get(name, {}) if isinstance(options.get(name), Mapping) else {}
    learner = "model.prompt_learner."
    bottleneck = state[f"{learner}common_prompt_projection_text.0.weight"].shape[0]
    reduction = 16 if bottleneck == text_width // 16 else text_width // bottleneck
    values = {
        "vision_config": towers["vision"],
        "text_config": towers["text"],
        "prompt_length": 3 * state[f"{learner}text_prompt_missing"].shape[0],
        "prompt_depth": _count(state, f"{learner}layernorm_text."),
        "reduction_factor": options.get("reduction", reduction),
        "num_labels": state[f"{head}.bias"].shape[0],
        "problem_type": options.get("problem_type", _TASKS.get(task, "single_label_classification")),
    }
    return DcpConfig(**{**values, **fields})


def _head(state: Mapping[str, torch.Tensor]) -> tuple[str, str]:
    """The classifier's official name and its task."""
    heads = [name.removesuffix(".bias") for name in state if name.endswith("_classifier.bias")]
    if len(heads) != 1:
        raise ValueError(f"Expected one <task>_classifier in the state dict, found {heads or 'none'}.")
    return heads[0], heads[0].removesuffix("_classifier")


def _count(state: Mapping[str, torch.Tensor], prefix: str) -> int:
    return 1 + max(int(name.removeprefix(prefix).split(".")[0]) for name in state if name.startswith(prefix))


def convert_state_dict(
    state: Mapping[str, torch.Tensor], config: DcpConfig
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Official weights under our names.

    Args:
        state: official names; may be partial (gradients, say).
        config: ours, from `convert_config`.

    Returns:
        Our state dict for `DcpForSequenceClassification`, and what was not used, as flat tensors by official name:
        CLIP's `logit_scale`, and the keys' bias of the dynamic attention, which cancels in its softmax.
    """
    reader = StateReader(state)
    ours: dict[str, torch.Tensor] = {}
    for name in state:
        _convert_tower_tensor(reader, name, ours)
        if re.fullmatch(r"[^.]+_classifier\.(weight|bias)", name):
            ours[f"classifier.{name.rpartition('.')[2]}"] = reader.take(name)
    _convert_prompt_learner(reader, config, ours)
    for modality, official in _TOWERS.items():
        _convert_dynamic(reader, f"model.{official}_encoder.transformer.resblocks.0.", modality, ours)
    return ours, reader.unused()


def _convert_tower_tensor(reader: StateReader, name: str, ours: dict[str, torch.Tensor]) -> None:
    """One tensor of CLIP: see the tables above; packed query, key and value matrices are split."""
    match = re.match(r"model\.(image|text)_encoder\.(.*)", name)
    if not match:
        return
    modality, rest = ("vision" if match[1] == "image" else "text"), match[2]
    base = f"dcp.{modality}_model."
    if rest in ("proj", "text_projection"):
        target = "visual_projection" if modality == "vision" else "text_projection"
        ours[f"dcp.{target}.weight"] = reader.take(name).T
        return
    simple = (_VISION_NAMES if modality == "vision" else _TEXT_NAMES).get(rest)
    if simple is not None:
        ours[base + simple] = reader.take(name)
        return
    block = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.*)\.(weight|bias)", rest)
    if block and block[2] in _BLOCK_PARTS:
        ours[f"{base}encoder.layers.{block[1]}.{_BLOCK_PARTS[block[2]]}.{block[3]}"] = reader.take(name)
    packed = re.fullmatch(r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)", rest)
    if packed:
        for part, piece in zip("qkv", reader.take(name).chunk(3)):
            ours[f"{base}encoder.layers.{packed[1]}.self_attn.{part}_proj.{packed[2]}"] = piece


def _convert_prompt_learner(reader: StateReader, config: DcpConfig, ours: dict[str, torch.Tensor]) -> None:
    official, base = "model.prompt_learner.", "dcp.prompt_learner."
    stacks = {
        "vision_prompts": [f"visual_prompt_{part}" for part in ("complete", "missing")],
        "text_prompts": [f"text_prompt_{part}" for part in ("complete", "missing")],
        "common_prompts": [f"common_prompt_{part}" for part in _TYPES],
    }
    for target, parts in stacks.items():
        names = [official + part for part in parts]
        if all(map(reader.has, names)):
            ours[base + target] = torch.stack([reader.take(name) for name in names])
    modules: dict[str, str] = {}
    for modality, word in _TOWERS.items():
        modules |= {
            f"common_prompt_projection_{word}.0": f"common_to_{modality}.down",
            f"common_prompt_projection_{word}.2": f"common_to_{modality}.up",
        }
        for step in range(config.prompt_depth):
            modules |= {
                f"compound_prompt_projections_{word}.{step}.0": f"{modality}_generators.{step}.bottleneck.down",
                f"compound_prompt_projections_{word}.{step}.2": f"{modality}_generators.{step}.bottleneck.up",
                f"layernorm_{word}.{step}": f"{modality}_generators.{step}.norm",
            }
    for source, target in modules.items():
        for leaf in ("weight", "bias"):
            if reader.has(f"{official}{source}.{leaf}"):
                ours[f"{base}{target}.{leaf}"] = reader.take(f"{official}{source}.{leaf}")


def _convert_dynamic(reader: StateReader, block: str, modality: str, ours: dict[str, torch.Tensor]) -> None:
    base = f"dcp.dynamic_prompts.{modality}."
    queries = [f"{block}prompts_dynamic_{part}" for part in _TYPES]
    if all(map(reader.has, queries)):
        ours[f"{base}queries"] = torch.stack([reader.take(name).squeeze(1) for name in queries])
    for leaf in ("weight", "bias"):
        packed = f"{block}attn_prompt.in_proj_{leaf}"
        if reader.has(packed):
            width = reader.state[packed].shape[0] // 3
            for place, part in enumerate("qkv"):
                if part != "k" or leaf == "weight":
                    rows = slice(place * width, (place + 1) * width)
                    ours[f"{base}{part}_proj.{leaf}"] = reader.take(packed, rows)
        out = f"{block}attn_prompt.out_proj.{leaf}"
        if reader.has(out):
            ours[f"{base}out_proj.{leaf}"] = reader.take(out)


def official_queries(config: DcpConfig, seed: int) -> dict[str, torch.Tensor]:
    """The dynamic queries that the official code draws with this seed, under their official names.

    torch's generator is seeded and everything is drawn that the official constructor draws before them. The numbers
    are those of the torch version at hand, which may differ from those of the 1.8 that the authors used.
    """
    drawn = {}
    length, vision = config.length_per_kind, config.vision_config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        nn.Conv2d(3, vision.hidden_size, vision.patch_size, vision.patch_size, bias=False)
        torch.randn(vision.hidden_size)
        torch.randn((vision.image_size // vision.patch_size) ** 2 + 1, vision.hidden_size)
        for modality, tower in (("image", vision), ("text", config.text_config)):
            width = tower.hidden_size
            for block in range(tower.num_hidden_layers):
                nn.MultiheadAttention(width, tower.num_attention_heads)
                nn.Linear(width, tower.intermediate_size)
                nn.Linear(tower.intermediate_size, width)
                if block == 0:
                    nn.MultiheadAttention(width, 1)
                    for part in _TYPES:
                        name = f"model.{modality}_encoder.transformer.resblocks.0.prompts_dynamic_{part}"
                        drawn[name] = torch.empty(length, 1, width).normal_(std=0.02)
            torch.randn(width, tower.projection_dim)
    return drawn


def build_model(
    state: Mapping[str, torch.Tensor], config: DcpConfig
) -> tuple[DcpForSequenceClassification, dict[str, Any]]:
    """Our model with official weights.

    Returns:
        The model in eval mode, and a report: `missing` (our parameters that the state does not hold; they keep their
        initial values) and `unused` (official names whose numbers were not all used).

    Raises:
        ValueError: the state holds something that the configuration has no place for.
    """
    converted, unused = convert_state_dict(state, config)
    model = DcpForSequenceClassification(config)
    missing, unexpected = model.load_state_dict(converted, strict=False)
    if unexpected:
        raise ValueError(f"The checkpoint does not fit its options: no place for {', '.join(sorted(unexpected))}.")
    return model.eval(), {"missing": sorted(missing), "unused": sorted(unused)}


def convert_checkpoint(
    checkpoint: str | Path, out: str | Path, seed: int | None = None, official: bool = False
) -> dict[str, Any]:
    """Converts a Lightning checkpoint of the official code and saves a folder for `from_pretrained`.

    Args:
        checkpoint: the `.ckpt` file; read without executing anything it may contain.
        out: folder to write.
        seed: seed of the official run, from which the dynamic queries are drawn again; `None` takes the one that the
            file records, or 0, the official default.
        official: reproduce the official behaviour (`official_options`) instead of the corrected one.

    Returns:
        The report of `build_model`.
    """
    file = torch.load(checkpoint, map_location="cpu", weights_only=True)
    recorded = file.get("hyper_parameters", {})
    options = dict(recorded.get("config", recorded))
    options = {name: value for name, value in options.items() if name not in ("vision", "text")}
    state = dict(file["state_dict"])
    config = convert_config(options, state, **(official_options() if official else {}))
    if not any(".prompts_dynamic_" in name for name in state):
        seed = options.get("seed", 0) if seed is None else seed
        warnings.warn(
            f"{checkpoint} does not hold the queries of the dynamic prompts, which the official code never saves; they "
            f"are drawn again from seed {seed} with torch {torch.__version__}. If the run had another seed or another "
            "stream of random numbers, its accuracy is not reproduced.",
            stacklevel=2,
        )
        state |= official_queries(config, seed)
    model, report = build_model(state, config)
    model.save_pretrained(out)
    return report


def main(argv: list[str] | None = None) -> None:
    """`fusionzoo convert dcp CHECKPOINT OUT`."""
    parser = argparse.ArgumentParser(prog="fusionzoo convert dcp", description=main.__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, help="seed of the official run (its dynamic queries are not in the file)")
    parser.add_argument("--official", action="store_true", help="keep the official code's behaviour, for comparison")
    arguments = parser.parse_args(argv)
    report = convert_checkpoint(**vars(arguments))
    print(f"Written to {arguments.out}. Not in the checkpoint: {report['missing'] or 'nothing'}.")


if __name__ == "__main__":
    main()
