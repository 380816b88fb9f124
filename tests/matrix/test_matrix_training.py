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
"""What every method owes its user in training: the intended parameters learn, and nothing else changes."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from rows import MOPE_ROWS, Row


MIXED = [0, 1, 2, 0]


def step(model: Any, optimizer: torch.optim.Optimizer, batch: dict[str, torch.Tensor]) -> float:
    optimizer.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    return loss.item()


def trained(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_the_intended_parameters_are_trainable(row: Row):
    model = row.model()
    names = {name for name, _ in model.named_parameters()}
    assert set(trained(model)) == {name for name in names if row.is_trained(name)}
    assert set(trained(model.train())) == set(trained(model.eval()))


def test_every_trainable_parameter_gets_a_gradient(row: Row):
    """Distributed training stops at a parameter without one, whatever is absent from the batch."""
    model = row.model().train()
    for missing in (MIXED, [0, 0, 0, 0]):
        model.zero_grad()
        model(**row.inputs(missing=missing), labels=row.labels()).loss.backward()
        without = [name for name, parameter in trained(model).items() if parameter.grad is None]
        assert not without
        for name, parameter in trained(model).items():
            if missing == MIXED and not name.endswith(("k_proj.bias", "key.bias")):  # softmax does not see those
                assert parameter.grad.any(), f"the gradient of {name} is zero"
        frozen = [each for name, each in model.named_parameters() if not row.is_trained(name)]
        assert all(each.grad is None for each in frozen)


def test_training_changes_exactly_the_intended(row: Row):
    model = row.model().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batch = {**row.inputs(missing=MIXED), "labels": row.labels()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(3):
        step(model, optimizer, batch)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    names = {name for name, _ in model.named_parameters()}
    assert changed & names == {name for name in names if row.is_trained(name)}
    buffers = changed - names
    assert all(name.endswith(row.changing_buffers) for name in buffers) if buffers else not row.changing_buffers


def test_frozen_towers_do_not_drop_out(row: Row):
    """Vision towers stay in eval mode while they are frozen."""
    model = row.model().train()
    if model.config.freeze_backbone:
        for name, tower in model.towers().items():
            assert tower.training != (name in model.base_model.eval_when_frozen)
    assert model.training and not model.eval().training
    assert not any(module.training for module in model.modules())


def test_overfits_sixteen_samples(row: Row):
    model = row.quiet_model().train()
    batch = {**row.inputs(16), "labels": row.labels(16)}
    optimizer = torch.optim.AdamW(trained(model).values(), lr=4e-3)
    for _ in range(900):
        loss = step(model, optimizer, batch)
        if loss < 0.1:
            break
    assert loss < 0.1
    logits = model.eval()(**row.inputs(16)).logits
    decided = (logits > 0).float() if row.multi_label else logits.argmax(-1)
    assert torch.equal(decided, row.labels(16))


# ---- losses -----------------------------------------------------------------------------------------------------------


def _softplus(value: float) -> float:
    return max(value, 0) + math.log1p(math.exp(-abs(value)))


def _task_loss(problem_type: str, logits: np.ndarray, labels: np.ndarray) -> float:
    if problem_type == "single_label_classification":
        return float(np.mean([math.log(np.exp(row - row[label]).sum()) for row, label in zip(logits, labels)]))
    if problem_type == "multi_label_classification":
        pairs = zip(logits.ravel(), labels.ravel())
        return float(np.mean([_softplus(-value) if wanted else _softplus(value) for value, wanted in pairs]))
    return float(np.mean((logits - labels) ** 2))


def _importance(scores: np.ndarray | None, threshold: float) -> float:
    if scores is None:
        return 0.0
    load = scores.sum(axis=0)  # (blocks, experts)
    variation = load.var(axis=1, ddof=1) / load.mean(axis=1) ** 2
    return float(np.where(variation > threshold, variation, 0).mean())


LABELS = {
    "single_label_classification": torch.tensor([2, 0, 1, 1]),
    "multi_label_classification": torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]]),
    "regression": torch.tensor([[0.5, -1, 2], [0, 1, 0], [3, 1, 1], [-2, 0, 0.25]]),
}


@pytest.mark.parametrize("problem_type", LABELS)
def test_loss_equals_a_handwritten_one(row: Row, problem_type: str):
    model = row.model(problem_type=problem_type, **({} if not _routes(row) else {"importance_loss_weight": 0.5}))
    labels = LABELS[problem_type]
    outputs = model(**row.inputs(), labels=labels)
    task = _task_loss(problem_type, outputs.logits.detach().double().numpy(), labels.numpy())
    expected = task
    assert outputs.task_loss.item() == pytest.approx(task, abs=1e-5)
    if _routes(row):
        scores = outputs.router_scores.detach().double().numpy()
        importance = _importance(scores, model.config.importance_threshold)
        assert importance > 0
        assert outputs.importance_loss.item() == pytest.approx(importance, abs=1e-5)
        expected += 0.5 * importance
    else:
        assert outputs.router_scores is None and outputs.importance_loss is None
    assert outputs.loss.item() == pytest.approx(expected, abs=1e-5)
    assert outputs.loss.requires_grad and not outputs.task_loss.requires_grad


def _routes(row: Row) -> bool:
    return row.name in MOPE_ROWS and row.config().fuse_method in ("mope", "text_router")


def test_regression_to_one_number(row: Row):
    model = row.model(num_labels=1, problem_type="regression")
    labels = torch.tensor([0.5, -1.0, 2.0, 0.0])
    outputs = model(**row.inputs(), labels=labels)
    assert outputs.task_loss.item() == pytest.approx(((outputs.logits[:, 0] - labels) ** 2).mean().item(), abs=1e-6)


# ---- routing noise ----------------------------------------------------------------------------------------------------


@pytest.mark.rows(*MOPE_ROWS)
def test_routing_noise_only_in_training(row: Row):
    model, inputs = row.model(prompt_dropout=0.0, router_noise_std=2.0), row.inputs()
    in_training = row.model(prompt_dropout=0.0, router_noise_std=2.0).train()
    in_eval = row.model(router_noise_std=2.0, router_noise_in_eval=True)
    differs = {}
    for name, each in (("eval", model), ("train", in_training), ("eval with noise", in_eval)):
        found = [each(**inputs) for _ in range(2)]
        differs[name] = not torch.equal(found[0].logits, found[1].logits)
        if _routes(row):
            assert differs[name] == (not torch.equal(found[0].router_scores, found[1].router_scores))
    assert differs == {"eval": False, "train": _routes(row), "eval with noise": _routes(row)}


@pytest.mark.rows("mope-vit-bert", "mope-swin-bert", "mope-text-main", "mope-multi-label", "text_router")
def test_given_noise_is_added(row: Row):
    model, inputs = row.quiet_model(), row.inputs()
    plain = model(**inputs).router_scores
    noise = torch.randn(plain.shape)
    noisy = model(**inputs, router_noise=noise).router_scores
    if model.config.router_top_k is None:  # the first block's input does not depend on earlier noise
        expected = (plain[:, 0].log() + noise[:, 0]).softmax(-1)
        torch.testing.assert_close(noisy[:, 0], expected, atol=1e-5, rtol=0)
    assert torch.equal(model(**inputs, router_noise=torch.zeros_like(plain)).router_scores, plain)


# ---- activation checkpointing -----------------------------------------------------------------------------------------


def _gradients_and_bytes(model: Any, batch: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients, and how much the graph keeps for the backward pass."""
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    model.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(**batch).loss
    size = sum(kept.values())
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in trained(model).items()}, size


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_activation_checkpointing(row: Row, training: bool):
    model = row.quiet_model().train(training)
    batch = {**row.inputs(missing=MIXED), "labels": row.labels()}
    expected, plain_size = _gradients_and_bytes(model, batch)
    model.gradient_checkpointing_enable()
    calls = []
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False) and hasattr(module, "_gradient_checkpointing_func"):
            real = module._gradient_checkpointing_func
            module._gradient_checkpointing_func = lambda *args, real=real: calls.append(1) or real(*args)
    found, size = _gradients_and_bytes(model, batch)
    assert len(calls) == row.num_layers
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-5, msg=name)
    assert size < 0.8 * plain_size
