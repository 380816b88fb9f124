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
"""Configuration of MoPE, Mixture of Prompt Experts (https://arxiv.org/abs/2403.10568)."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers.utils import auto_docstring

from .configuration_fusion import FusionConfig


# Which tokens a method puts in front of the patches (or after [CLS]), in the official order.
PROMPT_KINDS = {
    "mope": ("static", "dynamic", "mapped"),
    "text_router": ("dynamic", "static", "mapped"),
    "mapped": ("static", "mapped"),
    "p_sequential": ("mapped", "static"),
    "sequentialfuse": ("mapped", "static"),
    "late_concat": ("static",),
    "ensemble": ("static",),
    "vision_only": ("static",),
    "text_only": ("static",),
}
ROUTED_METHODS = ("mope", "text_router")
# Towers that prompts can be inserted into.
SUPPORTED_TOWERS = {
    "vision_config": ("swin", "vit", "deit", "dinov2", "dinov2_with_registers"),
    "text_config": ("bert", "roberta", "xlm-roberta", "camembert", "ernie"),
}
_SEQUENTIAL_METHODS = ("p_sequential", "sequentialfuse")
_CHOICES = {
    "fuse_method": tuple(PROMPT_KINDS),
    "main_modality": ("vision", "text"),
    "router_pool": ("all", "patches"),
    "mapper_norm": ("affine", "batch_norm", "layer_norm", "none"),
    "prompt_init": ("uniform", "normal", "orthogonal"),
    "window_prompt_order": ("sample", "official"),
    "vision_pooling": ("cls", "mean"),
    "text_pooling": ("cls", "mean", "pooler"),
}


@auto_docstring
@strict
class MopeConfig(FusionConfig):
    r"""
    freeze_backbone (`bool`, *optional*, defaults to `True`):
        Keep the towers' own parameters fixed. A frozen tower is never changed by training, bit for bit.
    weights_scope (`str`, *optional*, defaults to `"full"`):
        What `save_pretrained` writes: `"full"`, or `"trainable"`, which leaves out the frozen towers; they are then
        loaded from where `frozen_parts` says.
    frozen_parts (`dict`, *optional*):
        Where each frozen tower comes from: `{"vision_model": {"repo_id": ..., "revision": ...}, ...}`.
    main_modality (`str`, *optional*, defaults to `"vision"`):
        The tower that receives the routed prompts and is classified; the other one steers it. `"vision"` or `"text"`.
    fuse_method (`str`, *optional*, defaults to `"mope"`):
        `mope` (the paper's method), `text_router` (experts chosen by the other modality alone), `mapped` (static and
        mapped prompts), `p_sequential` and `sequentialfuse` (image feature mapped into the text tower),
        `late_concat`, `ensemble`, `vision_only`, `text_only`.
    num_experts (`int`, *optional*, defaults to 4):
        Prompt experts per block, k in the paper.
    prompt_length (`int`, *optional*, defaults to 6):
        Tokens of one vision prompt, n. With `fuse_method`s that use static vision prompts only, 0 leaves the tower
        unprompted.
    text_prompt_length (`int`, *optional*, defaults to 4):
        Tokens of one text prompt, l. 0 leaves the text tower unprompted.
    use_static_prompt (`bool`, *optional*, defaults to `True`):
        Ablation of the routed methods: tokens shared by all instances.
    use_dynamic_prompt (`bool`, *optional*, defaults to `True`):
        Ablation of the routed methods: the mixture of prompt experts.
    use_mapped_prompt (`bool`, *optional*, defaults to `True`):
        Ablation of the routed methods: the other modality's feature mapped to one token.
    router_self_dim (`int`, *optional*, defaults to 2):
        Width of the routing query taken from the tower's own tokens.
    router_cross_dim (`int`, *optional*, defaults to 8):
        Width of the routing query taken from the other modality's feature.
    router_temperature (`float`, *optional*, defaults to 0.1):
        Temperature of the routing softmax.
    router_noise_std (`float`, *optional*):
        Standard deviation of the noise added to the routing logits after the division by the temperature. `None`
        takes the official one: 1/256, or 1/k^2 for routers that see the other modality alone.
    router_noise_in_eval (`bool`, *optional*, defaults to `False`):
        Add the noise at inference too, as the official code does.
    router_top_k (`int`, *optional*):
        Keep the k largest routing weights, renormalised; `None` mixes all experts.
    router_pool (`str`, *optional*, defaults to `"all"`):
        Tokens averaged for the router's query: `"all"` (arriving prompts included) or `"patches"`.
    importance_loss_weight (`float`, *optional*, defaults to 0.01):
        Weight of the importance loss.
    importance_threshold (`float`, *optional*):
        Squared coefficients of variation up to this value cost nothing. `None` takes the official one: 0.1, or 0.05
        for routers that see the other modality alone.
    mapper_hidden_size (`int`, *optional*):
        Width between the mapper's two layers. `None` takes the official one: 384; 1500 for `p_sequential`, 512 for
        `sequentialfuse`.
    mapper_norm (`str`, *optional*):
        Normalisation in the mapper: `"affine"` (a BatchNorm that always uses its stored statistics), `"batch_norm"`,
        `"layer_norm"` or `"none"`. `None` takes the official one of the method.
    prompt_dropout (`float`, *optional*, defaults to 0.1):
        Dropout on input, mapped and text prompts.
    prompt_init (`str`, *optional*, defaults to `"uniform"`):
        Initialisation of the vision prompts: `"uniform"`, `"normal"` or `"orthogonal"`.
    text_prompt_init_range (`float`, *optional*, defaults to 0.3):
        Text prompts are drawn uniformly from plus or minus this value.
    prompt_first_block (`bool`, *optional*, defaults to `False`):
        Give routed prompts to the first block of each stage too, as the paper's figure shows; the official code does
        not.
    window_prompt_order (`str`, *optional*, defaults to `"sample"`):
        Which sample's prompts a Swin window attends to: its own (`"sample"`) or, as in the official code, those of
        another sample of the batch (`"official"`).
    pool_prompts (`bool`, *optional*, defaults to `True`):
        Include the prompt tokens where the vision tower's feature is a mean, as the official code does for Swin.
    vision_pooling (`str`, *optional*):
        Feature of a ViT-like tower: `"cls"` or `"mean"`. `None`: `"cls"`, and `"mean"` for Swin, which has no [CLS].
    text_pooling (`str`, *optional*):
        Feature of the text tower: `"cls"`, `"mean"` (over real tokens) or `"pooler"`. `None`: `"cls"` when prompted,
        else `"pooler"`, as in the official code.
    train_text_prompts (`bool`, *optional*, defaults to `True`):
        Train the static prompts of the text tower.
    train_router_keys (`bool`, *optional*, defaults to `False`):
        Train the routing keys, which the paper keeps frozen and orthogonal.

    Example:

    ```python
    >>> from fusionzoo import MopeConfig, MopeForSequenceClassification

    >>> towers = {
    ...     "vision_config": {"model_type": "vit", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    ...                       "intermediate_size": 64, "image_size": 32, "patch_size": 8},
    ...     "text_config": {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    ...                     "intermediate_size": 64, "vocab_size": 100},
    ... }
    >>> model = MopeForSequenceClassification(MopeConfig(num_labels=3, **towers))
    ```"""

    model_type = "fz_mope"
    default_towers = {"vision_config": "swin", "text_config": "bert"}
    keys_to_ignore_at_inference = [
        "task_loss", "importance_loss", "router_scores", "pooler_output", "hidden_states", "attentions",
    ]  # fmt: skip

    main_modality: str = "vision"
    fuse_method: str = "mope"
    num_experts: int = 4
    prompt_length: int = 6
    text_prompt_length: int = 4
    use_static_prompt: bool = True
    use_dynamic_prompt: bool = True
    use_mapped_prompt: bool = True
    router_self_dim: int = 2
    router_cross_dim: int = 8
    router_temperature: float | int = 0.1
    router_noise_std: float | int | None = None
    router_noise_in_eval: bool = False
    router_top_k: int | None = None
    router_pool: str = "all"
    importance_loss_weight: float | int = 0.01
    importance_threshold: float | int | None = None
    mapper_hidden_size: int | None = None
    mapper_norm: str | None = None
    prompt_dropout: float | int = 0.1
    prompt_init: str = "uniform"
    text_prompt_init_range: float | int = 0.3
    prompt_first_block: bool = False
    window_prompt_order: str = "sample"
    pool_prompts: bool = True
    vision_pooling: str | None = None
    text_pooling: str | None = None
    train_text_prompts: bool = True
    train_router_keys: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        self._take_official_defaults()
        super().__post_init__(**kwargs)

    def _take_official_defaults(self) -> None:
        """Fills the fields left at `None` with the official code's value for this fuse method."""
        other_modality_only = self.fuse_method == "text_router" or self.main_modality == "text"
        if self.router_noise_std is None:
            self.router_noise_std = 1 / max(self.num_experts, 1) ** 2 if other_modality_only else 1 / 256
        if self.importance_threshold is None:
            self.importance_threshold = 0.05 if other_modality_only else 0.1
        if self.mapper_hidden_size is None:
            self.mapper_hidden_size = {"p_sequential": 1500, "sequentialfuse": 512}.get(self.fuse_method, 384)
        if self.mapper_norm is None:
            if self.fuse_method in _SEQUENTIAL_METHODS or self.main_modality == "text":
                self.mapper_norm = "batch_norm"
            else:
                self.mapper_norm = "affine" if self.fuse_method == "mope" else "none"
        if self.text_pooling is None:
            self.text_pooling = "cls" if self.text_prompt_length or self.text_is_steered else "pooler"
        if self.vision_pooling is None:
            model_type = (
                self.vision_config.get("model_type", self.default_towers["vision_config"])
                if isinstance(self.vision_config, dict)
                else getattr(self.vision_config, "model_type", self.default_towers["vision_config"])
            )
            self.vision_pooling = "mean" if model_type == "swin" else "cls"

    @property
    def text_is_steered(self) -> bool:
        """Whether the text tower is classified with prompts made from the image feature."""
        steered_by_prompts = self.fuse_method in ("mope", "text_router", "mapped") and self.main_modality == "text"
        return self.fuse_method in _SEQUENTIAL_METHODS or steered_by_prompts

    @property
    def vision_is_steered(self) -> bool:
        """Whether the vision tower is classified with prompts made from the text feature."""
        return self.fuse_method in ("mope", "text_router", "mapped") and self.main_modality == "vision"

    @property
    def uses_vision(self) -> bool:
        return self.fuse_method != "text_only"

    @property
    def uses_text(self) -> bool:
        return self.fuse_method != "vision_only"

    @property
    def classified_modalities(self) -> tuple[str, ...]:
        """The towers whose features the head sees, in this order."""
        if self.fuse_method in ("late_concat", "ensemble"):
            return ("vision", "text")
        return ("text",) if self.text_is_steered or not self.uses_vision else ("vision",)

    @property
    def prompt_kinds(self) -> tuple[str, ...]:
        """The kinds of prompt tokens of the steered tower, in the order in which they are inserted."""
        kinds = PROMPT_KINDS[self.fuse_method]
        if self.fuse_method in ROUTED_METHODS and self.main_modality == "text":
            kinds = ("mapped", "static", "dynamic")
        switches = {
            "static": self.use_static_prompt, "dynamic": self.use_dynamic_prompt, "mapped": self.use_mapped_prompt,
        }  # fmt: skip
        return tuple(kind for kind in kinds if self.fuse_method not in ROUTED_METHODS or switches[kind])

    def validate_choices(self) -> None:
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise ValueError(f"{name}={value!r} is not allowed; choose one of {', '.join(allowed)}.")

    def validate_towers(self) -> None:
        for name, supported in SUPPORTED_TOWERS.items():
            model_type = getattr(self, name).model_type
            if model_type not in supported:
                raise ValueError(
                    f"{name} has model_type={model_type!r}, into which prompts cannot be inserted; use a tower of type "
                    f"{', '.join(supported)}."
                )

    def validate_numbers(self) -> None:
        for name in ("num_experts", "router_self_dim", "router_cross_dim", "mapper_hidden_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")
        for name in ("prompt_length", "text_prompt_length"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative; 0 means no prompts.")
        if not self.router_temperature > 0:
            raise ValueError(f"router_temperature={self.router_temperature} must be positive.")
        for name in ("router_noise_std", "importance_loss_weight", "importance_threshold", "text_prompt_init_range"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative.")
        if not 0 <= self.prompt_dropout < 1:
            raise ValueError(f"prompt_dropout={self.prompt_dropout} must lie in [0, 1).")
        if self.router_top_k is not None and not 1 <= self.router_top_k <= self.num_experts:
            raise ValueError(
                f"router_top_k={self.router_top_k} must lie between 1 and num_experts={self.num_experts}; "
                "use None to mix all experts."
            )

    def validate_combination(self) -> None:
        if self.fuse_method in ROUTED_METHODS and not {"dynamic", "mapped"} & set(self.prompt_kinds):
            alone = "text_only" if self.main_modality == "text" else "vision_only"
            raise ValueError(
                f"use_dynamic_prompt=False and use_mapped_prompt=False leave fuse_method={self.fuse_method!r} without "
                f'the other modality; keep one of them, or use fuse_method="{alone}".'
            )
        if self.main_modality == "text" and self.fuse_method not in (*ROUTED_METHODS, "mapped"):
            raise ValueError(
                f'main_modality="text" applies to fuse_method in {(*ROUTED_METHODS, "mapped")}, not to '
                f"{self.fuse_method!r}; leave main_modality at its default."
            )
        steered_length = self.text_prompt_length if self.text_is_steered else self.prompt_length
        if (self.vision_is_steered or self.text_is_steered) and steered_length < 1:
            name = "text_prompt_length" if self.text_is_steered else "prompt_length"
            raise ValueError(f"{name}=0 leaves fuse_method={self.fuse_method!r} without prompts; give at least 1.")
        if self.vision_pooling == "cls" and getattr(self.vision_config, "model_type", None) == "swin":
            raise ValueError('vision_pooling="cls" needs a [CLS] token, which Swin lacks; use "mean".')


__all__ = ["MopeConfig"]
