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
"""MoPE itself: parameter counts at the paper's size, initialisation, ablations, routing, learning-rate groups."""

import pytest
import torch
from fixtures_tiny import tiny_mope_config
from transformers import BertConfig, SwinConfig

from fusionzoo import MopeConfig, MopeForSequenceClassification, MopeModel


def count(model, *prefixes: str, trainable: bool = True) -> int:
    return sum(
        each.numel()
        for name, each in model.named_parameters()
        if (each.requires_grad or not trainable) and name.startswith(prefixes or "")
    )


def paper_model(**fields):
    vision = SwinConfig(
        image_size=224, patch_size=4, embed_dim=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32], window_size=7
    )
    with torch.device("meta"):
        return MopeForSequenceClassification(
            MopeConfig(vision_config=vision, text_config=BertConfig(), num_labels=23, **fields)
        )


# ---- counts -----------------------------------------------------------------------------------------------------------

WIDTHS, DEPTHS, LENGTH = (128, 256, 512, 1024), (2, 2, 18, 2), 6
ALL = sum(depth * width for depth, width in zip(DEPTHS, WIDTHS))  # 12,032
FIRST = sum(WIDTHS)  # 1,920: the first blocks, which the official code gives prompts that it never uses


@pytest.mark.parametrize("experts", [4, 16])
def test_counts_at_the_papers_size(experts):
    """Ours leaves out the official dead weights: the first block of each stage, unused heads and prompts."""
    model = paper_model(num_experts=experts)
    prompts = "mope.fusion_prompts."
    bank = count(model, f"{prompts}static", f"{prompts}experts")
    assert bank == (experts + 1) * LENGTH * (ALL - FIRST)
    if experts == 4:
        assert bank + (experts + 1) * LENGTH * FIRST == 360_960  # official: experts and static prompts
    routers = count(model, f"{prompts}routers")
    assert routers == 2 * (ALL - FIRST) + 20 * (2 + 8 * 769)
    assert routers + 2 * FIRST + 4 * (2 + 8 * 769) == 171_760  # official: routers
    assert count(model, f"{prompts}mapper") == 768 * 384 + 384 + 2 * 384 + 385 * FIRST == 1_035_264
    assert count(model, "classifier") == 23 * 1025 == 23_575
    assert count(model, "mope.text_prompts") == 12 * 4 * 768 == 36_864
    assert count(model, f"{prompts}arriving") == 13 * 128 == 1_664
    substitutes = 128 + 768  # for absent modalities: ours
    # Official: parameters that receive a gradient, without the slices of the first blocks.
    official = {4: 1_544_031, 16: 2_467_935 - 17 * LENGTH * FIRST}[experts]
    assert count(model) - substitutes == official
    keys = sum(buffer.numel() for name, buffer in model.named_buffers() if name.endswith(".keys"))
    assert keys == 20 * 10 * experts


def test_towers_at_the_papers_size():
    model = paper_model()
    assert count(model, "mope.vision_model", trainable=False) == 86_743_224
    pooler = 768 * 769
    assert count(model, "mope.text_model", trainable=False) + pooler == 109_482_240
    assert count(model) / count(model, trainable=False) == pytest.approx(0.008, abs=2e-4)  # the paper's 0.8 %


