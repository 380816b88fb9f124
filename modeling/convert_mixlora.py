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
"""Official MixLoRA checkpoints and options to ours.

A checkpoint folder of the official code (VT-NLP/MixLoRA) holds the whole LLaVA model in `pytorch_model.bin` and the
options in `cmoa_args.bin`; its `adapter_model.bin` lacks the routers and cannot be converted. Ours is two folders: a
LLaVA model in transformers' own classes, and an adapter for it. The official one-layer projector becomes `linear_1`
of a projector with the activation `linear` whose `linear_2` is the identity, which is the same function.

Official routers were never trained, so a checkpoint works only with the very rule that chose its factors: the
converter always sets `official_options()`.
"""

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from peft import PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPVisionConfig, LlamaConfig, LlamaForCausalLM, LlavaConfig, LlavaForConditionalGeneration

from ..configuration.configuration_mixlora import MixLoraConfig


_ADAPTER_KEYS = {
    "cmoa_selector.loraA_selector": "router_A",
    "cmoa_selector.loraB_selector": "router_B",
    "cmoa_loarB_extra_selector.loraB_selector": "router_B",  # the misspelling is theirs
    "cmoa_loarB_extra_selector.loraA_param2loraB_selector": "router_AB",
    "cmoa_loarB_extra_selector.loraA_choice_embed": "choice_embedding",
    "cmoa_loarB_extra_selector.loraA_choice2loraB_selector": "router_choice",
}
_SELECTOR = re.compile(r"(?:(?P<module>.+)\.)?(?P<part>cmoa_(?:selector|loarB_extra_selector)\.\w+)\.weight")
_FACTOR = re.compile(r"(?:(?P<module>.+)\.)?lora_(?P<side>[AB])\.\w+\.(?P<index>\d+)")
# Official module paths to those of transformers, the first that fits.
Paths = tuple[tuple[str, str], ...]
LLAMA_PATHS: Paths = (("base_model.model.lm_head", "lm_head"), ("base_model.model.model", "model"))
LLAVA_PATHS: Paths = (
    ("base_model.model.lm_head", "lm_head"),
    ("base_model.model.model.vision_tower.vision_tower.vision_model", "model.vision_tower"),
    ("base_model.model.model.mm_projector", "model.multi_modal_projector.linear_1"),
    ("base_model.model.model", "model.language_model"),
)
_SELECT = {"patch": "default", "cls_patch": "full"}
_DEAD = "cmoa_attribute_encoder"  # in every official checkpoint, never called
_LLAMA_FIELDS = (
    "bos_token_id", "eos_token_id", "hidden_act", "hidden_size", "intermediate_size", "max_position_embeddings",
    "num_attention_heads", "num_hidden_layers", "num_key_value_heads", "pad_token_id", "rms_norm_eps",
    "tie_word_embeddings", "vocab_size",
)  # fmt: skip
# openai/clip-vit-large-patch14, the official tower.
_CLIP_LARGE = {
    "hidden_act": "quick_gelu", "hidden_size": 1024, "image_size": 224, "intermediate_size": 4096,
    "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768,
}  # fmt: skip


def official_options() -> dict[str, Any]:
    """Fields of `MixLoraConfig` that switch on the official code's behaviour where ours differs."""
    return {
        "router_gradient": "none",
        "cfs_mode": "separable",
        "router_pool": "all",
        "decode_routing": "per_token",
    }


def convert_config(options: Mapping[str, Any], **fields: Any) -> MixLoraConfig:
    """Our adapter configuration for official options.

    Args:
        options: `cond_type`, `n_experts`, `n_selected` (or `r`), `lora_alpha`, `lora_dropout`, `ifs_weight`,
            `independent_rank`, `mix_loraA`, `mix_start_layer`, `add_noise`, ... as in `cmoa_args.bin`.
        **fields: fields of `MixLoraConfig` that override what is derived.

    Raises:
        ValueError: options that the official code itself cannot run, or that have no counterpart here.
    """
    for name in ("used_scored_weight", "use_contrastive_instr_token", "mix_mm_projector"):
        if options.get(name):
            raise ValueError(f"{name}=True has no counterpart here: the official code cannot reload such a model.")
    values: dict[str, Any] = official_options()
    values["routing"], values["router_pool"] = _routing(options)
    values["r"] = options["n_selected"] if "n_selected" in options else options["r"]
    values["num_experts"] = options["n_experts"]
    values["lora_alpha"] = options.get("lora_alpha")
    values["lora_dropout"] = options.get("lora_dropout", 0.05)
    values["cfs_weight"] = options.get("ifs_weight", 1.0)  # it multiplies the conditional term
    values["mix_start_layer"] = options.get("mix_start_layer") or 0
    values["router_noise"] = 1 / values["r"] if options.get("add_noise") else 0.0
    return MixLoraConfig(**{**values, **fields})


