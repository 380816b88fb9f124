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
"""MoPE's configuration: defaults, round trip, and what it says to a user's mistakes."""

import json

import pytest
from fixtures_tiny import tiny_mope_config, tiny_text_config, tiny_vision_config
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, BertConfig, ViTConfig

from fusionzoo import MopeConfig
from fusionzoo.configuration.configuration_mope import PROMPT_KINDS


MISTAKES = {
    # fields: what the message must hold (the field, the value, what is allowed, the remedy)
    "type": ({"num_experts": "four"}, ["num_experts", "'four'|four", "int"]),
    "bool for int": ({"num_experts": True}, ["num_experts", "True", "int"]),
    "choice": ({"fuse_method": "mop"}, ["fuse_method='mop'", "mope, text_router, mapped"]),
    "modality": ({"main_modality": "audio"}, ["main_modality='audio'", "vision, text"]),
    "norm": ({"mapper_norm": "batchnorm"}, ["mapper_norm='batchnorm'", "affine, batch_norm, layer_norm, none"]),
    "init": ({"prompt_init": "othorgonal"}, ["prompt_init='othorgonal'", "uniform, normal, orthogonal"]),
    "order": ({"window_prompt_order": "x"}, ["window_prompt_order='x'", "sample, official"]),
    "experts": ({"num_experts": 0}, ["num_experts=0", "at least 1"]),
    "mapper size": ({"mapper_hidden_size": 0}, ["mapper_hidden_size=0", "at least 1"]),
    "length": ({"text_prompt_length": -1}, ["text_prompt_length=-1", "0 means no prompts"]),
    "temperature": ({"router_temperature": 0}, ["router_temperature=0", "positive"]),
    "temperature nan": ({"router_temperature": float("nan")}, ["router_temperature=nan", "positive"]),
    "noise": ({"router_noise_std": -0.1}, ["router_noise_std=-0.1", "must not be negative"]),
    "weight": ({"importance_loss_weight": -1}, ["importance_loss_weight=-1", "must not be negative"]),
    "dropout": ({"prompt_dropout": 1.0}, ["prompt_dropout=1.0", r"[0, 1)"]),
    "top k": ({"router_top_k": 9}, ["router_top_k=9", "between 1 and num_experts=4", "None to mix all"]),
    "no prompts": ({"prompt_length": 0}, ["prompt_length=0", "fuse_method='mope'", "at least 1"]),
    "no text prompts": (
        {"main_modality": "text", "text_prompt_length": 0}, ["text_prompt_length=0", "fuse_method='mope'", "at least 1"],
    ),
    "nothing fused": (
        {"use_dynamic_prompt": False, "use_mapped_prompt": False},
        ["use_dynamic_prompt=False and use_mapped_prompt=False", 'use fuse_method="vision_only"'],
    ),
    "main modality": (
        {"main_modality": "text", "fuse_method": "late_concat"},
        ['main_modality="text"', "'mope', 'text_router', 'mapped'", "'late_concat'", "leave main_modality"],
    ),
    "no cls": (
        {"vision_config": tiny_vision_config("swin"), "vision_pooling": "cls"}, ['vision_pooling="cls"', 'use "mean"'],
    ),
    "scope": ({"weights_scope": "slim"}, ["weights_scope='slim'", "full, trainable"]),
    "slim but trained": (
        {"weights_scope": "trainable", "freeze_backbone": False},
        ['weights_scope="trainable"', "freeze_backbone=True", 'weights_scope="full"'],
    ),
    "unknown tower": ({"vision_config": {"model_type": "vitt"}}, ["vision_config", "'vitt'", '"swin"']),
    "unfit tower": ({"text_config": {"model_type": "gpt2"}}, ["text_config", "'gpt2'", "bert, roberta"]),
    "tower by name": ({"vision_config": "vit"}, ["vision_config='vit'", '{"model_type": "swin"}', "from_backbones"]),
    "misspelt": ({"prompt_lenght": 3}, ["'prompt_lenght'", "did you mean 'prompt_length'"]),
    "misspelt labels": ({"num_label": 3}, ["'num_label'", "did you mean 'num_labels'"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake):
    fields, parts = MISTAKES[mistake]
    with pytest.raises((ValueError, StrictDataclassError)) as caught:
        MopeConfig(**{"vision_config": tiny_vision_config(), "text_config": tiny_text_config(), **fields})
    for part in parts:
        assert any(choice in str(caught.value) for choice in part.split("|")), f"{part!r} not in: {caught.value}"


def test_a_wrong_type_is_refused_at_assignment():
    with pytest.raises(StrictDataclassError, match="num_experts"):
        tiny_mope_config().num_experts = "many"


def test_whole_numbers_do_for_fractions():
    config = tiny_mope_config(router_temperature=1, prompt_dropout=0, router_noise_std=0)
    assert (config.router_temperature, config.prompt_dropout, config.router_noise_std) == (1, 0, 0)


@pytest.mark.parametrize(
    ("fields", "noise", "threshold", "hidden", "norm", "text_pooling"),
    [
        ({}, 1 / 256, 0.1, 384, "affine", "cls"),
        ({"num_experts": 16}, 1 / 256, 0.1, 384, "affine", "cls"),
        ({"text_prompt_length": 0}, 1 / 256, 0.1, 384, "affine", "pooler"),
        ({"fuse_method": "text_router"}, 1 / 16, 0.05, 384, "none", "cls"),
        ({"fuse_method": "text_router", "num_experts": 8}, 1 / 64, 0.05, 384, "none", "cls"),
        ({"main_modality": "text"}, 1 / 16, 0.05, 384, "batch_norm", "cls"),
        ({"fuse_method": "mapped"}, 1 / 256, 0.1, 384, "none", "cls"),
        ({"fuse_method": "p_sequential"}, 1 / 256, 0.1, 1500, "batch_norm", "cls"),
        ({"fuse_method": "sequentialfuse"}, 1 / 256, 0.1, 512, "batch_norm", "cls"),
        ({"fuse_method": "late_concat", "text_prompt_length": 0}, 1 / 256, 0.1, 384, "none", "pooler"),
    ],
    ids=str,
)
def test_official_defaults(fields, noise, threshold, hidden, norm, text_pooling):
    config = tiny_mope_config(**fields)
    assert config.router_noise_std == pytest.approx(noise)
    assert config.importance_threshold == pytest.approx(threshold)
    assert (config.mapper_hidden_size, config.mapper_norm) == (hidden, norm)
    assert config.text_pooling == text_pooling


def test_the_papers_defaults():
    config = MopeConfig()
    assert config.vision_config.model_type == "swin" and config.text_config.model_type == "bert"
    assert (config.num_experts, config.prompt_length, config.text_prompt_length) == (4, 6, 4)
    assert (config.router_self_dim, config.router_cross_dim, config.router_temperature) == (2, 8, 0.1)
    assert (config.importance_loss_weight, config.prompt_dropout, config.text_prompt_init_range) == (0.01, 0.1, 0.3)
    assert config.freeze_backbone and not config.router_noise_in_eval and not config.prompt_first_block
    assert config.window_prompt_order == "sample" and config.router_top_k is None


def test_what_is_given_wins():
    config = tiny_mope_config(
        fuse_method="p_sequential", mapper_hidden_size=7, mapper_norm="none", router_noise_std=0.0,
        importance_threshold=0.0, text_pooling="mean", vision_pooling="mean",
    )  # fmt: skip
    assert (config.mapper_hidden_size, config.mapper_norm, config.router_noise_std) == (7, "none", 0.0)
    assert (config.importance_threshold, config.text_pooling, config.vision_pooling) == (0.0, "mean", "mean")


def test_pooling_of_vision():
    assert tiny_mope_config("vit").vision_pooling == "cls"
    assert tiny_mope_config("swin").vision_pooling == "mean"
    assert MopeConfig(vision_config=ViTConfig()).vision_pooling == "cls"
    assert MopeConfig().vision_pooling == "mean"


@pytest.mark.parametrize("method", PROMPT_KINDS)
def test_derived_properties(method):
    config = tiny_mope_config(fuse_method=method)
    expected = {
        "late_concat": ("vision", "text"), "ensemble": ("vision", "text"), "text_only": ("text",),
        "p_sequential": ("text",), "sequentialfuse": ("text",),
    }.get(method, ("vision",))  # fmt: skip
    assert config.classified_modalities == expected
    assert config.uses_vision == (method != "text_only") and config.uses_text == (method != "vision_only")
    assert not (config.vision_is_steered and config.text_is_steered)
    assert config.prompt_kinds == PROMPT_KINDS[method]


def test_prompt_kinds_follow_the_switches():
    assert tiny_mope_config(use_static_prompt=False).prompt_kinds == ("dynamic", "mapped")
    assert tiny_mope_config(use_mapped_prompt=False).prompt_kinds == ("static", "dynamic")
    assert tiny_mope_config(main_modality="text").prompt_kinds == ("mapped", "static", "dynamic")
    assert tiny_mope_config(main_modality="text").classified_modalities == ("text",)


def test_round_trip(tmp_path):
    config = tiny_mope_config(
        "swin", "roberta", num_experts=3, fuse_method="text_router", importance_threshold=0.2, num_labels=5,
        id2label={index: f"class {index}" for index in range(5)}, problem_type="multi_label_classification",
        weights_scope="trainable", frozen_parts={"vision_model": {"repo_id": "a/b", "revision": "0123"}},
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["model_type"] == "fz_mope" and saved["router_noise_std"] == pytest.approx(1 / 9)
    for loaded in (MopeConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(loaded) is MopeConfig
        assert {**loaded.to_dict(), "_name_or_path": ""} == config.to_dict()
        assert loaded.text_config.model_type == "roberta" and loaded.num_labels == 5
    changed = MopeConfig.from_pretrained(tmp_path, num_experts=2)
    assert changed.num_experts == 2 and changed.importance_threshold == 0.2


def test_towers_may_be_configurations():
    text = BertConfig(hidden_size=24, num_attention_heads=2)
    assert MopeConfig(text_config=text).text_config is text
