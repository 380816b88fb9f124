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
"""MMP: stock ViLT as reference, prompts, absent modalities, backbones with longer texts, and the configuration's checks."""

import pytest
import torch
from fixtures_tiny import tiny_mmp_config
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file
from torch import nn
from transformers import ViltModel

from fusionzoo import MmpConfig, MmpForSequenceClassification
from fusionzoo.modeling import convert_mmp, prompted_vilt


SIZES = [(32, 32), (32, 48), (16, 32), (48, 32), (32, 16)]
KINDS = ("input", "attention")


def inputs_for(missing: list[int] | None = None) -> dict[str, torch.Tensor]:
    """Pictures of five shapes in one batch, and texts of five lengths."""
    generator = torch.Generator().manual_seed(2)
    pixels, mask = torch.zeros(5, 3, 48, 48), torch.zeros(5, 48, 48, dtype=torch.long)
    ids, seen = torch.zeros(5, 8, dtype=torch.long), torch.zeros(5, 8, dtype=torch.long)
    for row, (height, width) in enumerate(SIZES):
        pixels[row, :, :height, :width] = torch.randn(3, height, width, generator=generator)
        mask[row, :height, :width] = 1
        ids[row, : row + 3] = torch.randint(5, 100, (row + 3,), generator=generator)
        ids[row, 0], seen[row, : row + 3] = 2, 1
    inputs = {"pixel_values": pixels, "pixel_mask": mask, "input_ids": ids, "attention_mask": seen}
    return inputs | ({} if missing is None else {"missing_type": torch.tensor(missing)})


def lively_model(**fields) -> MmpForSequenceClassification:
    torch.manual_seed(0)
    config = tiny_mmp_config(num_labels=3, **fields)
    config.backbone_config.initializer_range = 0.2
    model = MmpForSequenceClassification(config)
    with torch.no_grad():
        model.mmp.prompts.normal_(std=0.5)
        model.mmp.backbone_model.embeddings.position_embeddings.normal_(std=0.5)
    return model.eval()