def test_counts_with_prompts_in_the_first_blocks():
    model = paper_model(prompt_first_block=True)
    assert count(model, "mope.fusion_prompts.static", "mope.fusion_prompts.experts") == 360_960
    assert count(model, "mope.fusion_prompts.routers") == 171_760
    assert model.mope.fusion_prompts.arriving is None


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({}, "static experts routers mapper arriving"),
        ({"use_static_prompt": False}, "experts routers mapper arriving"),
        ({"use_dynamic_prompt": False}, "static mapper arriving"),
        ({"use_mapped_prompt": False}, "static experts routers arriving"),
        ({"prompt_first_block": True}, "static experts routers mapper"),
        ({"fuse_method": "text_router"}, "static experts router mapper"),
        ({"fuse_method": "mapped"}, "static mapper"),
        ({"main_modality": "text"}, "static experts routers mapper"),
        ({"fuse_method": "p_sequential"}, "static mapper"),
    ],
    ids=str,
)
def test_ablations_have_no_dead_parts(fields, parts):
    model = MopeForSequenceClassification(tiny_mope_config(num_labels=3, mapper_hidden_size=8, **fields)).train()
    names = {name.split(".")[2] for name, _ in model.named_parameters() if name.startswith("mope.fusion_prompts.")}
    parts = set(parts.split())
    assert names == parts
    outputs = model(torch.rand(4, 3, 32, 32), torch.randint(5, 90, (4, 6)), labels=torch.tensor([0, 1, 2, 0]))
    outputs.loss.backward()
    assert not [name for name, each in model.named_parameters() if each.requires_grad and each.grad is None]
    routed = {"routers": 2, "router": 1}.get(next(iter({"routers", "router"} & parts), ""), 0)
    if "arriving" in parts and routed:
        routed = 1  # one of the two blocks
    assert (None if outputs.router_scores is None else outputs.router_scores.shape[1]) == (routed or None)


def test_the_order_of_prompts_and_their_number():
    """[static; dynamic; mapped]: the mapped token comes last, 2 n + 1 tokens."""
    model = MopeModel(tiny_mope_config(prompt_length=3, prompt_dropout=0.0)).eval()
    steering = model.fusion_prompts.steer(torch.randn(2, 24))
    tokens, arriving = torch.randn(2, 17, 32), steering(0, 0, None, torch.randn(2, 17, 32))
    assert torch.equal(arriving[0], model.fusion_prompts.arriving)
    joined = steering(0, 1, arriving, tokens)
    assert joined.shape == (2, 7, 32)
    assert torch.equal(joined[0, :3], model.fusion_prompts.static[0][0])
    assert torch.equal(joined[1, 6:], steering.mapped[0][1])
    scores = steering.router_scores()[:, 0]
    experts = model.fusion_prompts.experts[0][:, 0]
    by_hand = torch.stack([sum(score * expert for score, expert in zip(row, experts)) for row in scores])
    torch.testing.assert_close(joined[:, 3:6], by_hand)


def test_a_router_by_hand():
    model = MopeModel(tiny_mope_config()).eval()
    prompts = model.fusion_prompts
    router, feature = prompts.routers[0], torch.randn(2, 24)
    arriving, tokens = torch.randn(2, 13, 32), torch.randn(2, 17, 32)
    steering = prompts.steer(feature)
    steering(0, 1, arriving, tokens)
    mean = (arriving.sum(1) + tokens.sum(1)) / 30
    own = mean @ router.self_weight[0].T + router.self_bias[0]
    other = feature @ router.cross_proj.weight.T + router.cross_proj.bias
    expected = (torch.cat([own, other], 1) @ router.keys[0] / 0.1).softmax(-1)
    torch.testing.assert_close(steering.router_scores()[:, 0], expected)


@pytest.mark.parametrize("pool", ["all", "patches"])
def test_router_pool(pool):
    router = MopeModel(tiny_mope_config(router_pool=pool)).fusion_prompts.routers[0]
    prompts, tokens = torch.full((1, 2, 4), 10.0), torch.tensor([[[1.0] * 4, [3.0] * 4]])
    assert router.pooled(prompts, tokens)[0, 0] == (6 if pool == "all" else 2)
    masked = router.pooled(prompts, tokens, torch.tensor([[1, 0]]))[0, 0].item()
    assert masked == pytest.approx(7 if pool == "all" else 1)


@pytest.mark.parametrize("fields", [{}, {"fuse_method": "text_router"}, {"main_modality": "text"}], ids=str)
def test_top_k_routing(fields):
    inputs = torch.rand(5, 3, 32, 32), torch.randint(5, 90, (5, 6))
    for top_k in (1, 2, 4):
        scores = MopeModel(tiny_mope_config(router_top_k=top_k, **fields)).eval()(*inputs).router_scores
        assert ((scores > 0).sum(-1) == top_k).all()
        torch.testing.assert_close(scores.sum(-1), torch.ones_like(scores[..., 0]))


