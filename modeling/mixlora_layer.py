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
"""A linear layer with a conditional mixture of LoRA: `y = base(x) + s sum_k w_k (dropout(x) . a_{I_k}) b_{J_k}`."""

import copy
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, _get_in_out_features
from torch import nn
from transformers import initialization as init

from ..configuration.configuration_mixlora import MixLoraConfig
from .mixlora_context import RoutingContext
from .mixlora_router import Routing, pool, route


NO_MERGE = (
    "A MixLoRA adapter cannot be merged into the base weights: every instance selects its own update, so there is no "
    "single weight to merge. Keep the adapter (save_pretrained / PeftModel.from_pretrained), or remove it with unload()."
)


class FactorBank(nn.Module):
    """`(rows, width)`, one factor or one router row per row, uniform in plus or minus `bound`."""

    def __init__(self, rows: int, width: int, bound: float):
        super().__init__()
        self.bound = bound
        self.weight = nn.Parameter(torch.empty(rows, width))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        if self.bound:
            init.uniform_(self.weight, -self.bound, self.bound)
        else:
            init.zeros_(self.weight)

    def extra_repr(self) -> str:
        return "{}, {}".format(*self.weight.shape)


class MixLoraLayer(BaseTunerLayer):
    """Adapters of one linear layer, by name."""

    # The routers keep the names of the official checkpoints' selectors: A, B, and B given A.
    router_names = (
        "cond_mixlora_router_A",
        "cond_mixlora_router_B",
        "cond_mixlora_router_AB",
        "cond_mixlora_choice_embedding",
        "cond_mixlora_router_choice",
    )
    adapter_layer_names = ("cond_mixlora_A", "cond_mixlora_B", *router_names)
    other_param_names = ("cond_mixlora_dropout", "mixlora_config")

    def __init__(self, base_layer: nn.Module, key: str, context: RoutingContext, reads_text: bool = True):
        self.base_layer = base_layer
        self.key, self.context, self.reads_text = key, context, reads_text
        self.in_features, self.out_features = _get_in_out_features(base_layer)
        for name in (*self.adapter_layer_names, "cond_mixlora_dropout"):
            setattr(self, name, nn.ModuleDict())
        self.mixlora_config: dict[str, MixLoraConfig] = {}
        self.frozen_peft_weight_names: dict[
            str, tuple[str, ...]
        ] = {}  # the class attribute is shared by all layers of PEFT

    def update_layer(
        self,
        adapter_name: str,
        config: MixLoraConfig,
        shared_routers: dict[tuple[str, int], FactorBank] | None = None,
        inference_mode: bool = False,
    ) -> None:
        """Adds an adapter.

        Args:
            adapter_name: its name.
            config: of this layer: `routing="plain"` where the layer lies below `mix_start_layer`.
            shared_routers: routers that further layers share, by kind and width; filled here.
            inference_mode: leaves the adapter frozen.
        """
        width = self.in_features
        routed_rows = {"plain": 0, "b_only": 0}.get(config.routing, config.num_experts)
        bound = width**-0.5
        self.mixlora_config[adapter_name] = config
        self.cond_mixlora_A[adapter_name] = FactorBank(routed_rows or config.r, width, bound)
        rows_b = config.r if config.routing == "plain" else config.num_experts
        self.cond_mixlora_B[adapter_name] = FactorBank(
            rows_b, self.out_features, 0.0 if config.init_weights else self.out_features**-0.5
        )
        for name, columns, router_bound in self._router_shapes(config):
            if shared_routers is None:
                router = FactorBank(config.num_experts, columns, router_bound)
            else:
                if (name, width) not in shared_routers:
                    shared_routers[name, width] = FactorBank(config.num_experts, columns, router_bound)
                router = shared_routers[name, width]
            getattr(self, name)[adapter_name] = router
        dropout = nn.Dropout(config.lora_dropout) if config.lora_dropout else nn.Identity()
        self.cond_mixlora_dropout[adapter_name] = dropout
        if config.router_gradient == "none":
            self.frozen_peft_weight_names[adapter_name] = self.router_names
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def _router_shapes(self, config: MixLoraConfig) -> list[tuple[str, int, float]]:
        """Name, columns and initial bound of each router that the routing needs."""
        width, bound = self.in_features, self.in_features**-0.5
        shapes: list[tuple[str, int, float]] = []
        if config.routing in ("random", "plain"):
            return shapes
        if config.routing != "b_only":
            shapes.append(("cond_mixlora_router_A", width, bound))
        if config.routing != "shared":
            shapes.append(("cond_mixlora_router_B", width, bound))
        if config.routing == "input_lora_a_param":
            shapes.append(("cond_mixlora_router_AB", config.r * width, (config.r * width) ** -0.5))
        if config.routing == "input_lora_a_choice":
            shapes.append(("cond_mixlora_choice_embedding", width, 3**0.5))  # the variance of nn.Embedding's default
            shapes.append(("cond_mixlora_router_choice", width, bound))
        return shapes

    # ---- what cannot be done --------------------------------------------------------------------------------------

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        raise ValueError(NO_MERGE)

    def unmerge(self) -> None:
        raise ValueError(NO_MERGE)

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        return False


