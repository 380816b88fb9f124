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
"""What every method owes its user at inference: a sample's result depends on the sample alone."""

from typing import Any

import pytest
import torch
from rows import Row


def logits(model: Any, inputs: dict[str, torch.Tensor], **changes: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**{**inputs, **changes}).logits


def take(inputs: dict[str, torch.Tensor], order: Any) -> dict[str, torch.Tensor]:
    return {name: tensor[order] for name, tensor in inputs.items()}


def close(ours: torch.Tensor, expected: torch.Tensor, atol: float = 2e-6) -> None:
    torch.testing.assert_close(ours, expected, atol=atol, rtol=0)


def test_evaluation_is_deterministic(row: Row):
    model, inputs = row.model(), row.inputs()
    first = logits(model, inputs)
    assert first.shape == (4, 3) and first.isfinite().all()
    assert first.std(dim=0).max() > 1e-3  # samples differ
    assert torch.equal(first, logits(model, inputs))


def test_a_sample_does_not_depend_on_its_batch(row: Row):
    model, inputs = row.model(), row.inputs(6, missing=[0, 1, 0, 2, 0, 0])
    whole = logits(model, inputs)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    close(logits(model, take(inputs, order)), whole[order])
    for size in (1, 3):
        close(logits(model, take(inputs, slice(size))), whole[:size])


@pytest.mark.rows("mope-swin-bert")
def test_the_official_window_order_mixes_samples(row: Row):
    """What `window_prompt_order="official"` reproduces: samples see the prompts of their neighbours."""
    model, inputs = row.model(window_prompt_order="official"), row.inputs()
    assert (logits(model, inputs)[:2] - logits(model, take(inputs, slice(2)))).abs().max() > 1e-4
    correct = row.model(window_prompt_order="sample")
    close(logits(model, take(inputs, slice(1))), logits(correct, take(inputs, slice(1))))


def test_padding_changes_nothing(row: Row):
    model, inputs = row.model(), row.inputs()
    padding = row.make_processor().tokenizer.pad_token_id
    longer = {
        name: torch.nn.functional.pad(inputs[name], (0, 5), value=padding if name == "input_ids" else 0)
        for name in ("input_ids", "attention_mask", "token_type_ids")
        if name in inputs
    }
    close(logits(model, inputs, **longer), logits(model, inputs))


# ---- missing modalities -----------------------------------------------------------------------------------------------


def test_nothing_absent_equals_the_plain_model(row: Row):
    model, inputs = row.model(), row.inputs()
    assert not inputs["missing_type"].any()
    assert torch.equal(logits(model, inputs), logits(model, inputs, missing_type=None))


def test_complete_rows_do_not_notice_absent_ones(row: Row):
    model, inputs = row.model(), row.inputs(6)
    plain = logits(model, inputs, missing_type=None)
    missing = torch.tensor([0, 1, 0, 2, 0, 0])
    mixed = logits(model, inputs, missing_type=missing)
    close(mixed[missing == 0], plain[missing == 0], atol=2e-6 if row.reshapes else 0)
    for kind, modality in ((1, "text"), (2, "image")):
        difference = (mixed - plain)[missing == kind].abs().max()
        assert (difference > 1e-5) == (modality in row.modalities)


def test_the_filler_does_not_matter(row: Row):
    model, missing = row.model(), [0, 1, 2, 1]
    inputs = row.inputs(missing=missing)
    assert inputs["missing_type"].tolist() == missing
    expected = logits(model, inputs)
    no_image, no_text = torch.tensor(missing) == 2, torch.tensor(missing) == 1
    other = {name: tensor.clone() for name, tensor in inputs.items()}
    other["pixel_values"][no_image] = 1e3 * torch.randn(3, 32, 32)
    other["input_ids"][no_text] = torch.randint(5, 100, inputs["input_ids"].shape[1:])
    assert torch.equal(logits(model, other), expected)
    for mask in (torch.zeros_like, torch.ones_like):
        other["attention_mask"][no_text] = mask(inputs["attention_mask"][0])
        assert torch.equal(logits(model, other), expected)
    other["pixel_values"][no_image] = torch.nan
    assert torch.equal(logits(model, other), expected)


def test_a_whole_batch_without_images(row: Row):
    model, inputs = row.model(), row.inputs()
    absent = logits(model, inputs, missing_type=torch.full((4,), 2))
    without = logits(model, {**inputs, "pixel_values": None, "missing_type": None})
    assert torch.equal(without, absent)
    assert torch.equal(logits(model, inputs, pixel_values=None), absent)  # missing_type says complete