def _routing(options: Mapping[str, Any]) -> tuple[str, str]:
    """Our `routing` and `router_pool`."""
    official = options.get("cond_type", "input")
    if options.get("mixlora") is False:
        return "plain", "all"
    if official == "random":
        return "random", "all"
    parts = re.fullmatch(r"(input|instr)(_lora_a_param|_lora_a_choice)?", official)
    if parts is None:
        raise ValueError(
            f"cond_type={official!r} has no counterpart here; known: input, instr, each alone or followed by "
            "_lora_a_param or _lora_a_choice, and random."
        )
    conditional = parts[2] or ""
    routing, pool = f"input{conditional}", "first" if parts[1] == "instr" else "all"
    for name, variant in (("independent_rank", "shared"), ("mix_loraA", "b_only")):
        if options.get(name) is False:
            if routing != "input":
                raise ValueError(
                    f"{name}=False with cond_type={official!r} has no counterpart here, only with input or instr "
                    "and without the other of independent_rank=False, mix_loraA=False."
                )
            routing = variant
    return routing, pool


def convert_state_dict(
    state: Mapping[str, torch.Tensor], paths: Paths = LLAVA_PATHS
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], list[str]]:
    """Official weights under our names.

    Args:
        state: official names. Single layers have none before `lora_A`, `weight`, ...
        paths: official module paths and ours, the first that fits a name counts.

    Returns:
        The base model's weights without adapters, the adapter's as in an adapter file, and the names that were dropped.
    """

    def place(module: str | None) -> str:
        module = module or ""
        for official, ours in paths:
            if module == official or module.startswith(f"{official}.") or not official:
                return f"{ours}{module[len(official) :]}"
        raise ValueError(f"{module!r} is not a module of the official model; known: {', '.join(dict(paths))}.")

    base, adapter, dropped = {}, {}, []
    factors: dict[str, dict[int, torch.Tensor]] = {}
    for name, tensor in state.items():
        if _DEAD in name:
            dropped.append(name)
        elif match := _SELECTOR.fullmatch(name):
            ours = f"base_model.model.{place(match['module'])}.cond_mixlora_{_ADAPTER_KEYS[match['part']]}.weight"
            adapter[ours] = tensor
        elif match := _FACTOR.fullmatch(name):
            ours = f"base_model.model.{place(match['module'])}.cond_mixlora_{match['side']}.weight"
            factors.setdefault(ours, {})[int(match["index"])] = tensor
        else:
            module, _, leaf = name.rpartition(".")
            base[f"{place(module)}.{leaf}"] = tensor
    for name, rows in factors.items():
        adapter[name] = torch.cat([rows[index] for index in sorted(rows)])
    return base, adapter, dropped


def build_model(
    state: Mapping[str, torch.Tensor], options: Mapping[str, Any], image_token_id: int | None = None, **fields: Any
) -> tuple[PeftModel, dict[str, Any]]:
    """An official checkpoint as a PEFT model in eval mode.

    Args:
        state: the official state dict: of LLaVA, of its decoder alone, or of one linear layer.
        options: official options, of the adapter (`convert_config`) and of the model (`hidden_size`, ..., `vision`).
        image_token_id: the id that stands for a patch in `input_ids`. The official code uses -200; by default the
            vocabulary gets one more row for it, which `generate` never produces.
        **fields: fields of `MixLoraConfig` that override what is derived.

    Returns:
        The model and a report: `dropped` holds official names that were not used.

    Raises:
        ValueError: the weights do not fit the options.
    """
    config = convert_config(options, **fields)
    base: nn.Module
    paths: Paths
    if any("mm_projector" in name for name in state):
        base, paths = _llava(options, image_token_id), LLAVA_PATHS
        if not config.modules_to_save:
            config.modules_to_save = ["multi_modal_projector.linear_1"]  # the projector is trained with the adapter
    elif any(".layers." in name for name in state):
        base, paths = LlamaForCausalLM(_llama_config(options)), LLAMA_PATHS
    else:
        base, paths = _OneLinear(state), (("", "linear"),)
    weights, adapter, dropped = convert_state_dict(state, paths)
    _load_base(base, weights)
    for module in config.modules_to_save or ():
        adapter |= {f"base_model.model.{name}": weight for name, weight in weights.items() if f".{module}." in name}
    if config.target_modules is None:
        names = {key.split(".cond_mixlora_")[0].removeprefix("base_model.model.") for key in adapter}
        config.target_modules = sorted(names)
    model = get_peft_model(base, config)
    result = set_peft_model_state_dict(model, adapter)
    missing = [name for name in result.missing_keys if "cond_mixlora_" in name]
    if missing or result.unexpected_keys:
        raise ValueError(
            f"The checkpoint does not fit its options (cond_type={options.get('cond_type')!r}): missing "
            f"{missing[:3]}, no place for {result.unexpected_keys[:3]}."
        )
    return model.eval(), {"dropped": dropped}