# ---- initialisation ---------------------------------------------------------------------------------------------------


def within(tensor: torch.Tensor, bound: float) -> bool:
    """Whether the tensor looks uniform in plus or minus `bound`."""
    return 0.9 * bound < tensor.abs().max() <= bound and abs(tensor.std() - bound / 3**0.5) < 0.15 * bound


def test_initialisation():
    torch.manual_seed(0)
    config = tiny_mope_config(prompt_length=8, text_prompt_length=8, num_experts=6, num_labels=3, router_self_dim=8)
    model = MopeForSequenceClassification(config)
    prompts = model.mope.fusion_prompts
    bound = (6 / (3 * 8**2 + 32)) ** 0.5  # patches of side 8, width 32
    assert all(within(each, bound) for each in (prompts.static[0], prompts.experts[0], prompts.arriving))
    assert within(model.mope.text_prompts.prompts[0], 0.3)
    router = prompts.routers[0]
    assert within(router.self_weight, 32**-0.5) and within(router.cross_proj.weight, 24**-0.5)
    assert router.self_bias.any() and router.cross_proj.bias.any()
    assert within(prompts.mapper.down.weight, 24**-0.5) and within(model.classifier.weight, 32**-0.5)
    norm = prompts.mapper.norm
    assert (norm.weight == 1).all() and not norm.bias.any() and not norm.running_mean.any()
    assert within(model.mope.absent_image, bound) and within(model.mope.absent_text, 0.3)