class MixLoraLinear(nn.Module, MixLoraLayer):
    """A linear layer and its adapters.

    Inputs: `(batch, ..., in)`; every row of the first axis is one instance and is routed by itself.
    """

    def __init__(self, base_layer: nn.Module, key: str, context: RoutingContext, reads_text: bool = True):
        nn.Module.__init__(self)
        MixLoraLayer.__init__(self, base_layer, key, context, reads_text)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        result = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return result
        for adapter in self.active_adapters:
            if adapter in self.cond_mixlora_A:
                result = self._add_update(result, x, adapter)
        return result

    def _add_update(self, result: torch.Tensor, x: torch.Tensor, adapter: str) -> torch.Tensor:
        config = self.mixlora_config[adapter]
        factors_a, factors_b = self.cond_mixlora_A[adapter].weight, self.cond_mixlora_B[adapter].weight
        dropped = self.cond_mixlora_dropout[adapter](self._cast_input_dtype(x, factors_a.dtype))
        if config.routing == "plain":
            hidden = nn.functional.linear(dropped, factors_a) * config.scaling
            return result + (hidden @ factors_b).to(result.dtype)

        indices_a, indices_b, weights = self._selection(x, adapter)
        dropped = dropped.reshape(x.shape[0], -1, self.in_features)
        if indices_a is None:
            hidden = nn.functional.linear(dropped, factors_a)  # (batch, positions, r)
        else:
            chosen = nn.functional.embedding(indices_a, factors_a)  # (batch, r, in)
            hidden = torch.bmm(dropped, chosen.transpose(1, 2))
        if weights is not None:
            hidden = hidden * weights.to(hidden.dtype).unsqueeze(1)
        chosen = nn.functional.embedding(indices_b, factors_b)  # (batch, r, out)
        flat = result.reshape(x.shape[0], -1, self.out_features)
        if flat.dtype == hidden.dtype:
            update = torch.baddbmm(flat, hidden, chosen.to(hidden.dtype), alpha=config.scaling)
        else:
            update = flat + (torch.bmm(hidden, chosen) * config.scaling).to(flat.dtype)
        return update.view_as(result)

    # ---- routing --------------------------------------------------------------------------------------------------

    def _selection(self, x: torch.Tensor, adapter: str) -> tuple:
        """Indices of A, indices of B, weights, `(batch, r)` each: those of the prompt while it is decoded, else new."""
        config, state = self.mixlora_config[adapter], self.context.state
        if state.reuse and config.decode_routing == "prefill":
            kept = state.selections.get((self.key, adapter))
            if kept is not None:
                if len(kept[1]) != len(x):
                    raise ValueError(
                        f"{self.key}: the prompt was routed for a batch of {len(kept[1])}, and {len(x)} rows are "
                        'decoded now. Decode all rows of the prompt, run the prompt again, or set decode_routing="per_'
                        'token" in MixLoraConfig.'
                    )
                return kept
        routing = self.routing_of(x, adapter)
        indices_a, indices_b, weights = routing[:3]
        # Straight-through weights are one: only their gradients matter, and decoding has none.
        kept_weights = weights.detach() if weights is not None and config.router_gradient == "scored" else None
        state.selections[self.key, adapter] = (indices_a, indices_b, kept_weights)
        return indices_a, indices_b, weights

    def routing_of(self, x: torch.Tensor, adapter: str) -> Routing:
        """Routes a batch `(batch, ..., in)` anew, in float32 whatever the precision of the model."""
        config = self.mixlora_config[adapter]
        with torch.autocast(x.device.type, enabled=False), torch.set_grad_enabled(self._learns(config)):
            tokens = x.reshape(x.shape[0], -1, self.in_features)
            pooled = self._pooled(tokens, config)
            banks = {name: getattr(self, name) for name in ("cond_mixlora_A", *self.router_names)}
            weights = {
                name.removeprefix("cond_mixlora_"): bank[adapter].weight.to(x.device, torch.float32)
                for name, bank in banks.items()
                if adapter in bank
            }
            return route(pooled, weights, config, self.training)

    @staticmethod
    def _learns(config: MixLoraConfig) -> bool:
        return torch.is_grad_enabled() and config.router_gradient != "none"

    def _pooled(self, tokens: torch.Tensor, config: MixLoraConfig) -> torch.Tensor:
        weights = self.context.state.pool_weights.get(config.router_pool) if self.reads_text else None
        if weights is not None and weights.shape == tokens.shape[:2]:
            return pool(tokens, weights.to(tokens.device))
        if config.router_pool == "first":
            return tokens[:, 0].float()
        return pool(tokens, None)


def layer_config(config: MixLoraConfig, layer_index: int | None) -> MixLoraConfig:
    """The configuration of one layer: plain LoRA below `mix_start_layer`."""
    if layer_index is None or layer_index >= config.mix_start_layer:
        return config
    config = copy.copy(config)
    config.routing = "plain"
    return config
