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
"""What the routers of a model must know beyond their own input: which positions to pool, and what was selected before.

A linear layer sees hidden states only. `RoutingContext` hooks the adapted model's forward, reads the mask, the labels
and the cache there, and leaves a `RoutingState` for all its layers. The hook sits on the model and not on the tuner,
because transformers' own `add_adapter` throws the tuner away.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache


# A selection travels with the KV cache of the prompt that it was made for, under this name.
_ON_CACHE = "cond_mixlora_selections"
# Per layer and adapter: indices of A, indices of B, weights.
Selection = tuple[torch.Tensor | None, torch.Tensor, torch.Tensor | None]


@dataclass
class RoutingState:
    """One forward pass.

    Args:
        pool_weights: `(batch, positions)` by name of the pool; a missing name takes the mean of all positions.
        selections: what was selected, by `(layer, adapter)`. Shared by the passes that decode one prompt.
        reuse: whether this pass decodes, and must keep what its prompt selected.
    """

    pool_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    selections: dict[tuple[str, str], Selection] = field(default_factory=dict)
    reuse: bool = False


class RoutingContext:
    """Shared by all adapted layers of a model. `attach` finds or makes it."""

    def __init__(self, model: nn.Module):
        self.parameters = list(inspect.signature(model.forward).parameters)
        self.generates = callable(getattr(model, "can_generate", None)) and model.can_generate()
        self.state = RoutingState()
        self.scope: dict[tuple[str, str], Selection] | None = None
        self.handles: list[Any] = []
        self.checkpointed: list[nn.Module] = []

    # ---- on and off a model ---------------------------------------------------------------------------------------

    @classmethod
    def attach(cls, model: nn.Module) -> "RoutingContext":
        """The context of this model; adapters that are added later share it."""
        for hook in model._forward_pre_hooks.values():
            if isinstance(owner := getattr(hook, "__self__", None), cls):
                return owner
        context = cls(model)
        context.handles = [
            model.register_forward_pre_hook(context.before_forward, with_kwargs=True),
            model.register_forward_hook(context.after_forward),
        ]
        return context

    def detach(self) -> None:
        """Takes the hooks off again."""
        for handle in self.handles:
            handle.remove()
        for module in self.checkpointed:
            if isinstance(function := module._gradient_checkpointing_func, _CheckpointInState):
                module._gradient_checkpointing_func = function.checkpoint
        self.handles, self.checkpointed, self.state = [], [], RoutingState()

    # ---- one forward pass -----------------------------------------------------------------------------------------

    def before_forward(self, model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Reads the arguments of the model's forward, wherever they were given."""
        given = dict(zip(self.parameters, args)) | kwargs
        cache = given.get("past_key_values")
        decodes = cache is not None and bool(cache.get_seq_length() > 0)
        selections = getattr(cache, _ON_CACHE, None) if decodes else self.scope
        if selections is None:
            selections = {}
        if cache is not None and getattr(cache, _ON_CACHE, None) is not selections:
            setattr(cache, _ON_CACHE, selections)
        self.state = RoutingState({} if decodes else self.pool_weights(given), selections, reuse=len(selections) > 0)
        if model.training:
            self._watch_checkpoints(model)

    def after_forward(self, model: nn.Module, args: tuple, output: Any) -> None:
        """A cache that the model made itself belongs to this prompt, too."""
        cache = getattr(output, "past_key_values", None)
        if cache is None and isinstance(output, tuple):
            cache = next((item for item in output if isinstance(item, Cache)), None)
        if cache is not None:
            setattr(cache, _ON_CACHE, self.state.selections)

    def pool_weights(self, given: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Weights of the positions for every pool, `(batch, positions)` each, or nothing where nothing is masked."""
        attended = attended_positions(given.get("attention_mask"))
        labels = given.get("labels") if self.generates else None
        if not (isinstance(labels, torch.Tensor) and labels.dim() == 2 and not labels.is_floating_point()):
            labels = None
        if attended is None and labels is None:
            return {}
        if attended is None:
            attended = torch.ones_like(labels, dtype=torch.bool)
        prompt = attended
        if labels is not None and labels.shape == attended.shape:
            prompt = attended & (labels.to(attended.device) == -100)
            prompt = torch.where(prompt.any(dim=1, keepdim=True), prompt, attended)
        first = attended & (attended.cumsum(dim=1) == 1)
        masks = {"prompt": prompt, "mask": attended, "first": first}
        return {name: mask / mask.sum(dim=1, keepdim=True).clamp(min=1) for name, mask in masks.items()}

    @contextmanager
    def one_call(self) -> Iterator[None]:
        """Within it all forward passes serve the same instances: what the first selects, the others keep, also without
        a cache. PEFT opens it around `forward` and around `generate`."""
        outer, self.scope = self.scope, {}
        try:
            yield
        finally:
            self.scope = outer

    # ---- gradient checkpointing -----------------------------------------------------------------------------------

    def _watch_checkpoints(self, model: nn.Module) -> None:
        """Checkpointed blocks are computed again in the backward pass, when another forward may have changed the
        state; they shall see the one of their own forward."""
        if not self.checkpointed:
            self.checkpointed = [module for module in model.modules() if hasattr(module, "gradient_checkpointing")]
        for module in self.checkpointed:
            if module.gradient_checkpointing and not isinstance(
                module._gradient_checkpointing_func, _CheckpointInState
            ):
                module._gradient_checkpointing_func = _CheckpointInState(self, module._gradient_checkpointing_func)

    def run_in(self, state: RoutingState, function: Callable, *args: Any, **kwargs: Any) -> Any:
        outer, self.state = self.state, state
        try:
            return function(*args, **kwargs)
        finally:
            self.state = outer


@dataclass
class _CheckpointInState:
    """A checkpointing function whose recomputation sees the routing state of the forward pass."""

    context: RoutingContext
    checkpoint: Callable

    def __call__(self, function: Callable, *args: Any, **kwargs: Any) -> Any:
        return self.checkpoint(partial(self.context.run_in, self.context.state, function), *args, **kwargs)


def attended_positions(mask: Any) -> torch.Tensor | None:
    """`(batch, positions)` booleans from whatever a model accepts as `attention_mask`; `None` if all are attended.

    Padding masks are `(batch, positions)`. With a static cache `generate` hands over `(batch, 1, queries, keys)`,
    boolean or added to the scores, alone or by type of layer: what the last query attends to among the queries' own
    positions.
    """
    if isinstance(mask, dict):
        mask = mask.get("full_attention", next(iter(mask.values()), None))
    if not isinstance(mask, torch.Tensor):
        return None
    if mask.dim() == 2:
        return mask != 0
    if mask.dim() == 4:
        row = mask[:, 0, -1, : mask.shape[2]]
        return row if row.dtype == torch.bool else row == 0
    return None