def test_absent_modalities_do_not_drown_other_gradients():
    model = MopeForSequenceClassification(tiny_mope_config(num_labels=3, problem_type="single_label_classification"))
    torch.manual_seed(0)
    pixels, ids = torch.randn(4, 3, 32, 32), torch.randint(5, 60, (4, 6))
    model(pixels, ids, missing_type=torch.tensor([0, 1, 2, 2]), labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    norms = {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}
    substitutes = [norms.pop("mope.absent_image"), norms.pop("mope.absent_text")]
    assert max(substitutes) < 10 * max(norms.values())


def test_the_papers_prompt_bound():
    assert paper_model()._vision_prompt_bound() == pytest.approx(0.1846, abs=1e-4)


@pytest.mark.parametrize(("dims", "experts"), [((2, 8), 4), ((2, 2), 6)])
def test_routing_keys_are_orthonormal_and_frozen(dims, experts):
    config = tiny_mope_config("swin", router_self_dim=dims[0], router_cross_dim=dims[1], num_experts=experts)
    model = MopeModel(config)
    for router in model.fusion_prompts.routers:
        for keys in router.keys:
            gram = keys.T @ keys if experts <= sum(dims) else keys @ keys.T
            torch.testing.assert_close(gram, torch.eye(len(gram)), atol=1e-5, rtol=0)
    assert not any("keys" in name for name, _ in model.named_parameters())
    trained = MopeModel(tiny_mope_config("swin", train_router_keys=True))
    keys = [each for name, each in trained.named_parameters() if name.endswith("keys")]
    assert len(keys) == 4 and all(each.requires_grad and each.any() for each in keys)


def test_normal_prompts():
    torch.manual_seed(0)
    experts = MopeModel(tiny_mope_config(prompt_init="normal", prompt_length=16)).fusion_prompts.experts[0]
    assert experts.abs().max() <= 2 and experts.std().item() == pytest.approx(0.88, abs=0.03)


def test_orthogonal_prompts_in_every_block():
    """The official code leaves the last block of the first stage at zero."""
    model = MopeModel(tiny_mope_config("swin", prompt_init="orthogonal", prompt_length=3))
    prompts = model.fusion_prompts
    for bank in (prompts.static, prompts.experts):
        for stage in bank:
            for block in stage.flatten(0, -3):  # (length, width)
                torch.testing.assert_close(block @ block.T, torch.eye(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(prompts.arriving.T @ prompts.arriving, torch.eye(4), atol=1e-5, rtol=0)


def test_the_affine_norm_never_uses_the_batch():
    model = MopeModel(tiny_mope_config(prompt_dropout=0.0)).train()
    mapper, features = model.fusion_prompts.mapper, torch.randn(4, 24)
    assert mapper.training and not mapper.norm.training
    torch.testing.assert_close(mapper.encode(features)[:1], mapper.encode(features[:1]))
    assert not mapper.norm.running_mean.any() and mapper.norm.num_batches_tracked == 0
    assert mapper.norm.weight.requires_grad
    batch_norm = MopeModel(tiny_mope_config(mapper_norm="batch_norm")).train().fusion_prompts.mapper
    batch_norm.encode(features)
    assert batch_norm.norm.training and batch_norm.norm.running_mean.any()


# ---- what trains, and how fast ----------------------------------------------------------------------------------------


def test_text_prompts_may_be_fixed():
    model = MopeForSequenceClassification(tiny_mope_config(train_text_prompts=False))
    assert not any(each.requires_grad for each in model.mope.text_prompts.parameters())
    assert model.mope.fusion_prompts.arriving.requires_grad


GROUPS = {
    "mope": {"fusion_prompts": "vision", "classifier": "vision", "text_prompts": "text"},
    "text_router": {
        "fusion_prompts.static": "vision", "fusion_prompts.experts": "vision", "fusion_prompts.router": "fusion",
        "fusion_prompts.mapper": "fusion", "classifier": "vision", "text_prompts": "text",
    },
    "p_sequential": {
        "fusion_prompts.static": "text", "fusion_prompts.mapper": "fusion", "vision_prompts": "vision",
        "classifier": "text",
    },
    "late_concat": {"classifier": "fusion", "vision_prompts": "vision", "text_prompts": "text"},
    "ensemble": {
        "vision_classifier": "vision", "text_classifier": "text", "vision_prompts": "vision", "text_prompts": "text",
    },
    "vision_only": {"classifier": "vision", "vision_prompts": "vision"},
    "text_only": {"classifier": "text", "text_prompts": "text"},
}  # fmt: skip


@pytest.mark.parametrize("method", GROUPS)
def test_parameter_groups(method):
    model = MopeForSequenceClassification(tiny_mope_config(fuse_method=method, freeze_backbone=False))
    expected = {**GROUPS[method], "vision_model": "vision", "text_model": "text"}
    expected |= {"absent_image": "vision", "absent_text": "text"}
    seen = set()
    for name, _ in model.named_parameters():
        start = next(start for start in expected if name.removeprefix("mope.").startswith(start))
        seen.add(start)
        assert model.parameter_group(name) == expected[start], name
    assert set(GROUPS[method]) <= seen


def test_ensembles_average_two_heads():
    model = MopeForSequenceClassification(tiny_mope_config(fuse_method="ensemble", num_labels=3)).eval()
    outputs = model(torch.rand(2, 3, 32, 32), torch.randint(5, 90, (2, 6)))
    vision, text = outputs.pooler_output.split([32, 24], dim=-1)
    expected = (model.vision_classifier(vision) + model.text_classifier(text)) / 2
    torch.testing.assert_close(outputs.logits, expected)


def test_deeper_swin_stages_of_one_block():
    from fixtures_tiny import tiny_text_config, tiny_vision_config

    vision = {**tiny_vision_config("swin"), "depths": [1, 2, 1, 2]}
    model = MopeForSequenceClassification(MopeConfig(vision_config=vision, text_config=tiny_text_config())).train()
    outputs = model(torch.rand(2, 3, 32, 32), torch.randint(5, 90, (2, 6)), labels=torch.tensor([0, 1]))
    outputs.loss.backward()
    assert outputs.router_scores.shape == (2, 2, 4)
    assert not [name for name, each in model.named_parameters() if each.requires_grad and each.grad is None]
    with pytest.raises(ValueError, match=r"\[1, 1\] blocks; use a deeper tower, or prompt_first_block=True"):
        MopeModel(MopeConfig(vision_config={**vision, "depths": [1, 1]}, text_config=tiny_text_config()))
