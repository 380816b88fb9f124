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
"""DCP: known values, what is skipped, what trains, dual encoders, and the configuration's checks."""

import copy

import pytest
import torch
from fixtures_tiny import tiny_dcp_config, tiny_text_config, tiny_vision_config
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from fusionzoo import DcpConfig, DcpForSequenceClassification, DcpModel
from fusionzoo.modeling import convert_dcp
from fusionzoo.modeling.prompts_dcp import DcpDynamicPrompts, DcpPromptLearner


PAIRS = [("clip", "clip"), ("siglip", "siglip"), ("vit", "bert"), ("dinov2", "roberta"), ("clip", "bert")]
MIXED = [0, 1, 2, 0, 2, 1]


def inputs_for(count: int = 6, length: int = 9, missing: list[int] | None = None) -> dict[str, torch.Tensor]:
    """Texts that end in token 3 (CLIP's end in these tests) at different places, then padding."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(5, 100, (count, length), generator=generator)
    ids[:, 0] = 2
    mask = torch.ones_like(ids)
    for row in range(count):
        end = 3 + row % (length - 3)
        ids[row, end], ids[row, end + 1 :], mask[row, end + 1 :] = 3, 0, 0
    pixels = torch.randn(count, 3, 32, 32, generator=generator)
    inputs = {"pixel_values": pixels, "input_ids": ids, "attention_mask": mask}
    return inputs | ({} if missing is None else {"missing_type": torch.tensor(missing)})


def lively_model(vision: str = "clip", text: str = "clip", seed: int = 0, **fields) -> DcpForSequenceClassification:
    """A model whose prompts are large enough to matter."""
    torch.manual_seed(seed)
    model = DcpForSequenceClassification(tiny_dcp_config(vision, text, num_labels=3, **fields))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "prompt" in name or name.startswith("classifier"):
                parameter.normal_(std=0.3)
    return model.eval()


# ---- known values -----------------------------------------------------------------------------------------------------


def test_the_chain_equals_a_handwritten_one():
    torch.manual_seed(0)
    config = tiny_dcp_config(prompt_length=6, prompt_depth=3)
    learner = DcpPromptLearner(config)
    for parameter in learner.parameters():
        nn.init.normal_(parameter, std=0.5)
    blocks = learner()
    for kind, (vision_row, text_row) in enumerate([(0, 0), (0, 1), (1, 0)]):  # complete, text absent, image absent
        vision, text = learner.vision_prompts[vision_row], learner.text_prompts[text_row]
        for step in range(3):
            both = torch.cat([vision, text], dim=1)
            new = {}
            for name in ("vision", "text"):
                generator = getattr(learner, f"{name}_generators")[step]
                normed = nn.functional.layer_norm(both, both.shape[1:], generator.norm.weight, generator.norm.bias)
                down, up = generator.bottleneck.down, generator.bottleneck.up
                new[name] = nn.functional.gelu(normed @ down.weight.T + down.bias) @ up.weight.T + up.bias
                torch.testing.assert_close(blocks[name][step][kind, :2], new[name])
            vision, text = new["vision"], new["text"]
        for name in ("vision", "text"):
            project = getattr(learner, f"common_to_{name}")
            torch.testing.assert_close(blocks[name][0][kind, 2:], project(learner.common_prompts[kind]))
    assert [each.shape[1] for each in blocks["text"]] == [4, 2, 2]


@pytest.mark.parametrize("fields", [{}, {"dynamic_generator": "attention_mlp"}])
def test_dynamic_prompts_equal_plain_attention(fields):
    torch.manual_seed(0)
    dynamic = DcpDynamicPrompts(tiny_dcp_config(**fields), 24)
    for parameter in dynamic.parameters():
        nn.init.normal_(parameter, std=0.3)
    tokens, types = torch.randn(3, 7, 24), torch.tensor([2, 0, 1])
    query = dynamic.q_proj(dynamic.queries)[types]
    keys = tokens @ dynamic.k_proj.weight.T + torch.randn(24)  # any bias of the keys gives the same
    weights = (query @ keys.transpose(1, 2) / 24**0.5).softmax(-1)
    expected = dynamic.out_proj(weights @ dynamic.v_proj(tokens))
    expected = expected if dynamic.refine is None else dynamic.refine(expected)
    torch.testing.assert_close(dynamic(tokens, types), expected, atol=1e-5, rtol=1e-5)
    mask = torch.tensor([[1] * 4 + [0] * 3]).expand(3, -1)
    torch.testing.assert_close(dynamic(tokens, types, mask), dynamic(tokens[:, :4], types), atol=1e-6, rtol=0)


def test_without_prompts_the_towers_are_the_stock_ones():
    """`prompt_type="none"` is transformers' own model with an absent modality's feature set to 0."""
    torch.manual_seed(0)
    clip = CLIPModel(CLIPConfig(vision_config=tiny_vision_config("clip"), text_config=tiny_text_config("clip"),
                                projection_dim=20)).eval()  # fmt: skip
    config = DcpConfig(
        vision_config=clip.config.vision_config, text_config=clip.config.text_config, prompt_type="none"
    )
    model = DcpModel(config).eval()
    model.load_state_dict({name: each for name, each in clip.state_dict().items() if name != "logit_scale"})
    inputs = inputs_for(missing=MIXED)
    output = model(**inputs)
    vision = clip.get_image_features(inputs["pixel_values"]).pooler_output
    text = clip.get_text_features(inputs["input_ids"], inputs["attention_mask"]).pooler_output
    missing = inputs["missing_type"][:, None]
    expected = torch.cat([vision * (missing != 2), text * (missing != 1)], dim=1)
    torch.testing.assert_close(output.pooler_output, expected, atol=2e-6, rtol=0)


def test_siglip_without_prompts_is_the_stock_one():
    torch.manual_seed(0)
    siglip = SiglipModel(
        SiglipConfig(vision_config=tiny_vision_config("siglip"), text_config=tiny_text_config("siglip"))
    ).eval()
    config = DcpConfig(vision_config=siglip.config, text_config=siglip.config, prompt_type="none")
    model = DcpModel(config).eval()
    assert config.feature_sizes == {"vision": 32, "text": 18}
    model.load_state_dict({k: v for k, v in siglip.state_dict().items() if not k.startswith("logit_")})
    inputs = inputs_for()
    text = siglip.text_model(inputs["input_ids"]).pooler_output
    vision = siglip.vision_model(inputs["pixel_values"]).pooler_output
    torch.testing.assert_close(model(**inputs).pooler_output, torch.cat([vision, text], 1), atol=2e-6, rtol=0)


def test_parameter_counts_at_the_paper_size():
    """The specification's counts, less the keys' bias of the two attentions, plus the queries that we train."""
    with torch.device("meta"):
        model = DcpForSequenceClassification(
            DcpConfig(vision_config={"model_type": "clip_vision_model", "patch_size": 16},
                      text_config={"model_type": "clip_text_model", "vocab_size": 49408}, num_labels=23)
        )  # fmt: skip
    counts = {name: each.numel() for name, each in model.named_parameters() if each.requires_grad}
    official = 5_839_127 - (768 + 512)
    assert sum(counts.values()) == official + 3 * 12 * (768 + 512)
    model.config.dynamic_queries = "fixed"
    model.freeze_parts()
    assert sum(each.numel() for each in model.parameters() if each.requires_grad) == official


def test_generators_start_alike_at_every_depth():
    model = DcpForSequenceClassification(tiny_dcp_config(prompt_depth=2))
    first, second = model.dcp.prompt_learner.text_generators
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values()))
    assert model.dcp.prompt_learner.vision_prompts.std().item() == pytest.approx(0.02, rel=0.3)
    assert not model.classifier.bias.any() and model.classifier.weight.std().item() == pytest.approx(0.02, rel=0.3)


# ---- missing modalities -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("vision", "text"), PAIRS)
@pytest.mark.parametrize("missing", [None, [0] * 6, [1] * 6, [2] * 6, MIXED, [1, 1, 1, 2, 2, 2], [0, 1, 1, 1, 1, 1]])
def test_skipping_equals_the_dense_path(vision, text, missing):
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    model = lively_model(vision, text).train()
    found = []
    for skip in (True, False):
        model.config.skip_absent_towers = skip
        model.zero_grad()
        outputs = model(**inputs_for(missing=missing), labels=labels)
        outputs.loss.backward()
        found.append((outputs, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}))
    (sparse, sparse_gradients), (dense, dense_gradients) = found
    torch.testing.assert_close(sparse.logits, dense.logits, atol=5e-6, rtol=0)
    torch.testing.assert_close(sparse.loss, dense.loss, atol=5e-6, rtol=0)
    for name, gradient in dense_gradients.items():
        assert gradient is not None and sparse_gradients[name] is not None, name
        torch.testing.assert_close(sparse_gradients[name], gradient, atol=5e-6, rtol=1e-4, msg=name)


def test_towers_are_not_run_on_absent_modalities():
    model = lively_model()
    seen = {}
    for name, tower in model.dcp.towers().items():
        tower.encoder.layers[0].register_forward_hook(
            lambda _, args, out, name=name: seen.setdefault(name, []).append(tuple(args[0].shape[:2]))
        )
    model(**inputs_for(missing=[0, 1, 1, 1, 2, 0]))
    assert seen["vision_model"] == [(5, 6 + 17)]
    assert seen["text_model"] == [(3, 6 + 9)]  # sample 5 ends at the last position
    seen.clear()
    inputs = inputs_for(missing=[0, 1, 1, 1, 1, 2])
    inputs["input_ids"][5] = torch.tensor([2, 7, 3, 0, 0, 0, 0, 0, 0])
    model(**inputs)
    assert seen["text_model"] == [(2, 6 + 4)]  # and not beyond the last end of text
    seen.clear()
    with torch.no_grad():
        model(**inputs_for(missing=[2] * 6))
    assert list(seen) == ["text_model"]


@pytest.mark.parametrize(("vision", "text"), PAIRS)
def test_batches_and_fillers_have_no_influence(vision, text):
    model, inputs = lively_model(vision, text), inputs_for(missing=MIXED)
    with torch.no_grad():
        expected = model(**inputs).logits
        order = torch.tensor([4, 2, 0, 5, 1, 3])
        permuted = model(**{name: each[order] for name, each in inputs.items()}).logits
        torch.testing.assert_close(permuted, expected[order], atol=5e-6, rtol=0)
        alone = [model(**{name: each[i : i + 1] for name, each in inputs.items()}).logits for i in range(6)]
        torch.testing.assert_close(torch.cat(alone), expected, atol=5e-6, rtol=0)
        other = {name: each.clone() for name, each in inputs.items()}
        other["pixel_values"][inputs["missing_type"] == 2] = torch.nan
        other["input_ids"][inputs["missing_type"] == 1] = 17
        for skip in (True, False):
            model.config.skip_absent_towers = skip
            torch.testing.assert_close(model(**other).logits, expected, atol=5e-6, rtol=0)


def test_the_type_decides_the_prompts():
    """The same picture alone differs from the picture with a text only through the prompts and the text's zeros."""
    model, inputs = lively_model(), inputs_for()
    complete = model.dcp(**inputs, missing_type=torch.zeros(6, dtype=torch.long))
    alone = model.dcp(**inputs, missing_type=torch.ones(6, dtype=torch.long))
    assert not alone.text_feature.any() and complete.text_feature.any()
    assert (complete.vision_feature - alone.vision_feature).abs().max() > 1e-2
    without = lively_model(prompt_type="none")
    same = [without.dcp(**inputs, missing_type=torch.full((6,), kind)).vision_feature for kind in (0, 1)]
    assert torch.equal(*same)