def test_embeddings_and_layers_are_those_of_vilt():
    """Without prompts our loop gives what transformers' ViLT gives, for every shape of picture."""
    model, inputs = lively_model(), inputs_for()
    tower = model.mmp.backbone_model
    stock = ViltModel(type(tower.config)(**tower.config.to_diff_dict())).eval()
    stock.load_state_dict(tower.state_dict())
    with torch.no_grad():
        expected = stock(**inputs).pooler_output
        text = prompted_vilt.embed_text(tower, inputs["input_ids"], None)
        image, mask = prompted_vilt.embed_image(tower, inputs["pixel_values"], inputs["pixel_mask"])
        key_mask = torch.cat([inputs["attention_mask"], mask], dim=1)
        for implementation in ("eager", "sdpa"):
            tower.config._attn_implementation = implementation
            hidden = prompted_vilt.run_prompted_vilt(tower, torch.cat([text, image], dim=1), key_mask, {}, {})
            torch.testing.assert_close(tower.pooler(tower.layernorm(hidden)), expected, atol=5e-6, rtol=0)
    assert mask.sum(1).tolist() == [1 + height * width // 256 for height, width in SIZES]


def test_positions_of_a_full_picture_are_the_table():
    tower = lively_model().mmp.backbone_model
    table = tower.embeddings.position_embeddings[:, 1:]
    sides = torch.tensor([2, 1])
    found = prompted_vilt.patch_positions(tower, sides, sides, 2, 2)
    torch.testing.assert_close(found[0], table[0])
    torch.testing.assert_close(found[1, 0], table[0, 0])  # a single patch has the first position


def test_prefix_attention_equals_a_handwritten_one():
    model = lively_model(prompt_type="attention", prompt_layers=[1])
    layer = model.mmp.backbone_model.encoder.layer[1]
    hidden, prefix = torch.randn(2, 5, 24), (torch.randn(2, 3, 24), torch.randn(2, 3, 24))
    attention = layer.attention.attention
    normed = layer.layernorm_before(hidden)
    query, key, value = attention.query(normed), attention.key(normed), attention.value(normed)
    key, value = torch.cat([prefix[0], key], dim=1), torch.cat([prefix[1], value], dim=1)
    heads = []
    for head in range(4):
        part = slice(6 * head, 6 * head + 6)
        weights = (query[..., part] @ key[..., part].transpose(1, 2) / 6**0.5).softmax(-1)
        heads.append(weights @ value[..., part])
    expected = hidden + layer.attention.output.dense(torch.cat(heads, dim=-1))
    inner = nn.functional.gelu(layer.intermediate.dense(layer.layernorm_after(expected)))
    expected = expected + layer.output.dense(inner)
    for implementation in ("eager", "sdpa"):
        found = prompted_vilt.vilt_layer(layer, hidden, None, implementation, prefix)
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("prompt_type", KINDS)
def test_where_prompts_stand(prompt_type):
    model = lively_model(prompt_type=prompt_type, prompt_layers=[1])
    lengths = []
    for layer in model.mmp.backbone_model.encoder.layer:
        layer.attention.attention.query.register_forward_hook(
            lambda _, args, out: lengths.append(("query", args[0].shape[1]))
        )
    model(**inputs_for())
    grown = 6 if prompt_type == "input" else 0
    assert [length for _, length in lengths] == [18, 18 + grown]
    inputs, prefixes = model.mmp.prompts_of(torch.tensor([2, 0]))
    if prompt_type == "input":
        assert torch.equal(inputs[1], model.mmp.prompts[[2, 0], 0]) and not prefixes
    else:
        assert torch.equal(torch.cat(prefixes[1], dim=1), model.mmp.prompts[[2, 0], 0]) and not inputs


def test_prompts_start_with_a_mark_per_type():
    prompts = MmpForSequenceClassification(tiny_mmp_config()).mmp.prompts
    marks = [(kind.item(), token.item()) for kind, _, token, _ in prompts.nonzero()[::24]]
    assert sorted(set(marks)) == [(0, 0), (1, 2), (2, 1)] and prompts.sum() == 3 * 2 * 24
    prompts = MmpForSequenceClassification(tiny_mmp_config(prompt_type="attention")).mmp.prompts
    assert prompts.detach().nonzero()[:, [0, 2]].unique(dim=0).tolist() == [
        [0, 0], [0, 3], [1, 2], [1, 5], [2, 1], [2, 4],
    ]  # fmt: skip


@pytest.mark.parametrize("prompt_type", KINDS)
def test_batches_and_fillers_have_no_influence(prompt_type):
    model, inputs = lively_model(prompt_type=prompt_type), inputs_for([0, 1, 2, 2, 1])
    with torch.no_grad():
        expected = model(**inputs).logits
        alone = [model(**{name: each[i : i + 1] for name, each in inputs.items()}).logits for i in range(5)]
        torch.testing.assert_close(torch.cat(alone), expected, atol=2e-6, rtol=0)
        absent = {"image": inputs["missing_type"] == 2, "text": inputs["missing_type"] == 1}
        other = {name: each.clone() for name, each in inputs.items()}
        other["pixel_values"][absent["image"]] = torch.nan
        other["pixel_mask"][absent["image"]] = 1
        other["input_ids"][absent["text"]] = 9
        other["attention_mask"][absent["text"]] = 1
        torch.testing.assert_close(model(**other).logits, expected, atol=2e-6, rtol=0)
        no_text = model(pixel_values=inputs["pixel_values"], pixel_mask=inputs["pixel_mask"]).logits
        torch.testing.assert_close(no_text[absent["text"]], expected[absent["text"]], atol=2e-6, rtol=0)
        no_image = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        torch.testing.assert_close(no_image[absent["image"]], expected[absent["image"]], atol=2e-6, rtol=0)
        official = lively_model(prompt_type=prompt_type, absent_inputs="filler")
        small = {**inputs, "pixel_values": inputs["pixel_values"] * 2}
        assert (official(**inputs).logits - official(**small).logits).abs()[absent["image"]].max() > 1e-4


def test_what_trains_and_what_a_slim_file_holds(tmp_path):
    torch.manual_seed(0)
    backbone = tiny_mmp_config().backbone_config
    ViltModel(backbone).save_pretrained(tmp_path / "vilt")
    options = {"num_labels": 3, "prompt_length": 6, "cls_token_id": 2}
    model = MmpForSequenceClassification.from_backbones(tmp_path / "vilt", **options)
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    assert {name.split(".")[1] for name in trained if name.startswith("mmp.")} == {"prompts", "backbone_model"}
    assert {name for name in trained if ".backbone_model." in name} == {
        "mmp.backbone_model.pooler.dense.weight", "mmp.backbone_model.pooler.dense.bias",
    }  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    model.config.weights_scope = "trainable"
    model.save_pretrained(tmp_path / "slim")
    assert set(load_file(tmp_path / "slim" / "model.safetensors")) == trained
    loaded = MmpForSequenceClassification.from_pretrained(tmp_path / "slim")
    inputs = inputs_for([0, 1, 2, 0, 0])
    torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits, atol=1e-6, rtol=0)
    frozen = MmpForSequenceClassification(tiny_mmp_config(learn_prompts=False, train_pooler=False, prompt_layers=[0]))
    assert {name.split(".")[0] for name, each in frozen.named_parameters() if each.requires_grad} == {"classifier"}


