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
"""Routing over a bank of experts: weights and balance losses, as pure functions on tensors."""

import torch


def routing_weights(logits: torch.Tensor, top_k: int | None = None) -> torch.Tensor:
    """Mixture weights of the experts.

    Args:
        logits: `(..., num_experts)`, already divided by the temperature, with noise added if there is any.
        top_k: keep the k largest, renormalised to sum to one; `None` mixes all experts (dense routing).

    Returns:
        `(..., num_experts)`, non-negative, summing to one. Gradients reach the logits of the experts that are kept.
    """
    if top_k is not None and top_k < logits.shape[-1]:
        kept = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, logits.topk(top_k, dim=-1).indices, True)
        logits = logits.masked_fill(~kept, torch.finfo(logits.dtype).min)
    return logits.softmax(dim=-1)


def squared_variation(load: torch.Tensor) -> torch.Tensor:
    """Squared coefficient of variation `(std / mean)^2` over the last axis, with the unbiased standard deviation.

    Args:
        load: `(..., num_experts)`, e.g. routing weights summed over a batch.

    Returns:
        `(...)`; zero for a single expert, whose load cannot be unbalanced.
    """
    if load.shape[-1] == 1:
        return load.sum(dim=-1) * 0.0
    return (load.std(dim=-1) / load.mean(dim=-1)).square()


def importance_loss(scores: torch.Tensor, threshold: float = 0.0) -> torch.Tensor:
    """Importance loss of routed blocks: unbalanced use of the experts over the batch (MoPE, section on routing).

    `S_j = sum_b r_bj`; `I = (std(S) / mean(S))^2`, and `I <- 0` where `I <= threshold`; the mean over the blocks.
    The sum runs over the micro-batch: with gradient accumulation or several processes each has its own term.

    Args:
        scores: `(batch, blocks, num_experts)` routing weights.
        threshold: imbalance up to this value costs nothing and gets no gradient.

    Returns:
        A scalar.
    """
    imbalance = squared_variation(scores.float().sum(dim=0))  # (blocks,)
    return torch.where(imbalance > threshold, imbalance, torch.zeros_like(imbalance)).mean()