def test_a_sample_without_anything_is_refused():
    with pytest.raises(ValueError, match="Sample 1 has neither an image nor a text"):
        lively_model()(input_ids=inputs_for(2)["input_ids"], missing_type=torch.tensor([2, 1]))


# ---- switches ---------------------------------------------------------------------------------------------------------


SWITCHES = [
    {"prompt_type": "independent"}, {"prompt_type": "none"}, {"use_correlated_prompts": False},
    {"use_common_prompts": False}, {"use_dynamic_prompts": False}, {"correlated_norm": "post"},
    {"generate_first_prompt": False}, {"correlated_bimodal": False}, {"prompt_sharing": "per_type"},
    {"dynamic_generator": "attention_mlp"}, {"dynamic_attends_padding": False}, {"prompt_depth": 1},
    {"prompt_depth": 5}, {"use_correlated_prompts": False, "use_common_prompts": False},
    {"prompt_type": "independent", "use_common_prompts": False, "use_dynamic_prompts": False,
     "prompt_sharing": "per_type"},
]  # fmt: skip


@pytest.mark.parametrize("fields", SWITCHES, ids=lambda fields: "-".join(map(str, fields.values())))
def test_every_switch_changes_the_result_and_trains(fields):
    inputs, labels = inputs_for(missing=MIXED), torch.tensor([0, 1, 2, 0, 1, 2])
    model = lively_model(**fields)
    plain = lively_model()
    lengths = []
    model.dcp.text_model.encoder.layers[1].register_forward_hook(lambda _, args, out: lengths.append(args[0].shape[1]))
    outputs = model.train()(**inputs, labels=labels)
    assert (outputs.logits - plain(**inputs).logits).abs().max() > 1e-4
    assert lengths == [model.config.num_prompts + 8]  # the texts that are present end at position 7
    outputs.loss.backward()
    deep = [f"_generators.{step}." for step in range(2, model.config.prompt_depth)]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not any(each in name for each in deep):
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_dynamic_queries_are_saved_and_trained_or_fixed(tmp_path):
    for choice, trained in (("trainable", True), ("fixed", False)):
        model = lively_model(dynamic_queries=choice)
        name = "dcp.dynamic_prompts.text.queries"
        assert dict(model.named_parameters())[name].requires_grad is trained
        model.save_pretrained(tmp_path / choice)
        assert name in load_file(tmp_path / choice / "model.safetensors")
        loaded = DcpForSequenceClassification.from_pretrained(tmp_path / choice)
        assert dict(loaded.named_parameters())[name].requires_grad is trained
        assert torch.equal(loaded(**inputs_for()).logits, model(**inputs_for()).logits)


