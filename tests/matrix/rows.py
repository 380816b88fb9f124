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
"""The test matrix: every row is run through every check. A new method is one more row in `ROWS`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from fixtures_tiny import tiny_dcp_config, tiny_image_processor, tiny_mmp_config, tiny_mope_config, tiny_tokenizer
from PIL import Image
from transformers import ViltImageProcessor

import fusionzoo
from fusionzoo import DcpProcessor, MmpProcessor, MopeProcessor


_TEXTS = (
    "a red cat", "the blue dog and the green string of food", "good", "not the older, upper meme", "bad food is bad",
    "newer", "b c a", "lower and longer",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A method with tiny towers.

    Attributes:
        name: shown in the test's id.
        make_config: `make_config(**fields)` gives the configuration.
        model_class: name of a public model class with `forward(..., labels) -> loss, logits`.
        make_processor: gives the processor that fits the configuration.
        is_trained: whether training is meant to change the parameter of this name.
        towers: kinds of the pretrained folders for `from_backbones`, `(vision, text)`, as in `fixtures_tiny`; `None` for
            rows whose backbone is one model, which have their own tests of it.
        modalities: what the method looks at.
        fields: configuration fields of this row.
        num_layers: layers of all towers, each of which activation checkpointing must recompute.
        changing_buffers: endings of the names of buffers that training updates.
        some_option: a configuration field that changes nothing at inference, and a value for it.
        reshapes: whether towers run on fewer samples where some are absent, so that results agree but for rounding.
        quiet_fields: configuration fields that leave nothing random in training.
    """

    name: str
    make_config: Callable[..., Any]
    model_class: str
    make_processor: Callable[[], Any]
    is_trained: Callable[[str], bool]
    towers: tuple[str, str] | None
    modalities: tuple[str, ...] = ("image", "text")
    fields: dict[str, Any] = field(default_factory=dict)
    num_layers: int = 4
    changing_buffers: tuple[str, ...] = ()
    some_option: tuple[str, Any] = ("prompt_dropout", 0.5)
    reshapes: bool = False
    quiet_fields: dict[str, Any] = field(default_factory=dict)

    @property
    def multi_label(self) -> bool:
        return self.fields.get("problem_type") == "multi_label_classification"

    @property
    def frozen(self) -> bool:
        return self.fields.get("freeze_backbone", True)

    def config(self, **fields: Any) -> Any:
        return self.make_config(**{**self.fields, **fields})

    def model(self, seed: int = 0, **fields: Any) -> Any:
        """A fresh model in eval mode; the vectors that start at zero are drawn, so that they matter."""
        torch.manual_seed(seed)
        model = getattr(fusionzoo, self.model_class)(self.config(**fields))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad and not parameter.any():
                    parameter.normal_(std=0.2)
        return model.eval()

    def quiet_model(self, seed: int = 0, **fields: Any) -> Any:
        """A model without anything random in training."""
        return self.model(seed, **{**self.quiet_fields, **fields})

    def rows(self, count: int, seed: int = 0) -> tuple[list[Image.Image], list[str]]:
        generator = torch.Generator().manual_seed(seed)
        pixels = torch.randint(0, 256, (count, 5, 7, 3), generator=generator, dtype=torch.uint8)
        images = [Image.fromarray(each.numpy()).resize((40, 36)) for each in pixels]
        return images, [f"{_TEXTS[index % len(_TEXTS)]}{' cat' * (index // len(_TEXTS))}" for index in range(count)]

    def inputs(self, count: int = 4, seed: int = 0, missing: list[int] | None = None) -> dict[str, torch.Tensor]:
        """Real pictures and texts through the row's processor; `missing` as in `MissingType`."""
        images, texts = self.rows(count, seed)
        missing = missing or [0] * count
        images = [None if kind == 2 else image for kind, image in zip(missing, images)]
        texts = [None if kind == 1 else text for kind, text in zip(missing, texts)]
        return dict(self.make_processor()(images=images, text=texts, return_tensors="pt"))

    def labels(self, count: int = 4) -> torch.Tensor:
        """Labels of `inputs`, one for each of three classes in turn."""
        classes = torch.arange(count) % 3
        return torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 0, 1]])[classes] if self.multi_label else classes


def _lively(config: Any) -> Any:
    """Towers whose weights are large enough for their inputs to matter."""
    for name in config.default_towers:
        getattr(config, name).initializer_range = 0.2
    return config


