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
"""Which factors an instance gets: the routing of MixLoRA (https://arxiv.org/abs/2402.15896), as pure functions.

With `p` the pooled input of a layer, routers `W_A, W_B (E, i)` and `W_AB (E, r, i)`, and factors `A (E, i)`:

    I   = top-r of p W_A^T                                          independent selection (IFS) of A
    J   = top-r of p W_B^T                                          independent selection of B
    J   = top-r of softmax(p W_B^T) + w softmax(sum_k q_k)          conditional selection (CFS) of B
    q_k = softmax_e(sum_d A[I_k, d] W_AB[e, k, d])                  rank position k has its own slice of W_AB

Rank positions pair up: the k-th best a with the k-th best b. Everything here runs in float32.
"""

from typing import NamedTuple

import torch
from torch import nn

from ..configuration.configuration_mixlora import CONDITIONAL_ROUTINGS, MixLoraConfig


class Routing(NamedTuple):
    """The selection of a batch, and how it came about.

    `indices_a` is `None` where all rows of A serve every instance, `weights` where every term counts 1.
    """

    indices_a: torch.Tensor | None  # (batch, r)
    indices_b: torch.Tensor  # (batch, r)
    weights: torch.Tensor | None = None  # (batch, r), factors of the r terms
    pooled: torch.Tensor | None = None  # (batch, in)
    logits_a: torch.Tensor | None = None  # (batch, experts)
    logits_b: torch.Tensor | None = None  # (batch, experts), of the independent selection
    conditional_logits_b: torch.Tensor | None = None  # (batch, experts)
    scores_b: torch.Tensor | None = None  # (batch, experts), what J is the top of where it is conditional


def pool(tokens: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """The representation that is routed, in float32.

    Args:
        tokens: `(batch, positions, in)`.
        weights: `(batch, positions)` summing to one over the positions; `None` takes the mean of all.
    """
    if weights is None:
        return tokens.mean(dim=1, dtype=torch.float32)
    return torch.bmm(weights.unsqueeze(1), tokens.float()).squeeze(1)


def conditional_logits(
    weights: dict[str, torch.Tensor], indices_a: torch.Tensor, config: MixLoraConfig
) -> torch.Tensor:
    """The second argument of the combination, `(batch, experts)`. The chosen factors are detached: only the routers
    learn from a selection."""
    if config.routing == "input_lora_a_choice":
        embedded = nn.functional.embedding(indices_a, weights["choice_embedding"]).mean(dim=1)
        return embedded @ weights["router_choice"].T
    factors = weights["A"].detach()
    slices = weights["router_AB"].unflatten(1, (config.r, -1))  # (experts, r, in)
    if config.cfs_mode == "separable":
        logits = factors.sum(-1)[indices_a].unsqueeze(-1) * slices.sum(-1).T  # (batch, r, experts)
    else:
        chosen = nn.functional.embedding(indices_a, factors)  # (batch, r, in)
        logits = torch.einsum("brd,erd->bre", chosen, slices)
    return logits.softmax(dim=-1).sum(dim=1)


def term_weights(
    config: MixLoraConfig,
    indices: torch.Tensor,
    probabilities: torch.Tensor,
) -> torch.Tensor:
    """Weights of the selected terms from the probabilities of all experts, `(batch, r)`.

    `straight_through`: one, with the gradient of the probability. `scored`: the probability over the mean of the
    selected ones.
    """
    selected = probabilities.gather(1, indices)
    if config.router_gradient == "scored":
        return selected / selected.mean(dim=1, keepdim=True)
    return 1.0 + (selected - selected.detach())


def route(pooled: torch.Tensor, weights: dict[str, torch.Tensor], config: MixLoraConfig, training: bool) -> Routing:
    """Selects the factors of each instance.

    Args:
        pooled: `(batch, in)`, float32, from `pool`.
        weights: float32, as far as the routing has them: the factors `A (experts, in)`, `router_A` and `router_B`
            `(experts, in)`, `router_AB (experts, r * in)`, `choice_embedding` and `router_choice` `(experts, in)`.
        config: `routing` other than `plain`.
        training: draws `config.router_noise`.
    """
    learns = config.router_gradient != "none"
    logits_a = logits_b = conditional = scores = probabilities_b = None
    if config.routing == "random":
        draws = torch.rand((2, len(pooled), config.num_experts), device=pooled.device).topk(config.r).indices
        return Routing(draws[0], draws[1])

    def logits(router: torch.Tensor) -> torch.Tensor:
        clean = pooled @ router.T
        if training and config.router_noise:
            return clean + config.router_noise * torch.randn_like(clean)
        return clean

    indices_a = None
    if config.routing != "b_only":
        logits_a = logits(weights["router_A"])
        indices_a = logits_a.topk(config.r).indices
    if config.routing == "shared":
        indices_b = indices_a
    else:
        logits_b = logits(weights["router_B"])
        if config.routing in CONDITIONAL_ROUTINGS:
            conditional = conditional_logits(weights, indices_a, config)
            scores = logits_b.softmax(-1) + config.cfs_weight * conditional.softmax(-1)
            indices_b = scores.topk(config.r).indices
            probabilities_b = scores / (1 + config.cfs_weight)
        else:
            indices_b = logits_b.topk(config.r).indices
            probabilities_b = logits_b.softmax(-1) if learns else None

    gains = None
    if learns and logits_a is not None:
        gains = term_weights(config, indices_a, logits_a.softmax(-1))
    if learns and probabilities_b is not None:
        gains_b = term_weights(config, indices_b, probabilities_b)
        gains = gains_b if gains is None else gains * gains_b
    return Routing(indices_a, indices_b, gains, pooled, logits_a, logits_b, conditional, scores)