def test_what_trains():
    def trained(**fields) -> set[str]:
        model = lively_model(**fields)
        return {name for name, each in model.named_parameters() if each.requires_grad and "_prompts" not in name}

    head = {"classifier.weight", "classifier.bias"}
    norms = {
        f"dcp.{name}.{leaf}" for name in ("vision_model.post_layernorm", "text_model.final_layer_norm")
        for leaf in ("weight", "bias")
    }  # fmt: skip
    projections = {"dcp.visual_projection.weight"}
    learner = {name for name in trained() if "prompt_learner" in name}
    assert trained() == head | norms | projections | learner
    assert trained(train_final_norms=False) == head | projections | learner
    assert trained(train_visual_projection=False) == head | norms | learner
    assert trained(train_text_projection=True) == head | norms | projections | learner | {"dcp.text_projection.weight"}
    everything = DcpForSequenceClassification(tiny_dcp_config("clip", "clip", freeze_backbone=False))
    assert all(each.requires_grad for each in everything.parameters())


# ---- dual encoders as backbones ---------------------------------------------------------------------------------------


@pytest.fixture
def clip_folder(tmp_path):
    torch.manual_seed(1)
    config = CLIPConfig(
        vision_config=tiny_vision_config("clip"), text_config=tiny_text_config("clip"), projection_dim=20
    )
    CLIPModel(config).save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


