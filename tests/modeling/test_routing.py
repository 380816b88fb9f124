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
"""Routing weights and balance losses against numbers worked out by hand."""

import math

import pytest
import torch

from fusionzoo.modeling.routing import importance_loss, routing_weights, squared_variation


LOGITS = torch.tensor([math.log(1), math.log(2), math.log(5)])


@pytest.mark.parametrize(
    ("top_k", "expected"),
    [
        (None, [1 / 8, 2 / 8, 5 / 8]),
        (3, [1 / 8, 2 / 8, 5 / 8]),
        (7, [1 / 8, 2 / 8, 5 / 8]),
        (2, [0, 2 / 7, 5 / 7]),
        (1, [0.0, 0.0, 1.0]),
    ],
)
def test_routing_weights(top_k, expected):
    torch.testing.assert_close(routing_weights(LOGITS, top_k), torch.tensor(expected), atol=1e-7, rtol=0)


def test_top_k_is_chosen_per_row():
    logits = torch.stack([LOGITS, LOGITS.flip(0)]).unsqueeze(1)  # (2, 1, 3)
    expected = torch.tensor([[[0, 2 / 7, 5 / 7]], [[5 / 7, 2 / 7, 0]]])
    torch.testing.assert_close(routing_weights(logits, 2), expected)


def test_ties_keep_exactly_k():
    weights = routing_weights(torch.zeros(4), 2)
    assert sorted(weights.tolist()) == [0, 0, 0.5, 0.5]


def test_gradients_reach_the_kept_experts_only():
    logits = LOGITS.clone().requires_grad_()
    routing_weights(logits, 2)[2].backward()  # r (1 - r) and - r_2 r_1
    torch.testing.assert_close(logits.grad, torch.tensor([0, -10 / 49, 10 / 49]))
    logits = LOGITS.clone().requires_grad_()
    routing_weights(logits)[0].backward()
    torch.testing.assert_close(logits.grad, torch.tensor([7 / 64, -2 / 64, -5 / 64]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_drops_experts_completely(dtype):
    weights = routing_weights(LOGITS.to(dtype), 2)
    assert weights.dtype == dtype and weights[0] == 0 and abs(weights.sum().item() - 1) < 0.01


def test_squared_variation():
    load = torch.tensor([[1.0, 2, 3, 6], [5, 5, 5, 5]])  # mean 3, unbiased variance 14 / 3
    torch.testing.assert_close(squared_variation(load), torch.tensor([14 / 27, 0]))


SCORES = torch.tensor([[[0.9, 0.1], [0.3, 0.7]], [[0.6, 0.4], [0.7, 0.3]]])  # loads (1.5, 0.5) and (1, 1)


@pytest.mark.parametrize(("threshold", "expected"), [(0.0, 0.25), (0.1, 0.25), (0.49, 0.25), (0.51, 0.0)])
def test_importance_loss(threshold, expected):
    assert importance_loss(SCORES, threshold).item() == pytest.approx(expected, abs=1e-6)


def test_importance_gradient():
    """I = (a - b)^2 / 2 / ((a + b) / 2)^2 of the loads a, b: dI/da = 8 b (a - b) / (a + b)^3."""
    scores = SCORES.clone().requires_grad_()
    importance_loss(scores, 0.1).backward()
    a, b = 1.5, 0.5
    first = 0.5 * 8 * b * (a - b) / (a + b) ** 3  # half: the mean over two blocks
    second = -0.5 * 8 * a * (a - b) / (a + b) ** 3
    torch.testing.assert_close(scores.grad[:, 0], torch.tensor([[first, second]] * 2))
    assert not scores.grad[:, 1].any()  # a balanced block costs nothing


def test_below_the_threshold_there_is_no_gradient():
    scores = SCORES.clone().requires_grad_()
    importance_loss(scores, 0.51).backward()
    assert not scores.grad.any()


def test_a_single_expert_is_balanced():
    scores = torch.ones(3, 2, 1, requires_grad=True)
    loss = importance_loss(scores)
    loss.backward()
    assert loss.item() == 0 and not scores.grad.any()
    assert routing_weights(torch.randn(3, 1)).tolist() == [[1], [1], [1]]


def test_importance_of_half_precision_scores_is_computed_in_float32():
    scores = torch.tensor([0.5, 0.5], dtype=torch.bfloat16).expand(1000, 1, 2)
    assert importance_loss(scores).item() == 0 and importance_loss(scores).dtype == torch.float32
