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
"""Configuration of DCP, Deep Correlated Prompting (https://arxiv.org/abs/2410.06558)."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.utils import auto_docstring, logging

from .configuration_fusion import FusionConfig


logger = logging.get_logger(__name__)

_CHOICES = {
    "prompt_type": ("dcp", "independent", "none"),
    "correlated_norm": ("pre", "post"),
    "prompt_sharing": ("present_absent", "per_type"),
    "dynamic_generator": ("attention", "attention_mlp"),
    "dynamic_queries": ("trainable", "fixed"),
}
# Towers of one width, with a plain list of layers.
SUPPORTED_TOWERS = {
    "vision_config": (
        "clip_vision_model", "siglip_vision_model", "vit", "deit", "dinov2", "dinov2_with_registers",
    ),
    "text_config": (
        "clip_text_model", "siglip_text_model", "bert", "roberta", "xlm-roberta", "camembert", "ernie",
    ),
}  # fmt: skip
# Text towers whose positions are all read, padding included, because they are always padded to one length.
_FIXED_LENGTH_TEXT = ("clip_text_model", "siglip_text_model")


@auto_docstring
@strict
class DcpConfig(FusionConfig):
    r"""
    freeze_backbone (`bool`, *optional*, defaults to `True`):
        Keep the towers' own parameters fixed, but for those that `train_final_norms` names.
    weights_scope (`str`, *optional*, defaults to `"full"`):
        What `save_pretrained` writes: `"full"`, or `"trainable"`, which leaves out the frozen towers; they are then
        loaded from where `frozen_parts` says.
    frozen_parts (`dict`, *optional*):
        Where each frozen tower comes from: `{"vision_model": {"repo_id": ..., "revision": ...}, ...}`.
    prompt_type (`str`, *optional*, defaults to `"dcp"`):
        `"dcp"`; `"independent"`, in which the prompts of each block are free parameters instead of being generated
        from those of the block before (MMP on two towers, if common and dynamic prompts are off); or `"none"`, the
        baseline without prompts.
    prompt_length (`int`, *optional*, defaults to 36):
        Tokens in front of the sequence when all three kinds of prompts are on. Each kind has a third.
    prompt_depth (`int`, *optional*, defaults to 6):
        Blocks that receive correlated prompts, J in the paper.
    reduction_factor (`int`, *optional*, defaults to 16):
        Bottlenecks are this much narrower than their input.
    use_correlated_prompts (`bool`, *optional*, defaults to `True`):
        Ablation: the correlated (or, for `prompt_type="independent"`, the independent) prompts.
    use_common_prompts (`bool`, *optional*, defaults to `True`):
        Ablation: the prompts that both modalities have in common.
    use_dynamic_prompts (`bool`, *optional*, defaults to `True`):
        Ablation: the prompts made from the input.
    correlated_norm (`str`, *optional*, defaults to `"pre"`):
        LayerNorm before each generator, as in the official code (`"pre"`), or after it, as in the paper (`"post"`).
    generate_first_prompt (`bool`, *optional*, defaults to `True`):
        Generate the first block's correlated prompts too, as the official code does; in the paper they are parameters.
    correlated_bimodal (`bool`, *optional*, defaults to `True`):
        Generate the prompts of a block from those of both modalities; `False` is the paper's ablation with one.
    prompt_sharing (`str`, *optional*, defaults to `"present_absent"`):
        Initial prompts per modality: one where it is present and one where it is absent, as in the official code, or
        one per missing type (`"per_type"`), as in the paper.
    dynamic_generator (`str`, *optional*, defaults to `"attention"`):
        Learned queries attend to the input tokens, as in the official code; `"attention_mlp"` adds the LayerNorms and
        the MLP of the paper.
    dynamic_queries (`str`, *optional*, defaults to `"trainable"`):
        `"fixed"` keeps the queries as they were drawn, as the official code does. They are saved in any case.
    dynamic_attends_padding (`bool`, *optional*):
        Whether the dynamic text prompts attend to padding. `None`: as the tower itself does, which is true of CLIP and
        SigLIP (texts must then be padded to one length, as `DcpProcessor` does) and false of BERT-like towers.
    train_final_norms (`bool`, *optional*, defaults to `True`):
        Train the towers' last LayerNorm.
    train_visual_projection (`bool`, *optional*, defaults to `True`):
        Train CLIP's projection of the image feature.
    train_text_projection (`bool`, *optional*, defaults to `False`):
        Train CLIP's projection of the text feature, which the official code does not.
    skip_absent_towers (`bool`, *optional*, defaults to `True`):
        Run a tower on the samples that have its modality, and a CLIP text tower up to the last token that matters. The
        result is the same but for rounding; shapes then depend on the data, so that the sizes of a batch travel to the
        host once per step. Under `torch.compile` and `torch.export` all samples run in any case.
    prompt_initializer_range (`float`, *optional*, defaults to 0.02):
        Standard deviation of the prompts and queries at the start.
    classifier_initializer_range (`float`, *optional*, defaults to 0.02):
        Standard deviation of the classifier's weights at the start.

    Example:

    ```python
    >>> from fusionzoo import DcpConfig, DcpForSequenceClassification

    >>> towers = {
    ...     "vision_config": {"model_type": "clip_vision_model", "hidden_size": 32, "num_hidden_layers": 2,
    ...                       "num_attention_heads": 2, "intermediate_size": 64, "image_size": 32, "patch_size": 8},
    ...     "text_config": {"model_type": "clip_text_model", "hidden_size": 32, "num_hidden_layers": 2,
    ...                     "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 100, "bos_token_id": 98,
    ...                     "eos_token_id": 99},
    ... }
    >>> model = DcpForSequenceClassification(DcpConfig(num_labels=3, prompt_length=6, prompt_depth=2, **towers))
    ```"""

    model_type = "fz_dcp"
    default_towers: ClassVar[dict[str, str]] = {"vision_config": "clip_vision_model", "text_config": "clip_text_model"}
    keys_to_ignore_at_inference = ["task_loss", "pooler_output", "hidden_states", "attentions"]

    prompt_type: str = "dcp"
    prompt_length: int = 36
    prompt_depth: int = 6
    reduction_factor: int = 16
    use_correlated_prompts: bool = True
    use_common_prompts: bool = True
    use_dynamic_prompts: bool = True
    correlated_norm: str = "pre"
    generate_first_prompt: bool = True
    correlated_bimodal: bool = True
    prompt_sharing: str = "present_absent"
    dynamic_generator: str = "attention"
    dynamic_queries: str = "trainable"
    dynamic_attends_padding: bool | None = None
    train_final_norms: bool = True
    train_visual_projection: bool = True
    train_text_projection: bool = False
    skip_absent_towers: bool = True
    prompt_initializer_range: float = 0.02
    classifier_initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.dynamic_attends_padding is None:
            self.dynamic_attends_padding = self.text_config.model_type in _FIXED_LENGTH_TEXT

    @property
    def length_per_kind(self) -> int:
        """Tokens of one kind of prompts, K in the paper."""
        return self.prompt_length // 3

    @property
    def prompt_kinds(self) -> tuple[str, ...]:
        """The kinds of prompts in front of the sequence, in their order there."""
        kinds = {
            "correlated": self.use_correlated_prompts,
            "common": self.use_common_prompts,
            "dynamic": self.use_dynamic_prompts,
        }
        return tuple(kind for kind, used in kinds.items() if used and self.prompt_type != "none")

    @property
    def num_prompts(self) -> int:
        """Tokens in front of the sequence."""
        return self.length_per_kind * len(self.prompt_kinds)

    @property
    def widths(self) -> dict[str, int]:
        """The towers' widths."""
        return {"vision": self.vision_config.hidden_size, "text": self.text_config.hidden_size}

    @property
    def feature_sizes(self) -> dict[str, int]:
        """Widths of the features: a CLIP tower's projected one, the output of SigLIP's text head, else the tower's."""
        return {"vision": _feature_size(self.vision_config), "text": _feature_size(self.text_config)}

    def validate_choices(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} is not allowed; choose one of {', '.join(allowed)}.")

    def validate_numbers(self) -> None:
        if self.prompt_length < 3 or self.prompt_length % 3:
            raise ValueError(
                f"prompt_length={self.prompt_length} must be a positive multiple of 3: correlated, common and dynamic "
                f"prompts have a third each. The nearest allowed is {max(1, round(self.prompt_length / 3)) * 3}."
            )
        for name in ("prompt_depth", "reduction_factor"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1.")
        for name in ("prompt_initializer_range", "classifier_initializer_range"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative.")

    def validate_towers(self) -> None:
        for name, supported in SUPPORTED_TOWERS.items():
            model_type = getattr(self, name).model_type
            if model_type not in supported:
                raise ValueError(
                    f"{name} has model_type={model_type!r}, in front of which no prompts can be put; use a tower of type "
                    f"{', '.join(supported)}."
                )

    def validate_combination(self) -> None:
        if self.prompt_type != "none" and not self.prompt_kinds:
            raise ValueError(
                f"prompt_type={self.prompt_type!r} with use_correlated_prompts, use_common_prompts and "
                'use_dynamic_prompts all False has no prompts; use prompt_type="none" for the towers alone.'
            )
        depth = min(self.vision_config.num_hidden_layers, self.text_config.num_hidden_layers)
        if "correlated" in self.prompt_kinds and self.prompt_depth > depth:
            logger.warning_once(
                f"prompt_depth={self.prompt_depth} exceeds the {depth} layers of a tower; the prompts of deeper blocks "
                "are not used there."
            )


def _feature_size(tower: PreTrainedConfig) -> int:
    if tower.model_type in ("clip_vision_model", "clip_text_model"):
        return tower.projection_dim
    return tower.projection_size if tower.model_type == "siglip_text_model" else tower.hidden_size


__all__ = ["DcpConfig"]