def test_from_a_dual_encoder(clip_folder, tmp_path):
    clip = CLIPModel.from_pretrained(clip_folder).state_dict()
    model = DcpForSequenceClassification.from_backbones(clip_folder, num_labels=3, prompt_length=6, prompt_depth=2)
    ours = model.dcp.state_dict()
    for name, tensor in clip.items():
        if name != "logit_scale":
            assert torch.equal(ours[name], tensor), name
    with torch.no_grad():  # stands for training
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    model.config.weights_scope = "trainable"
    model.save_pretrained(tmp_path / "slim")
    names = set(load_file(tmp_path / "slim" / "model.safetensors"))
    assert "dcp.vision_model.post_layernorm.weight" in names and "dcp.text_projection.weight" in names
    assert not any(".encoder." in name or ".embeddings." in name for name in names)
    loaded = DcpForSequenceClassification.from_pretrained(tmp_path / "slim")
    inputs = inputs_for(missing=MIXED)
    torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits, atol=1e-6, rtol=0)
    assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values()))


def test_from_a_siglip(tmp_path):
    config = SiglipConfig(vision_config=tiny_vision_config("siglip"), text_config=tiny_text_config("siglip"))
    SiglipModel(config).save_pretrained(tmp_path)
    model = DcpForSequenceClassification.from_backbones(tmp_path, num_labels=2, prompt_length=3, prompt_depth=1)
    assert model.classifier.in_features == 32 + 18
    assert model(**inputs_for(missing=MIXED)).logits.shape == (6, 2)