class _OneLinear(nn.Module):
    """A model that is one linear layer, with the arguments of a model that the routing reads."""

    def __init__(self, state: Mapping[str, torch.Tensor]):
        super().__init__()
        self.linear = nn.Linear(*reversed(state["weight"].shape), bias="bias" in state)

    def forward(self, hidden_states, attention_mask=None, past_key_values=None):
        return self.linear(hidden_states)


def _llama_config(options: Mapping[str, Any]) -> LlamaConfig:
    values = {name: options[name] for name in _LLAMA_FIELDS if name in options}
    return LlamaConfig(
        **values, rope_parameters={"rope_type": "default", "rope_theta": options.get("rope_theta", 1e4)}
    )


def _llava(options: Mapping[str, Any], image_token_id: int | None) -> LlavaForConditionalGeneration:
    text = _llama_config(options)
    if image_token_id is None:
        image_token_id = text.vocab_size
        text.vocab_size += 1
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(**options.get("vision", _CLIP_LARGE)),
            text_config=text,
            image_token_index=image_token_id,
            projector_hidden_act="linear",
            vision_feature_layer=options.get("mm_vision_select_layer", -2),
            vision_feature_select_strategy=_SELECT[options.get("mm_vision_select_feature", "patch")],
            tie_word_embeddings=text.tie_word_embeddings,
        )
    )
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.generation_config, name, getattr(text, name))
    model.generation_config.suppress_tokens = [image_token_id]
    return model


@torch.no_grad()
def _load_base(model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    own = model.state_dict()
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        if name in own and len(own[name]) == len(weights[name]) + 1:  # the row of the image token
            weights[name] = torch.cat([weights[name], torch.zeros_like(weights[name][:1])])
    projector = "model.multi_modal_projector.linear_2"
    if f"{projector}.weight" in own:
        weights[f"{projector}.weight"] = torch.eye(len(own[f"{projector}.weight"]))
        weights[f"{projector}.bias"] = torch.zeros_like(own[f"{projector}.bias"])
    missing, unexpected = model.load_state_dict(weights, strict=False)
    unexpected = [name for name in unexpected if not name.endswith(("position_ids", "rotary_emb.inv_freq"))]
    if missing or unexpected:
        raise ValueError(
            f"The checkpoint does not fit its options: missing {missing[:3]}, no place for {unexpected[:3]}."
        )


# ---- folders ------------------------------------------------------------------------------------------------------


def read_checkpoint(folder: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """State dict and options of an official checkpoint folder, without executing anything it may contain."""
    folder = Path(folder)
    arguments = folder / "cmoa_args.bin"
    if not arguments.is_file():
        raise ValueError(
            f"{folder} has no cmoa_args.bin, so the routing is unknown. Give the folder of an official checkpoint with "
            "pytorch_model.bin, config.json and cmoa_args.bin; adapter_model.bin alone lacks the routers."
        )
    with torch.serialization.safe_globals([SimpleNamespace]):
        options = vars(torch.load(arguments, map_location="cpu", weights_only=True))
    options = {**json.loads((folder / "config.json").read_text(encoding="utf-8")), **options}
    state: dict[str, torch.Tensor] = {}
    for file in sorted([*folder.glob("pytorch_model*.bin"), *folder.glob("model*.safetensors")]):
        is_pickle = file.suffix == ".bin"
        state |= torch.load(file, map_location="cpu", weights_only=True) if is_pickle else load_file(file)
    if not state:
        raise ValueError(f"{folder} has neither pytorch_model*.bin nor model*.safetensors.")
    return state, options


def convert_checkpoint(checkpoint: str | Path, out: str | Path) -> dict[str, Any]:
    """Converts an official checkpoint folder.

    Args:
        checkpoint: the folder.
        out: folder to write: `base/` for `LlavaForConditionalGeneration.from_pretrained`, `adapter/` for
            `PeftModel.from_pretrained` (routers, factors and the projector).

    Returns:
        The report of `build_model`.
    """
    state, options = read_checkpoint(checkpoint)
    model, report = build_model(state, options)
    base = Path(out) / "base"
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(Path(out) / "adapter")
    model.unload().save_pretrained(base)
    return report


def main(argv: list[str] | None = None) -> None:
    """`fusionzoo convert mixlora CHECKPOINT OUT`."""
    parser = argparse.ArgumentParser(prog="fusionzoo convert mixlora", description=main.__doc__)
    parser.add_argument("checkpoint", type=Path, help="folder with pytorch_model.bin, config.json and cmoa_args.bin")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args(argv)
    report = convert_checkpoint(**vars(arguments))
    print(f"Written to {arguments.out}/base and {arguments.out}/adapter. Not used: {report['dropped'] or 'nothing'}.")


if __name__ == "__main__":
    main()