def test_a_whole_batch_without_text(row: Row):
    model, inputs = row.model(), row.inputs()
    absent = logits(model, inputs, missing_type=torch.full((4,), 1))
    close(logits(model, {"pixel_values": inputs["pixel_values"]}), absent)
    with_mask = {name: tensor for name, tensor in inputs.items() if name != "input_ids"}
    close(logits(model, with_mask), absent)  # a mask that has lost its text


def test_nothing_at_all_is_refused(row: Row):
    with pytest.raises(ValueError, match="pixel_values, input_ids, or both"):
        row.model()()


# ---- numerics and compilers -------------------------------------------------------------------------------------------


def test_bfloat16(row: Row):
    model, inputs = row.model(), row.inputs(missing=[0, 1, 2, 0])
    expected = logits(model, inputs)
    model.to(torch.bfloat16)
    half = logits(model, inputs, pixel_values=inputs["pixel_values"].to(torch.bfloat16))
    assert half.dtype == torch.bfloat16
    close(half.float(), expected, atol=0.02 * expected.abs().max().item() + 0.02)
    absent = logits(model, {**inputs, "pixel_values": None, "missing_type": None})
    assert absent.dtype == torch.bfloat16 and absent.isfinite().all()


def test_autocast(row: Row):
    model, inputs = row.quiet_model().train(), row.inputs(missing=[0, 1, 2, 0])
    expected = model(**inputs, labels=row.labels()).loss
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**inputs, labels=row.labels()).loss
    loss.backward()
    close(loss.float(), expected.detach(), atol=0.03)
    assert all(each.grad.isfinite().all() for each in model.parameters() if each.requires_grad)


def test_eager_equals_sdpa(row: Row):
    model, inputs = row.model(), row.inputs(missing=[0, 1, 2, 0])
    found = {}
    for implementation in ("eager", "sdpa"):
        other = type(model)._from_config(row.config(), attn_implementation=implementation).eval()
        other.load_state_dict(model.state_dict())
        assert {tower.config._attn_implementation for tower in other.towers().values()} == {implementation}
        found[implementation] = logits(other, inputs)
    close(found["eager"], found["sdpa"])


@pytest.mark.quick_rows("mope-vit-bert", "mope-swin-bert", "mope-text-main", "text_only")
def test_compiles_into_one_graph(row: Row):
    model, inputs = row.quiet_model(), row.inputs(missing=[0, 1, 2, 0])
    expected = logits(model, inputs)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    close(logits(compiled, inputs), expected)


@pytest.mark.rows("mope-vit-bert", "mope-text-main")
@pytest.mark.quick_rows("mope-vit-bert")
def test_compiled_training_equals(row: Row):
    inputs = {**row.inputs(missing=[0, 1, 2, 0]), "labels": row.labels()}
    gradients = []
    for compiled in (False, True):
        model = row.quiet_model().train()
        torch._dynamo.reset()
        run = torch.compile(model, fullgraph=True, backend="aot_eager") if compiled else model
        run(**inputs).loss.backward()
        gradients.append({name: each.grad for name, each in model.named_parameters() if each.requires_grad})
    for name, expected in gradients[0].items():
        close(gradients[1][name], expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.rows("mope-vit-bert", "mope-swin-bert")
def test_compiles_with_inductor(row: Row):
    model, inputs = row.quiet_model(), row.inputs(missing=[0, 1, 2, 0])
    torch._dynamo.reset()
    close(logits(torch.compile(model, fullgraph=True), inputs), logits(model, inputs), atol=1e-5)


@pytest.mark.quick_rows("mope-dinov2-roberta", "mope-swin-bert", "p_sequential", "late_concat")
def test_exports(row: Row):
    """With a batch size that is free, so that the exported program serves more than its example."""
    model, inputs = row.model(), row.inputs(missing=[0, 1, 2, 0])
    shapes = {name: {0: torch.export.Dim.DYNAMIC} for name in inputs}
    program = torch.export.export(model, (), inputs, dynamic_shapes=shapes, strict=False)
    close(program.module()(**inputs).logits, logits(model, inputs))
    more = take(inputs, torch.tensor([0, 1, 2, 3, 0, 2]))
    close(program.module()(**more).logits, logits(model, more))
