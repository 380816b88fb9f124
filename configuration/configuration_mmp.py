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
"""Configuration of MMP, missing-aware prompts on ViLT (https://arxiv.org/abs/2303.03369)."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.utils import auto_docstring

from .configuration_fusion import BackboneConfig


_CHOICES = {"prompt_type": ("input", "attention"), "absent_inputs": ("masked", "filler")}


@auto_docstring
@strict
class MmpConfig(BackboneConfig):
    r"""
    backbone_config (`dict` or `ViltConfig`, *optional*):
        The ViLT model. The official models have `hidden_dropout_prob=0.1`, which is active in training although the
        weights are frozen.
    freeze_backbone (`bool`, *optional*, defaults to `True`):
        Keep ViLT's own parameters fixed, but for its pooler.
    weights_scope (`str`, *optional*, defaults to `"full"`):
        What `save_pretrained` writes: `"full"`, or `"trainable"`, which leaves out the frozen backbone; it is then
        loaded from where `frozen_parts` says.
    frozen_parts (`dict`, *optional*):
        Where the frozen backbone comes from: `{"backbone_model": {"repo_id": ..., "revision": ...}}`.
    prompt_type (`str`, *optional*, defaults to `"input"`):
        `"input"` puts prompts in front of the sequence at each prompted layer, where they stay; `"attention"` puts half
        of them in front of the keys and half in front of the values.
    prompt_length (`int`, *optional*, defaults to 16):
        Prompt tokens per layer.
    prompt_layers (`list[int]`, *optional*):
        Layers that receive prompts; `None` means the first six.
    learn_prompts (`bool`, *optional*, defaults to `True`):
        Train the prompts. `False` keeps them as they are at the start, and with `prompt_type="attention"` keys and
        values share all of them.
    absent_inputs (`str`, *optional*, defaults to `"masked"`):
        What ViLT reads of an absent modality: nothing but its [CLS] token (`"masked"`), so that the filler has no
        influence, or the filler (`"filler"`) as in the official code, whose absent pictures keep the sides of the
        picture they replace.
    train_pooler (`bool`, *optional*, defaults to `True`):
        Train ViLT's pooler, as the official code does.
    max_text_length (`int`, *optional*):
        Length of the table of text positions; ViLT's own (40) is interpolated to it when a pretrained backbone is
        loaded.
    classifier_factor (`int`, *optional*, defaults to 2):
        The classifier's hidden layer is this much wider than ViLT.
    cls_token_id (`int`, *optional*, defaults to 101):
        The tokenizer's [CLS], which is all that is read of a text that a whole batch lacks.
    classifier_initializer_range (`float`, *optional*, defaults to 0.02):
        Standard deviation of the classifier's weights at the start.

    Example:

    ```python
    >>> from fusionzoo import MmpConfig, MmpForSequenceClassification

    >>> vilt = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    ...         "image_size": 64, "patch_size": 32, "vocab_size": 110}
    >>> model = MmpForSequenceClassification(MmpConfig(backbone_config=vilt, num_labels=3, prompt_length=4))
    ```"""

    model_type = "fz_mmp"
    sub_configs = {"backbone_config": AutoConfig}
    default_towers: ClassVar[dict[str, str]] = {"backbone_config": "vilt"}
    keys_to_ignore_at_inference = ["task_loss", "pooler_output", "hidden_states", "attentions"]

    backbone_config: Any = None  # a ViltConfig once constructed
    prompt_type: str = "input"
    prompt_length: int = 16
    prompt_layers: list[int] | None = None
    learn_prompts: bool = True
    absent_inputs: str = "masked"
    train_pooler: bool = True
    max_text_length: int | None = None
    classifier_factor: int = 2
    cls_token_id: int = 101
    classifier_initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.prompt_layers is None:
            self.prompt_layers = list(range(min(6, self.backbone_config.num_hidden_layers)))
        if self.max_text_length is not None:
            self.backbone_config.max_position_embeddings = self.max_text_length

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> Any:
        """ViLT, which reads the text."""
        return self.backbone_config

    @property
    def prompted_layers(self) -> list[int]:
        """`prompt_layers`, once it is resolved."""
        return list(self.prompt_layers or [])

    def validate_choices(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} is not allowed; choose one of {', '.join(allowed)}.")
        if self.backbone_config.model_type != "vilt":
            raise ValueError(
                f"backbone_config has model_type={self.backbone_config.model_type!r}; MMP needs a ViLT. For two towers "
                'there is DcpConfig(prompt_type="independent").'
            )

    def validate_prompts(self) -> None:
        # The starting values mark one token per missing type, of each half for prompt_type="attention".
        least = 6 if self.prompt_type == "attention" and self.learn_prompts else 3
        if self.prompt_length < least:
            raise ValueError(
                f"prompt_length={self.prompt_length} must be at least {least} with prompt_type={self.prompt_type!r}."
            )
        if self.prompt_type == "attention" and self.learn_prompts and self.prompt_length % 2:
            raise ValueError(
                f'prompt_length={self.prompt_length} must be even with prompt_type="attention": half of the prompts are '
                "keys, half are values."
            )
        layers, depth = self.prompted_layers, self.backbone_config.num_hidden_layers
        if not layers or sorted(set(layers)) != list(layers) or not 0 <= layers[0] <= layers[-1] < depth:
            raise ValueError(
                f"prompt_layers={layers} must be increasing layer numbers from 0 to {depth - 1}, at least one of them."
            )
        if not self.learn_prompts and self.prompt_type == "input" and len(layers) > 1:
            raise ValueError(
                'learn_prompts=False with prompt_type="input" needs a single entry in prompt_layers, not '
                f"{len(layers)}."
            )

    def validate_numbers(self) -> None:
        for name in ("max_text_length", "classifier_factor"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")
        if not 0 <= self.cls_token_id < self.backbone_config.vocab_size:
            raise ValueError(
                f"cls_token_id={self.cls_token_id} must be a token id below the backbone's vocab_size="
                f"{self.backbone_config.vocab_size}."
            )


__all__ = ["MmpConfig"]