def test_a_longer_table_of_text_positions(tmp_path):
    """The pretrained table is stretched, also when a slim checkpoint reads it again."""
    torch.manual_seed(0)
    backbone = tiny_mmp_config().backbone_config
    backbone.max_position_embeddings = 4
    stock = ViltModel(backbone)
    stock.save_pretrained(tmp_path / "vilt")
    options = {"num_labels": 2, "prompt_length": 6, "cls_token_id": 2, "max_text_length": 8}
    model = MmpForSequenceClassification.from_backbones(tmp_path / "vilt", **options, weights_scope="trainable")
    table = model.mmp.backbone_model.embeddings.text_embeddings.position_embeddings.weight
    old = stock.embeddings.text_embeddings.position_embeddings.weight
    assert table.shape == (8, 24)
    torch.testing.assert_close(table[1], 0.75 * old[0] + 0.25 * old[1])  # bilinear, corners not aligned
    model.save_pretrained(tmp_path / "slim")
    loaded = MmpForSequenceClassification.from_pretrained(tmp_path / "slim")
    assert torch.equal(loaded.mmp.backbone_model.embeddings.text_embeddings.position_embeddings.weight, table)


def test_two_different_towers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="one ViLT for both modalities"):
        MmpForSequenceClassification.from_backbones("a/vit", "b/bert")


def test_the_official_single_layer_option():
    """`multi_layer_prompt` off is officially always at the input, whatever the prompt type says."""
    model = lively_model(prompt_layers=[0])
    state = {"complete_prompt": torch.ones(1, 6, 24)}
    assert model.mmp.prompts.shape[1:] == state["complete_prompt"].shape
    with pytest.raises(ValueError, match="no state dict of the official MMP code: it lacks missing_text_prompt"):
        convert_mmp.convert_config({}, state)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt_type": "deep"}, "prompt_type='deep' is not allowed"),
        ({"absent_inputs": "zeros"}, "absent_inputs='zeros'"),
        ({"prompt_length": 2}, "prompt_length=2 must be at least 3"),
        ({"prompt_length": 7, "prompt_type": "attention"}, "prompt_length=7 must be even"),
        ({"prompt_layers": [1, 0]}, "increasing layer numbers from 0 to 1"),
        ({"prompt_layers": [0, 2]}, "increasing layer numbers from 0 to 1"),
        ({"learn_prompts": False}, "needs a single entry in prompt_layers"),
        ({"cls_token_id": 10_000}, "cls_token_id=10000 must be a token id below"),
        ({"backbone_config": {"model_type": "bert"}}, "MMP needs a ViLT"),
    ],
)
def test_contradictions_are_refused(fields, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        MmpConfig(**{**tiny_mmp_config().to_dict(), "prompt_layers": None, **fields})
