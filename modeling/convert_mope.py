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
"""Official MoPE checkpoints and options to ours.

The official training script writes Lightning checkpoints whose `state_dict` holds `classifier.{vision_model,
text_model,instruct_proj,moe_proj,fusion_head}.*` and whose `hyper_parameters` hold the command-line options. Such a
file lacks the backbones' attention and MLP weights, which come from the pretrained towers again.

Official bugs are reproduced through named options, see `official_options`.
"""

import argparse
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from ..configuration.configuration_mope import MopeConfig
from .base import fingerprint
from .modeling_mope import MopeForSequenceClassification
from .state_reader import StateReader


FUSE_METHODS = {
    "mope": "mope",
    "instruct_mm_moe_t2v": "mope",
    "instruct_moe_t2v": "text_router",
    "instruct_moe_v2t": "text_router",
    "instruct_t2v": "mapped",
    "p_sequential": "p_sequential",
    "instruct_v2t": "p_sequential",
    "sequentialfuse": "sequentialfuse",
    "late_concat": "late_concat",
    "img_only": "vision_only",
    "text_only": "text_only",
    "ens": "ensemble",
}
OFFICIAL_NORMALISATION = {
    "image_mean": [0.46777044, 0.44531429, 0.40661017],
    "image_std": [0.12221994, 0.12145835, 0.14380469],
}


def convert_config(options: Mapping[str, Any], state: Mapping[str, torch.Tensor], **fields: Any) -> MopeConfig:
    """Our configuration for official options.

    Args:
        options: official command-line options (`fuse_method`, `use_vpt`, `prompt_length`, ...), and `swin` / `bert`
            with the towers' sizes where they are not the paper's.
        state: the official state dict; widths that the options do not name are read from its shapes.
        **fields: fields of `MopeConfig` that override what is derived, e.g. `vision_config`.

    Raises:
        ValueError: a fuse method that we do not know.
    """
    official = options.get("fuse_method", "late_concat")
    if official not in FUSE_METHODS:
        raise ValueError(f"fuse_method={official!r} is not an official one; known: {', '.join(sorted(FUSE_METHODS))}.")
    fuse_method = FUSE_METHODS[official]
    use_vpt, use_pbert = bool(options.get("use_vpt")), bool(options.get("use_pbert"))
    if fuse_method in ("p_sequential", "sequentialfuse") and not use_pbert:
        fuse_method = "text_only"  # without prompts in BERT the official code ignores the image
    text_main = official == "instruct_moe_v2t"
    steers_vision = fuse_method in ("mope", "text_router", "mapped") and not text_main

    values: dict[str, Any] = {
        "fuse_method": fuse_method,
        "main_modality": "text" if text_main else "vision",
        "num_experts": options.get("moe_n_experts", 4),
        "prompt_length": options.get("prompt_length", 6) if use_vpt or steers_vision else 0,
        "text_prompt_length": options.get("t_prompt_length", 4) if use_pbert else 0,
        "router_self_dim": options.get("d_inter", 2),
        "router_cross_dim": options.get("d_cross", 8),
        "importance_loss_weight": options.get("w_imp", 0.01),
        "prompt_init": {"othorgonal": "orthogonal"}.get(*[options.get("prompt_init", "uniform")] * 2),
        "freeze_backbone": use_vpt and not options.get("finetune", False),
        "train_text_prompts": bool(options.get("train_instructor", True)),
        "problem_type": (
            "multi_label_classification"
            if options.get("loss") == "bce" or options.get("dataset") == "imdb"
            else "single_label_classification"
        ),
    }
    for source in ("mm_prompt_instruction_proj.0.weight" if fuse_method == "mope" else "instruct_proj.0.weight",):
        for name, tensor in state.items():
            if name.endswith(source):
                values["mapper_hidden_size"] = tensor.shape[0]
    if "swin" in options:
        values["vision_config"] = {"model_type": "swin", "drop_path_rate": 0.5, **options["swin"]}
    if "bert" in options:
        values["text_config"] = {"model_type": "bert", **options["bert"]}
    if "num_classes" in options:
        values["num_labels"] = options["num_classes"]
    return MopeConfig(**{**values, **fields})


