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
"""`MixLoraConfig`: what may be set in a conditional mixture of LoRA."""

import enum
from dataclasses import dataclass, field

from peft.config import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from ..auto import TUNERS


class FusionPeftType(str, enum.Enum):
    """The zoo's own PEFT type. PEFT's enum is closed; a member of this one hashes and compares like its string, which
    is all that PEFT's tables need. `MIXLORA` alone is taken by another project's adapters."""

    COND_MIXLORA = "COND_MIXLORA"


ROUTINGS = ("input_lora_a_param", "input", "shared", "input_lora_a_choice", "b_only", "random", "plain")
ROUTER_GRADIENTS = ("straight_through", "scored", "none")
ROUTER_POOLS = ("prompt", "mask", "all", "first")
# Routings whose choice of B depends on the chosen A.
CONDITIONAL_ROUTINGS = ("input_lora_a_param", "input_lora_a_choice")
_CHOICES = {
    "routing": ROUTINGS,
    "cfs_mode": ("contraction", "separable"),
    "router_gradient": ROUTER_GRADIENTS,
    "router_pool": ROUTER_POOLS,
    "decode_routing": ("prefill", "per_token"),
    "bias": ("none", "all", "mixlora_only"),
}


@dataclass
class MixLoraConfig(PeftConfig):  # trf-ignore: TRF057 (PEFT's kind of configuration, not transformers')
    """Configuration of a conditional mixture of LoRA (MixLoRA, https://arxiv.org/abs/2402.15896).

    Each adapted linear layer keeps `num_experts` rank-1 factors for its input and as many for its output; a router
    picks `r` of each for every instance. The class declares; `modeling.mixlora_router` holds the equations. The
    defaults are the paper's rule; `modeling.convert_mixlora.official_options()` is what its code does instead.

    Raises:
        ValueError: a value outside its range, or fields that contradict each other; the message names both.

    Example:

        >>> import fusionzoo, peft
        >>> config = fusionzoo.MixLoraConfig(r=2, num_experts=8, target_modules=["q_proj", "v_proj"])
        >>> config.scaling
        8.0
    """

    r: int = field(default=4, metadata={"help": "Factors selected per instance: the rank of the update."})
    num_experts: int = field(default=16, metadata={"help": "Factors in the pool of a layer, at least r."})
    lora_alpha: float | None = field(
        default=None, metadata={"help": "The update is scaled by lora_alpha / r. Default: 2 * num_experts."}
    )
    lora_dropout: float = field(
        default=0.05, metadata={"help": "Dropout on the input of the update (never on the router's input)."}
    )
    routing: str = field(
        default="input_lora_a_param",
        metadata={
            "help": (
                "How factors are selected, in the names of the official options. 'input': A and B each by its own router "
                "(IFS). 'input_lora_a_param': B also by the parameters of the chosen A (IFS + CFS). 'shared': B takes A's "
                "indices. 'input_lora_a_choice': B also by an embedding of A's indices. 'b_only': one static A of r rows. "
                "'random': r factors at random, an ablation. 'plain': LoRA of rank r."
            )
        },
    )
    cfs_weight: float = field(
        default=1.0, metadata={"help": "Weight of the conditional term where routing is conditional."}
    )
    cfs_mode: str = field(
        default="contraction",
        metadata={
            "help": (
                "'contraction': the chosen A factors meet the router's weights coordinate by coordinate, as in the paper. "
                "'separable': both are summed over the coordinates first, as in the official code."
            )
        },
    )
    router_gradient: str = field(
        default="straight_through",
        metadata={
            "help": (
                "'straight_through': the paper's forward, gradients through the routers' probabilities. 'scored': terms are "
                "weighted by the probabilities, renormalised to mean 1. 'none': routers stay as initialised, as in the "
                "official code."
            )
        },
    )
    router_pool: str = field(
        default="prompt",
        metadata={
            "help": (
                "Positions whose mean is routed. 'prompt': attended positions without a label (models that generate; "
                "elsewhere like 'mask'). 'mask': attended positions. 'all': padding too. 'first': the first attended one."
            )
        },
    )
    decode_routing: str = field(
        default="prefill",
        metadata={
            "help": "'prefill': decoding keeps the selection of the prompt. 'per_token': every new token is routed."
        },
    )
    router_noise: float = field(
        default=0.0, metadata={"help": "Standard deviation of noise on the routers' logits in training."}
    )
    share_routers: bool = field(
        default=False,
        metadata={
            "help": "One set of routers for all adapted layers with the same input width, instead of one per layer."
        },
    )
    mix_start_layer: int = field(default=0, metadata={"help": "Layers below this index get plain LoRA of rank r."})
    target_modules: list[str] | str | None = field(
        default=None,
        metadata={"help": "Names (or one regular expression, or 'all-linear') of the linear layers to adapt."},
    )
    exclude_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Names or a regular expression of layers to leave out."}
    )
    layers_to_transform: list[int] | int | None = field(
        default=None, metadata={"help": "Adapt only layers with these indices."}
    )
    layers_pattern: list[str] | str | None = field(
        default=None, metadata={"help": "Name of the list that layers_to_transform counts in."}
    )
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Further modules to train and to save with the adapter."}
    )
    bias: str = field(
        default="none",
        metadata={"help": "Biases to train: 'none', 'all' or 'mixlora_only' (those of adapted layers)."},
    )
    init_weights: bool = field(
        default=True, metadata={"help": "Output factors start at zero, so that training starts from the base model."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = FusionPeftType.COND_MIXLORA
        TUNERS["mixlora"].register()
        for name in ("target_modules", "exclude_modules"):
            if isinstance(value := getattr(self, name), list):
                setattr(self, name, set(value))
        self._validate()

    def _validate(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of: {', '.join(allowed)}.")
        if self.r < 1:
            raise ValueError(f"r={self.r} must be at least 1.")
        if self.num_experts < self.r:
            raise ValueError(f"num_experts={self.num_experts} must be at least r={self.r}: r of them are selected.")
        if self.lora_alpha is not None and self.lora_alpha <= 0:
            raise ValueError(f"lora_alpha={self.lora_alpha} must be positive, or None for 2 * num_experts.")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout={self.lora_dropout} must be at least 0 and below 1.")
        for name in ("cfs_weight", "router_noise", "mix_start_layer"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative.")
        if isinstance(self.target_modules, str) and self.layers_to_transform is not None:
            raise ValueError(
                "layers_to_transform does not work with target_modules as a regular expression; write the indices "
                "into the expression, or give target_modules as a list."
            )
        if self.layers_pattern and self.layers_to_transform is None:
            raise ValueError("layers_pattern needs layers_to_transform: it says where those indices are counted.")
        if self.share_routers and self.routing in ("random", "plain"):
            raise ValueError(f"share_routers=True has no effect with routing={self.routing!r}, which has no router.")

    @property
    def scaling(self) -> float:
        """Factor of the update, `lora_alpha / r`."""
        alpha = 2 * self.num_experts if self.lora_alpha is None else self.lora_alpha
        return alpha / self.r


# `peft.register_peft_method` takes only names of PEFT's own enum, so its tables are filled here and in
# `tuner_mixlora`, under the plain string that adapter files hold. PEFT and transformers need no change.
PEFT_TYPE_TO_CONFIG_MAPPING[FusionPeftType.COND_MIXLORA.value] = MixLoraConfig
