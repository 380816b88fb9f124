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
"""What every method's configuration shares: towers by sub-config, slim checkpoints, and typo detection."""

import difflib
from dataclasses import fields
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig


WEIGHTS_SCOPES = ("full", "trainable")


@strict
class BackboneConfig(PreTrainedConfig):  # trf-ignore: TRF057 (abstract; every method documents its fields)
    """Base of the zoo's configurations: towers (dicts with a `model_type`, or configurations) under the names of
    `default_towers`, whether they are frozen (`freeze_backbone`), and what a checkpoint holds (`weights_scope`,
    `frozen_parts`)."""

    model_type = "fz_backbone"
    default_towers: ClassVar[dict[str, str]] = {}  # name of the sub-config -> its model_type when none is given

    freeze_backbone: bool = True
    weights_scope: str = "full"
    frozen_parts: dict | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        for name, default in self.default_towers.items():
            setattr(self, name, _as_config(name, getattr(self, name), default))
        _refuse_misspelt(type(self), kwargs)
        super().__post_init__(**kwargs)

    def validate_weights_scope(self) -> None:
        if self.weights_scope not in WEIGHTS_SCOPES:
            raise ValueError(f"weights_scope={self.weights_scope!r} is not one of {', '.join(WEIGHTS_SCOPES)}.")
        if self.weights_scope == "trainable" and not self.freeze_backbone:
            raise ValueError(
                'weights_scope="trainable" leaves the towers out of the file, which needs freeze_backbone=True; '
                'use weights_scope="full" for trained towers.'
            )


@strict
class FusionConfig(BackboneConfig):  # trf-ignore: TRF057 (abstract; every method documents its fields)
    """Base of the configurations with a vision and a text tower."""

    model_type = "fz_fusion"
    sub_configs = {"vision_config": AutoConfig, "text_config": AutoConfig}
    default_towers: ClassVar[dict[str, str]] = {"vision_config": "vit", "text_config": "bert"}

    vision_config: Any = None  # a PreTrainedConfig once constructed
    text_config: Any = None


def _as_config(name: str, value: Any, default_model_type: str) -> PreTrainedConfig:
    if isinstance(value, PreTrainedConfig):
        # Of a dual encoder like CLIP, the tower in question.
        return getattr(value, name) if name in value.sub_configs else value
    if not isinstance(value, dict | None):
        raise ValueError(
            f'{name}={value!r} must be a configuration or a dict with a model_type, e.g. {{"model_type": '
            f'"{default_model_type}"}}; from_backbones takes Hub ids and folders.'
        )
    options = dict(value or {})
    model_type = options.pop("model_type", default_model_type)
    try:
        return AutoConfig.for_model(model_type, **options)
    except ValueError as error:
        raise ValueError(
            f'{name} has model_type={model_type!r}, which transformers does not know; use e.g. "{default_model_type}".'
        ) from error


def _refuse_misspelt(config_class: type, extra: dict[str, Any]) -> None:
    """transformers keeps unknown keywords as attributes; one that looks like a declared field is a typing mistake."""
    declared = [*(field.name for field in fields(config_class)), "num_labels"]
    for name in extra:
        close = difflib.get_close_matches(name, declared, n=1, cutoff=0.85)
        if close and close[0] != name:
            raise ValueError(f"{config_class.__name__} has no field {name!r}; did you mean {close[0]!r}?")


__all__ = ["BackboneConfig", "FusionConfig"]