def official_options() -> dict[str, Any]:
    """Fields of `MopeConfig` that switch on the official code's behaviour where ours differs."""
    return {"window_prompt_order": "official", "router_noise_in_eval": True}


def convert_state_dict(
    state: Mapping[str, torch.Tensor], config: MopeConfig
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Official weights under our names.

    Args:
        state: official names, with or without the `classifier.` prefix; may be partial (gradients, say).
        config: ours, from `convert_config`.

    Returns:
        Our state dict for `MopeForSequenceClassification`, and what was not used: weights that never take part in the
        method (a second head, block 0's routers, ...), as flat tensors by official name.
    """
    reader = StateReader(_without_prefix(state))
    ours: dict[str, torch.Tensor] = {}
    for name in list(reader.state):
        if name.startswith("vision_model.encoder."):
            _convert_swin(reader, name, config, ours)
        elif name.startswith("text_model.bert_encoder.") and config.uses_text:
            target = name.removeprefix("text_model.bert_encoder.")
            if "pooler" not in target or config.text_pooling == "pooler":
                ours[f"mope.text_model.{target}"] = reader.take(name)
    _convert_text_prompts(reader, config, ours)
    _convert_vision_prompts(reader, config, ours)
    _convert_heads(reader, config, ours)
    return ours, reader.unused()


def _without_prefix(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Lightning stores the towers twice; `classifier.*` holds everything. A text classifier alone has no prefix."""
    own = {name.removeprefix("classifier."): value for name, value in state.items() if name.startswith("classifier.")}
    state = own or dict(state)
    if any(name.startswith(("bert_encoder.", "heads.", "prompt_vector")) for name in state):
        state = {f"text_model.{name}": value for name, value in state.items()}
    return state


def swin_block_state(state: Mapping[str, torch.Tensor], window: int | None = None) -> dict[str, torch.Tensor]:
    """Official weights of one Swin block under the names of transformers' `SwinLayer`.

    Args:
        state: names relative to the block (`norm1.weight`, `attn.qkv.weight`, ...).
        window: the configured window side; a smaller bias table (of a stage whose grid is smaller than the window)
            is placed in the middle of a full one.
    """
    renamed = {"norm1": "layernorm_before", "norm2": "layernorm_after", "mlp": "mlp"}
    ours = {}
    for name, tensor in state.items():
        module, _, rest = name.partition(".")
        if module in renamed:
            ours[f"{renamed[module]}.{rest}"] = tensor
        elif name.startswith("attn.qkv."):
            for part, piece in zip("qkv", tensor.chunk(3)):
                ours[f"attention.{part}_proj.{rest.removeprefix('qkv.')}"] = piece
        elif name.startswith("attn.proj."):
            ours[f"attention.o_proj.{rest.removeprefix('proj.')}"] = tensor
        elif name == "attn.relative_position_bias_table":
            ours["attention.relative_position_bias.relative_position_bias_table"] = _full_table(tensor, window)
    return ours


def _full_table(table: torch.Tensor, window: int | None) -> torch.Tensor:
    side = round(table.shape[0] ** 0.5)  # 2 w - 1
    if window is None or side == 2 * window - 1:
        return table
    full = table.new_zeros(2 * window - 1, 2 * window - 1, table.shape[1])
    start = window - (side + 1) // 2
    full[start : start + side, start : start + side] = table.view(side, side, -1)
    return full.flatten(0, 1)


def router_state(blocks: Iterable[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Official routers of one stage's blocks under the names of `MopeRouter`; names relative to the block."""
    gathered: dict[str, list[torch.Tensor]] = {}
    for block in blocks:
        for name, tensor in block.items():
            gathered.setdefault(name, []).append(tensor)
    ours = {}
    for name, join, target in (
        ("mm_prompt_self_proj.weight", torch.stack, "self_weight"),
        ("mm_prompt_self_proj.bias", torch.stack, "self_bias"),
        ("mm_prompt_cross_proj.weight", torch.cat, "cross_proj.weight"),
        ("mm_prompt_cross_proj.bias", torch.cat, "cross_proj.bias"),
        ("mm_frozen_expert_key_embed", torch.stack, "keys"),
    ):
        if name in gathered:
            ours[target] = join(gathered[name])
    return ours


def _convert_swin(reader: StateReader, name: str, config: MopeConfig, ours: dict[str, torch.Tensor]) -> None:
    if not config.uses_vision:
        return
    target = name.removeprefix("vision_model.encoder.")
    base = "mope.vision_model."
    block = re.match(r"layers\.(\d+)\.blocks\.(\d+)\.((?:norm|attn\.|mlp).*)", target)
    if block:
        stage, index, rest = block.groups()
        converted = swin_block_state({rest: reader.state[name]}, config.vision_config.window_size)
        reader.take(name)
        prefix = f"{base}encoder.layers.{stage}.blocks.{index}."
        ours.update({f"{prefix}{key}": value for key, value in converted.items()})
    elif target.startswith("patch_embed.proj."):
        ours[base + target.replace("patch_embed.proj", "embeddings.patch_embeddings.projection")] = reader.take(name)
    elif target.startswith("patch_embed.norm."):
        ours[base + target.replace("patch_embed.norm", "embeddings.norm")] = reader.take(name)
    elif target.startswith("norm."):
        ours[base + target.replace("norm.", "layernorm.")] = reader.take(name)
    elif ".downsample." in target:
        ours[f"{base}encoder.{target}"] = reader.take(name)


def _convert_text_prompts(reader: StateReader, config: MopeConfig, ours: dict[str, torch.Tensor]) -> None:
    base = "mope.fusion_prompts."
    if not config.text_is_steered:
        if config.uses_text and config.text_prompt_length and reader.has("text_model.prompt_vector"):
            ours["mope.text_prompts.prompts.0"] = reader.take("text_model.prompt_vector")
        return
    layers = config.text_config.num_hidden_layers
    vectors = [f"text_model.prompt_vectors.{layer}" for layer in range(layers)]
    if all(map(reader.has, vectors)):
        ours[f"{base}static.0"] = torch.stack([reader.take(name, 0) for name in vectors])
        if "dynamic" in config.prompt_kinds:
            experts = [reader.take(name, slice(1, None)) for name in vectors]  # each (k, length, width)
            ours[f"{base}experts.0"] = torch.stack(experts, dim=1)
    if config.main_modality == "text":
        _convert_mapper(reader, ours, "instruct_proj.0", "instruct_proj.1", "text_model.prompt_proj_{}")
        rows = [f"moe_proj.{layer}" for layer in range(layers)]
        _convert_feature_router(reader, ours, rows)
    else:
        _convert_mapper(reader, ours, "instruct_proj.0", "instruct_proj.1", "instruct_proj.3")


def _convert_vision_prompts(reader: StateReader, config: MopeConfig, ours: dict[str, torch.Tensor]) -> None:
    if not config.uses_vision:
        return
    encoder, base = "vision_model.encoder.", "mope.fusion_prompts."
    depths = config.vision_config.depths
    steered = config.vision_is_steered
    first = 1 if steered and config.fuse_method == "mope" and not config.prompt_first_block else 0
    for stage, depth in enumerate(depths):
        deep = f"{encoder}deep_prompt_embeddings_{stage}"
        if reader.has(deep) and (steered or config.prompt_length):
            static = f"{base}static.{stage}" if steered else f"mope.vision_prompts.prompts.{stage}"
            ours[static] = reader.take(deep, 0, slice(first, None))
            if steered and "dynamic" in config.prompt_kinds:
                ours[f"{base}experts.{stage}"] = reader.take(deep, slice(1, None), slice(first, None))
        if steered and config.fuse_method == "mope":
            blocks = []
            for block in range(first, depth):
                prefix = f"{encoder}layers.{stage}.blocks.{block}."
                names = [name for name in reader.state if name.startswith(f"{prefix}mm_")]
                blocks.append({name.removeprefix(prefix): reader.take(name) for name in names})
            for name, tensor in router_state(blocks).items():
                ours[f"{base}routers.{stage}.{name}"] = tensor
    if not steered:
        return
    if config.fuse_method == "mope":
        down = f"{encoder}mm_prompt_instruction_proj"
        _convert_mapper(reader, ours, f"{down}.0", f"{down}.1", f"{encoder}prompt_proj_{{}}")
        if first and reader.has(f"{encoder}prompt_embeddings"):
            ours[f"{base}arriving"] = reader.take(f"{encoder}prompt_embeddings", 0)
    else:
        _convert_mapper(reader, ours, "instruct_proj.0", "instruct_proj.1", f"{encoder}prompt_proj_{{}}")
        _convert_feature_router(reader, ours, [f"moe_proj.{row}" for row in range(max(sum(depths) - 1, 1))])


def _convert_mapper(reader: StateReader, ours: dict[str, torch.Tensor], down: str, norm: str, up: str) -> None:
    base = "mope.fusion_prompts.mapper."
    names = {down: "down", norm: "norm"} | {up.format(index): f"up.{index}" for index in range(4)}
    if "{}" not in up:
        names[up] = "up.0"
    for name in list(reader.state):
        module, _, leaf = name.rpartition(".")
        if module in names:
            ours[f"{base}{names[module]}.{leaf}"] = reader.take(name)


def _convert_feature_router(reader: StateReader, ours: dict[str, torch.Tensor], rows: list[str]) -> None:
    for leaf in ("weight", "bias"):
        if all(reader.has(f"{row}.{leaf}") for row in rows):
            ours[f"mope.fusion_prompts.router.proj.{leaf}"] = torch.cat([reader.take(f"{row}.{leaf}") for row in rows])


def _convert_heads(reader: StateReader, config: MopeConfig, ours: dict[str, torch.Tensor]) -> None:
    heads = {"classifier": "vision_model.classifier"}
    if config.fuse_method == "ensemble":
        heads = {"vision_classifier": "vision_model.classifier", "text_classifier": "text_model.heads"}
    elif config.fuse_method == "late_concat":
        heads = {"classifier": "fusion_head"}
    elif config.text_is_steered or not config.uses_vision:
        heads = {"classifier": "text_model.heads"}
    for target, source in heads.items():
        for leaf in ("weight", "bias"):
            if reader.has(f"{source}.{leaf}"):
                ours[f"{target}.{leaf}"] = reader.take(f"{source}.{leaf}")


def build_model(
    state: Mapping[str, torch.Tensor], config: MopeConfig
) -> tuple[MopeForSequenceClassification, dict[str, Any]]:
    """Our model with official weights.

    Returns:
        The model in eval mode, and a report: `missing` (our parameters that the state does not hold; they keep their
        initial values) and `unused` (official names whose numbers were not all used).
    """
    converted, unused = convert_state_dict(state, config)
    model = MopeForSequenceClassification(config)
    sizes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name, tensor in converted.items():
        if sizes.get(name, tuple(tensor.shape)) != tuple(tensor.shape):
            raise ValueError(
                f"The checkpoint does not fit its options and towers: {name} has shape {tuple(tensor.shape)}, the model "
                f"has {sizes[name]}; name the towers that it was trained with."
            )
    missing, unexpected = model.load_state_dict(converted, strict=False)
    if unexpected:
        raise ValueError(f"The checkpoint does not fit its options: no place for {', '.join(sorted(unexpected))}.")
    return model.eval(), {"missing": sorted(missing), "unused": sorted(unused)}


def convert_checkpoint(
    checkpoint: str | Path, out: str | Path, vision: str | None = None, text: str | None = None, official: bool = False
) -> dict[str, Any]:
    """Converts a Lightning checkpoint of the official code and saves a folder for `from_pretrained`.

    Args:
        checkpoint: the `.ckpt` file; read without executing anything it may contain.
        out: folder to write.
        vision, text: pretrained towers (Hub id or folder) that fill in the weights the file lacks.
        official: reproduce the official behaviour (`official_options`) instead of the corrected one.

    Returns:
        The report of `build_model`.

    Raises:
        ValueError: the file is no such checkpoint or holds more than data, or weights are missing and no tower was
            named that could supply them.
    """
    options, state = _read_checkpoint(checkpoint)
    if options.get("finetune"):
        raise ValueError(
            f"{checkpoint} was trained with --finetune, but official checkpoints leave out attention and MLP weights: "
            "the trained towers are lost."
        )
    fields: dict[str, Any] = official_options() if official else {}
    for name, source in (("vision_config", vision), ("text_config", text)):
        if source is not None:
            fields[name] = AutoConfig.from_pretrained(source)
    heads = [tensor for name, tensor in state.items() if name.endswith(("classifier.bias", "heads.bias"))]
    if heads:
        fields["num_labels"] = heads[0].shape[0]
    config = convert_config(options, state, **fields)
    named = {"vision": vision is not None or not config.uses_vision, "text": text is not None or not config.uses_text}
    if not all(named.values()) and not any(".attn.qkv." in name or ".attention.self." in name for name in state):
        raise ValueError(
            f"{checkpoint} lacks the backbones' attention and MLP weights, as official checkpoints do; name the "
            f"pretrained towers: {' and '.join(f'--{name}' for name, given in named.items() if not given)}."
        )
    model, report = build_model(state, config)
    lacking = [name for name in report["missing"] if ".vision_model." in name or ".text_model." in name]
    if lacking:
        donor = MopeForSequenceClassification.from_backbones(
            vision, text, **{name: value for name, value in config.to_diff_dict().items() if name in _DONOR_FIELDS}
        )
        weights = donor.state_dict()
        model.load_state_dict({name: weights[name] for name in lacking}, strict=False)
        model.config.frozen_parts = {  # a tower that differs from its source can only be stored in full
            name: origin
            for name, origin in (donor.config.frozen_parts or {}).items()
            if fingerprint(model.towers()[name].state_dict()) == origin["sha256"]
        }
    model.save_pretrained(out)
    report["missing"] = [name for name in report["missing"] if name not in lacking]
    return report


def _read_checkpoint(path: str | Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Options and state dict of a Lightning checkpoint, without executing anything that it may contain."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # how the official script keeps its options
            file = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors and plain values; it is not loaded, because that could run code of "
            f"whoever made the file. ({str(error).strip().splitlines()[-1]})"
        ) from error
    except (EOFError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is not a PyTorch checkpoint, or is damaged ({error!r}).") from error
    if not isinstance(file, dict) or not isinstance(file.get("state_dict"), dict):
        raise ValueError(f'{path} is not a Lightning checkpoint: it has no "state_dict".')
    options = file.get("hyper_parameters", {})
    options = options.get("args", options) if isinstance(options, dict) else options
    return dict(vars(options) if isinstance(options, argparse.Namespace) else options), file["state_dict"]


_DONOR_FIELDS = ("fuse_method", "main_modality", "text_prompt_length", "prompt_length", "text_pooling")


def main(argv: list[str] | None = None) -> None:
    """`fusionzoo convert mope CHECKPOINT OUT`."""
    parser = argparse.ArgumentParser(prog="fusionzoo convert mope", description=main.__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--vision", help="pretrained vision tower that supplies the weights the file lacks")
    parser.add_argument("--text", help="pretrained text tower, likewise")
    parser.add_argument("--official", action="store_true", help="keep the official code's bugs, for comparison")
    arguments = parser.parse_args(argv)
    report = convert_checkpoint(**vars(arguments))
    print(f"Written to {arguments.out}. Not in the checkpoint: {report['missing'] or 'nothing'}.")


if __name__ == "__main__":
    main()