def _mope(name: str, vision: str = "vit", text: str = "bert", **changes: Any) -> Row:
    fields = {
        "num_labels": 3, "prompt_length": 2, "text_prompt_length": 2, "num_experts": 3, "mapper_hidden_size": 12,
        "problem_type": "single_label_classification", **changes.pop("fields", {}),
    }  # fmt: skip
    defaults = {
        "make_config": lambda **fields: _lively(tiny_mope_config(vision, text, **fields)),
        "model_class": "MopeForSequenceClassification",
        "make_processor": lambda: MopeProcessor(tiny_image_processor(32, "torchvision"), tiny_tokenizer(text)),
        "is_trained": lambda name: ".vision_model." not in name and ".text_model." not in name,
        "towers": (vision, text),
        "num_layers": (8 if vision == "swin" else 2) + 2,
        "quiet_fields": {"prompt_dropout": 0.0, "router_noise_std": 0.0},
    }
    return Row(name, fields=fields, **{**defaults, **changes})


def _dcp(name: str, vision: str = "vit", text: str = "bert", **changes: Any) -> Row:
    fields = {
        "num_labels": 3, "prompt_length": 6, "prompt_depth": 2, "reduction_factor": 2,
        "problem_type": "single_label_classification", **changes.pop("fields", {}),
    }  # fmt: skip
    tokenizer = "roberta" if text == "roberta" else "bert"
    norms = ("vision_model.layernorm.", "vision_model.post_layernorm.", "text_model.final_layer_norm.")
    defaults = {
        "make_config": lambda **fields: _lively(tiny_dcp_config(vision, text, **fields)),
        "model_class": "DcpForSequenceClassification",
        "make_processor": lambda: DcpProcessor(
            tiny_image_processor(32, "torchvision"), tiny_tokenizer(tokenizer), pad_to_max_length=False
        ),
        "is_trained": lambda name: (
            not any(f".{tower}_model." in name for tower in ("vision", "text")) or any(norm in name for norm in norms)
        ),
        "towers": None if vision in ("clip", "siglip") else (vision, text),
        "some_option": ("prompt_initializer_range", 0.5),
        "reshapes": fields.get("skip_absent_towers", True),
    }
    return Row(name, fields=fields, **{**defaults, **changes})


def _mmp(name: str, **fields: Any) -> Row:
    return Row(
        name,
        make_config=lambda **fields: _lively(tiny_mmp_config(**fields)),
        model_class="MmpForSequenceClassification",
        make_processor=lambda: MmpProcessor(
            ViltImageProcessor(size={"shortest_edge": 32}, size_divisor=16), tiny_tokenizer()
        ),
        is_trained=lambda name: ".backbone_model." not in name or ".pooler." in name,
        towers=None,
        fields={"num_labels": 3, "problem_type": "single_label_classification", **fields},
        num_layers=2,
    )


_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

ROWS = [
    _mope("mope-vit-bert"),
    _mope("mope-dinov2-roberta", "dinov2", "roberta", fields={"vision_pooling": "mean", "prompt_first_block": True}),
    _mope("mope-swin-bert", "swin"),
    _mope("mope-text-main", fields={"main_modality": "text"}, changing_buffers=_STATISTICS),
    _mope("mope-multi-label", fields={"problem_type": "multi_label_classification", "router_top_k": 2}),
    _mope(
        "mope-trained-towers",
        fields={"freeze_backbone": False},
        is_trained=lambda name: not name.endswith("mask_token"),
    ),
    _mope("text_router", fields={"fuse_method": "text_router"}),
    _mope("p_sequential", fields={"fuse_method": "p_sequential"}, changing_buffers=_STATISTICS),
    _mope("late_concat", fields={"fuse_method": "late_concat", "text_prompt_length": 0}),
    _mope("vision_only", "swin", fields={"fuse_method": "vision_only"}, modalities=("image",), num_layers=8),
    _mope(
        "text_only", fields={"fuse_method": "text_only", "text_pooling": "mean"}, modalities=("text",), num_layers=2
    ),
    _dcp("dcp-vit-bert"),
    _dcp("dcp-dinov2-roberta", "dinov2", "roberta", fields={"prompt_sharing": "per_type", "correlated_norm": "post"}),
    # CLIP's text tower with a mask, as the rows' texts are not padded to one length.
    _dcp("dcp-clip", "clip", "clip", fields={"dynamic_attends_padding": False, "train_text_projection": True}),
    _dcp("dcp-dense", fields={"skip_absent_towers": False, "problem_type": "multi_label_classification"}),
    _dcp("dcp-independent", fields={"prompt_type": "independent", "dynamic_generator": "attention_mlp"}),
    _mmp("mmp-input"),
    _mmp("mmp-attention", prompt_type="attention"),
]
MOPE_ROWS = tuple(row.name for row in ROWS if row.model_class.startswith("Mope"))
