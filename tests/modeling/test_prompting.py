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
"""Prompts in stock towers: nothing changes without them, and with them every window and mask is right."""

import pytest
import torch
from fixtures_tiny import tiny_text_config, tiny_vision_config
from torch import nn
from transformers import AutoConfig, AutoModel

from fusionzoo.modeling.prompting import (
    from_windows,
    insert_after_first,
    masked_mean,
    merge_prompts,
    num_special_tokens,
    remove_after_first,
    run_prompted_swin,
    run_prompted_text,
    run_prompted_vit,
    swin_block,
    to_windows,
    tower_layers,
    tower_stages,
)  # fmt: skip
from fusionzoo.modeling.prompts_mope import no_prompts


def tower(config: dict, **options):
    """A stock tower with weights large enough for every input to matter."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(**{"initializer_range": 0.2, **config})
    model = AutoModel.from_config(config, attn_implementation=options.pop("attn_implementation", "sdpa"), **options)
    for name, parameter in model.named_parameters():
        if name.endswith(("bias_table", "bias", "register_tokens", "cls_token")):
            nn.init.normal_(parameter, std=0.5)
    return model.eval()


# ---- token order ------------------------------------------------------------------------------------------------------


def test_insert_after_first():
    tokens, prompts = torch.tensor([[[1.0], [2], [3]]]), torch.tensor([[[8.0], [9]]])
    joined = insert_after_first(tokens, prompts)
    assert joined.flatten().tolist() == [1, 8, 9, 2, 3]
    for original, back in zip((tokens, prompts), remove_after_first(joined, 2)):
        assert torch.equal(original, back)
    assert insert_after_first(tokens.bfloat16(), prompts).dtype == torch.bfloat16


def test_masked_mean():
    tokens = torch.tensor([[[2.0], [4], [100]], [[1], [2], [3]]])
    assert masked_mean(tokens, torch.tensor([[1, 1, 0], [1, 1, 1]])).tolist() == [[3], [2]]
    assert masked_mean(tokens[1:], None).tolist() == [[2]]


GRID = torch.arange(16.0).view(1, 4, 4, 1) + torch.tensor([0, 100.0]).view(2, 1, 1, 1)  # two samples
PROMPTS = torch.tensor([-1.0, -2]).view(2, 1, 1)


@pytest.mark.parametrize(
    ("order", "prompts"),
    [("sample", [-1, -1, -1, -1, -2, -2, -2, -2]), ("official", [-1, -2, -1, -2, -1, -2, -1, -2])],
)
def test_to_windows(order, prompts):
    tokens, windows = to_windows(PROMPTS, GRID, 2, order)
    assert windows == 4 and tokens.shape == (8, 5, 1)
    assert tokens[:, 0, 0].tolist() == prompts
    assert tokens[:4, 1:, 0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert torch.equal(tokens[4:, 1:], tokens[:4, 1:] + 100)


@pytest.mark.parametrize("order", ["sample", "official"])
def test_from_windows_is_the_inverse(order):
    grid = torch.rand(3, 4, 6, 2)
    prompts = torch.rand(3, 5, 2)
    tokens, _ = to_windows(prompts, grid, 2, order)
    back, patches = from_windows(tokens, 5, (4, 6), 2, order)
    torch.testing.assert_close(back, prompts)
    assert torch.equal(patches, grid)


def test_from_windows_averages_prompts():
    """Rows of the windows hold 0..7 as prompts: sample-major in our order, window-major in the official one."""
    tokens = torch.cat([torch.arange(8.0).view(8, 1, 1), torch.zeros(8, 4, 1)], dim=1)
    assert from_windows(tokens, 1, (4, 4), 2, "sample")[0].flatten().tolist() == [1.5, 5.5]
    assert from_windows(tokens, 1, (4, 4), 2, "official")[0].flatten().tolist() == [3, 4]


# ---- without prompts: the stock towers --------------------------------------------------------------------------------

INPUT_IDS = torch.tensor([[3, 9, 4, 7, 2, 5], [3, 8, 6, 2, 1, 1]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("text", ["bert", "roberta", "xlm-roberta", "camembert", "ernie"])
def test_unprompted_text_towers(text, attention):
    config = {**tiny_text_config("bert" if text in ("bert", "ernie") else "roberta"), "model_type": text}
    model = tower(config, attn_implementation=attention)
    with torch.no_grad():
        for mask in (MASK, None):
            ours = run_prompted_text(model, model.embeddings(input_ids=INPUT_IDS), mask, no_prompts)
            stock = model(INPUT_IDS, attention_mask=torch.ones_like(MASK) if mask is None else mask)
            torch.testing.assert_close(ours, stock.last_hidden_state, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("vision", "special"), [("vit", 1), ("deit", 2), ("dinov2", 1), ("dinov2_with_registers", 5)])
def test_unprompted_vision_towers(vision, special):
    model = tower({**tiny_vision_config("dinov2" if "dino" in vision else "vit"), "model_type": vision})
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        embeddings = model.embeddings(pixels)
        ours = run_prompted_vit(model, embeddings, no_prompts)
        torch.testing.assert_close(ours, model(pixels).last_hidden_state, atol=1e-6, rtol=0)
    assert num_special_tokens(model) == special == embeddings.shape[1] - 16


SWIN = {**tiny_vision_config("swin"), "embed_dim": 8, "num_heads": [1, 2, 2, 4]}


@pytest.mark.parametrize(
    ("image_size", "window", "depths"),
    [
        ((32, 32), 2, [2, 2, 2, 2]),
        ((32, 32), 4, [2, 2, 2]),  # the last grid equals the window: one window, no shift
        ((36, 36), 4, [2, 2, 2]),  # grids of 18, 9 and 5 are padded
        ((36, 28), 4, [2, 2]),  # not square
        ((30, 44), 3, [2, 3, 2]),
    ],
    ids=str,
)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_unprompted_swin(image_size, window, depths, attention):
    config = {**SWIN, "image_size": list(image_size), "window_size": window, "depths": depths}
    model = tower(config, add_pooling_layer=False, attn_implementation=attention)
    pixels = torch.randn(2, 3, *image_size)
    with torch.no_grad():
        patches, grid = model.embeddings(pixels)
        ours, num_prompts = run_prompted_swin(model, patches, grid, None, no_prompts)
        stock = model(pixels).last_hidden_state
        torch.testing.assert_close(ours, stock, atol=1e-5, rtol=0)
        again, _ = run_prompted_swin(model, patches, grid, None, no_prompts)  # the stock forward changes its layers
    assert num_prompts == 0 and grid == (image_size[0] // 2, image_size[1] // 2)
    torch.testing.assert_close(again, stock, atol=1e-5, rtol=0)


def test_a_grid_smaller_than_the_window():
    """The stock tower stops there, its bias table being larger than the grid; the offsets that occur must be used."""
    large = tower({**SWIN, "image_size": 8, "window_size": 7, "depths": [2]}, add_pooling_layer=False)
    small = tower({**SWIN, "image_size": 8, "window_size": 4, "depths": [2]}, add_pooling_layer=False)
    state = large.state_dict()
    for name, table in state.items():
        if name.endswith("bias_table"):  # offsets -6..6 by -6..6, of which -3..3 occur
            state[name] = table.view(13, 13, -1)[3:10, 3:10].flatten(0, 1)
    small.load_state_dict(state)
    pixels = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        ours, _ = run_prompted_swin(large, *large.embeddings(pixels), None, no_prompts)
        torch.testing.assert_close(ours, small(pixels).last_hidden_state, atol=1e-5, rtol=0)


def test_tower_stages():
    assert tower_stages(tower(tiny_vision_config("vit"))) == [(32, 2)]
    assert tower_stages(tower(tiny_vision_config("swin"))) == [(4, 2), (8, 2), (16, 2), (32, 2)]
    assert tower_stages(tower(tiny_text_config())) == [(24, 2)]
    assert len(tower_layers(tower(tiny_text_config("roberta")))) == 2


# ---- with prompts -----------------------------------------------------------------------------------------------------


def prompts_of(*banks: torch.Tensor | None):
    """A prompt source that gives one bank per layer, and what it was asked with."""
    asked: list[torch.Tensor | None] = []

    def next_prompts(stage, block, prompts, tokens):
        asked.append(prompts)
        bank = banks[block]
        return None if bank is None else bank.expand(tokens.shape[0], -1, -1)

    return next_prompts, asked


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_masks_show_prompts_and_hide_padding(attention):
    """Each sample alone, unpadded and unmasked, laid out by hand, gives the same."""
    model = tower(tiny_text_config(), attn_implementation=attention)
    banks = torch.randn(2, 1, 3, 24)
    source, _ = prompts_of(*banks)
    with torch.no_grad():
        ours = run_prompted_text(model, model.embeddings(input_ids=INPUT_IDS), MASK, source)
        for row, length in enumerate(MASK.sum(1).tolist()):
            hidden = model.embeddings(input_ids=INPUT_IDS[row : row + 1, :length])
            for layer, bank in zip(model.encoder.layer, banks):
                joined = layer(torch.cat([hidden[:, :1], bank, hidden[:, 1:]], dim=1), None)
                hidden = torch.cat([joined[:, :1], joined[:, 4:]], dim=1)
            torch.testing.assert_close(ours[row, : 3 + length], joined[0], atol=2e-6, rtol=0)


def test_prompts_travel_until_they_are_replaced():
    model = tower({**tiny_vision_config(), "num_hidden_layers": 3})
    pixels, bank = torch.randn(2, 3, 32, 32), torch.randn(1, 2, 32)
    source, asked = prompts_of(bank, None, bank + 1)
    with torch.no_grad():
        out = run_prompted_vit(model, model.embeddings(pixels), source)
    assert out.shape == (2, 1 + 2 + 16, 32)
    assert asked[0] is None
    with torch.no_grad():
        first = model.layers[0](insert_after_first(model.embeddings(pixels), bank.expand(2, -1, -1)))
        second = model.layers[1](first)
        third = model.layers[2](insert_after_first(remove_after_first(second, 2)[0], (bank + 1).expand(2, -1, -1)))
    torch.testing.assert_close(asked[1], first[:, 1:3])
    torch.testing.assert_close(asked[2], second[:, 1:3])
    torch.testing.assert_close(out, model.layernorm(third))


def test_swin_block_by_hand():
    """Two windows of 2 x 2, one prompt each, no shift: attention over five tokens, with the bias on patches only."""
    model = tower({**SWIN, "image_size": [8, 4], "depths": [2], "window_size": 2, "num_heads": [1]})
    layer = model.encoder.layers[0].blocks[0]
    prompts, patches = torch.randn(1, 1, 8), torch.randn(1, 8, 8)  # a grid of 4 x 2
    with torch.no_grad():
        new_prompts, new_patches = swin_block(layer, prompts, patches, (4, 2))
        attention, norm = layer.attention, layer.layernorm_before
        bias = torch.zeros(5, 5)
        bias[1:, 1:] = attention.relative_position_bias()[0, 0]
        outputs = []
        for window in (patches[0, :4], patches[0, 4:]):
            tokens = norm(torch.cat([prompts[0], window]))
            query, key, value = (each(tokens) for each in (attention.q_proj, attention.k_proj, attention.v_proj))
            outputs.append(attention.o_proj((query @ key.T / 8**0.5 + bias).softmax(-1) @ value))
        attended = torch.cat([(outputs[0][:1] + outputs[1][:1]) / 2, outputs[0][1:], outputs[1][1:]])
        hidden = torch.cat([prompts[0], patches[0]]) + attended
        expected = hidden + layer.mlp(layer.layernorm_after(hidden))
    torch.testing.assert_close(torch.cat([new_prompts, new_patches], dim=1)[0], expected, atol=1e-6, rtol=0)


def test_merging_a_prompt_is_merging_four_copies_of_it():
    downsample = tower(SWIN).encoder.layers[0].downsample
    prompts = torch.randn(2, 3, 8)
    with torch.no_grad():
        merged = merge_prompts(downsample, prompts)
        for index in range(3):
            four = downsample(prompts[:, index : index + 1].expand(-1, 4, -1), (2, 2))
            torch.testing.assert_close(merged[:, index : index + 1], four)