def test_a_tower_without_its_projection_is_refused(clip_folder, tmp_path):
    CLIPModel.from_pretrained(clip_folder).vision_model.save_pretrained(tmp_path / "vision")
    with pytest.raises(ValueError, match="has no visual_projection; give the whole CLIP model"):
        DcpForSequenceClassification.from_backbones(tmp_path / "vision", clip_folder)


# ---- converter --------------------------------------------------------------------------------------------------------


def official_state(model: DcpForSequenceClassification) -> dict[str, torch.Tensor]:
    """Official names for a model, by asking the converter where each number goes."""
    config = model.config
    vision, text = config.widths["vision"], config.widths["text"]
    state, length = {}, config.length_per_kind
    learner = "model.prompt_learner."
    for part in ("complete", "missing"):
        state[f"{learner}visual_prompt_{part}"] = torch.randn(length, vision)
        state[f"{learner}text_prompt_{part}"] = torch.randn(length, text)
    for part in ("complete", "image", "text"):
        state[f"{learner}common_prompt_{part}"] = torch.randn(length, text)
    small = config.text_config.hidden_size // config.reduction_factor
    both = (vision + text) // config.reduction_factor
    for word, width in (("image", vision), ("text", text)):
        state |= _linear(f"{learner}common_prompt_projection_{word}.0", text, small)
        state |= _linear(f"{learner}common_prompt_projection_{word}.2", small, width)
        for step in range(config.prompt_depth):
            state |= _linear(f"{learner}compound_prompt_projections_{word}.{step}.0", vision + text, both)
            state |= _linear(f"{learner}compound_prompt_projections_{word}.{step}.2", both, width)
            state |= _norm(f"{learner}layernorm_{word}.{step}", vision + text)
    for word, tower in (("image", config.vision_config), ("text", config.text_config)):
        width, inner = tower.hidden_size, tower.intermediate_size
        for block in range(tower.num_hidden_layers):
            base = f"model.{word}_encoder.transformer.resblocks.{block}."
            attentions = ["attn", "attn_prompt"] if block == 0 else ["attn"]
            for attention in attentions:
                state[f"{base}{attention}.in_proj_weight"] = torch.randn(3 * width, width) / width
                state[f"{base}{attention}.in_proj_bias"] = torch.randn(3 * width)
                state |= _linear(f"{base}{attention}.out_proj", width, width)
            state |= _norm(f"{base}ln_1", width) | _norm(f"{base}ln_2", width)
            state |= _linear(f"{base}mlp.c_fc", width, inner) | _linear(f"{base}mlp.c_proj", inner, width)
    patch, side = config.vision_config.patch_size, config.vision_config.image_size
    image, words = "model.image_encoder.", "model.text_encoder."
    state |= {
        f"{image}conv1.weight": torch.randn(vision, 3, patch, patch),
        f"{image}class_embedding": torch.randn(vision),
        f"{image}positional_embedding": torch.randn((side // patch) ** 2 + 1, vision),
        f"{image}proj": torch.randn(vision, 20),
        f"{words}token_embedding.weight": torch.randn(config.text_config.vocab_size, text),
        f"{words}positional_embedding": torch.randn(config.text_config.max_position_embeddings, text),
        f"{words}text_projection": torch.randn(text, 20),
        "model.logit_scale": torch.tensor(1.0),
    }
    state |= _norm(f"{image}ln_pre", vision) | _norm(f"{image}ln_post", vision) | _norm(f"{words}ln_final", text)
    return state | _linear("mmimdb_classifier", 40, 3)


def _linear(name: str, width: int, out: int) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": torch.randn(out, width), f"{name}.bias": torch.randn(out)}


def _norm(name: str, width: int) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": torch.randn(width), f"{name}.bias": torch.randn(width)}


def test_converting_a_lightning_file(tmp_path):
    """Towers of width 64 and 128, as official head counts are a 64th of the width; the queries are drawn again."""
    tower = {"hidden_size": 64, "num_attention_heads": 1, "intermediate_size": 32, "projection_dim": 20}
    vision = {**tiny_vision_config("clip"), **tower, "hidden_size": 128, "num_attention_heads": 2}
    config = DcpConfig(
        vision_config=vision, text_config={**tiny_text_config("clip"), **tower}, prompt_length=6, prompt_depth=2
    )
    state = official_state(DcpForSequenceClassification(config))
    torch.save({"state_dict": state, "hyper_parameters": {"config": {"seed": 4, "vit": "x"}}}, tmp_path / "run.ckpt")
    with pytest.warns(UserWarning, match="drawn again from seed 4"):
        report = convert_dcp.convert_checkpoint(tmp_path / "run.ckpt", tmp_path / "ours", official=True)
    assert not report["missing"]
    model = DcpForSequenceClassification.from_pretrained(tmp_path / "ours")
    assert model.config.problem_type == "multi_label_classification" and model.config.dynamic_queries == "fixed"
    assert model.config.vision_config.num_attention_heads == 2
    queries = model.dcp.dynamic_prompts["vision"].queries
    assert queries.std().item() == pytest.approx(0.02, rel=0.3)
    drawn = convert_dcp.official_queries(model.config, 4)
    again = drawn["model.image_encoder.transformer.resblocks.0.prompts_dynamic_image"].squeeze(1)
    assert torch.equal(queries[1], again)
    assert not torch.equal(again, convert_dcp.official_queries(model.config, 5)[next(iter(drawn))].squeeze(1))
    assert torch.equal(model.dcp.visual_projection.weight, state["model.image_encoder.proj"].T)


def test_foreign_files_are_refused():
    with pytest.raises(ValueError, match=r"no state dict of the official DCP code: it lacks model\.image_encoder"):
        convert_dcp.convert_config({}, {"a": torch.zeros(1)})


# ---- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt_length": 10}, "prompt_length=10 must be a positive multiple of 3.*nearest allowed is 9"),
        ({"prompt_depth": 0}, "prompt_depth=0 must be at least 1"),
        ({"reduction_factor": 0}, "reduction_factor=0"),
        ({"prompt_type": "deep"}, "prompt_type='deep' is not allowed; choose one of dcp, independent, none"),
        ({"correlated_norm": "mid"}, "correlated_norm='mid'"),
        ({"dynamic_queries": "none"}, "dynamic_queries='none'"),
        ({"prompt_initializer_range": -1.0}, "must not be negative"),
        (
            {"use_correlated_prompts": False, "use_common_prompts": False, "use_dynamic_prompts": False},
            'has no prompts; use prompt_type="none"',
        ),
        ({"prompt_lenght": 6}, "has no field 'prompt_lenght'; did you mean 'prompt_length'"),
        ({"vision_config": {"model_type": "swin"}}, "vision_config has model_type='swin'.*use a tower of type clip"),
    ],
)
def test_contradictions_are_refused(fields, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        DcpConfig(**{"vision_config": tiny_vision_config("clip"), "text_config": tiny_text_config("clip"), **fields})


def test_padding_is_read_where_the_tower_reads_it():
    expected = {"clip": True, "siglip": True, "bert": False, "roberta": False}
    assert {text: tiny_dcp_config("vit", text).dynamic_attends_padding for text in expected} == expected
    model, inputs = lively_model(), inputs_for()
    other = copy.deepcopy(inputs)
    other["input_ids"][inputs["attention_mask"] == 0] = 3
    assert (model(**inputs).logits - model(**other).logits).abs().max() > 1e-4
    model = lively_model(dynamic_attends_padding=False)
    torch.testing.assert_close(model(**inputs).logits, model(**other).logits, atol=2e-6, rtol=0)
