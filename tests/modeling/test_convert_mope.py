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
"""Official MoPE checkpoints, as its training script writes them, to folders for `from_pretrained`.

The official weights are those of the golden cases in this repository; here they are put into a Lightning checkpoint.
"""

import argparse
import collections
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, BertConfig, BertModel

from fusionzoo import MopeForSequenceClassification
from fusionzoo.modeling import convert_mope


CASE = Path(__file__).resolve().parents[1] / "golden" / "cases" / "mope" / "classifier_mope_multilabel"
# What the official training script deletes when it saves.
DROPPED = ("attention", "mlp", "attn", "downsample", "intermediate")
INPUTS = ("pixel_values", "input_ids", "attention_mask", "token_type_ids")


@pytest.fixture(scope="module")
def official():
    return json.loads((CASE / "config.json").read_text(encoding="utf-8")), load_file(CASE / "weights.safetensors")


@pytest.fixture(scope="module")
def inputs():
    return {name: tensor for name, tensor in load_file(CASE / "inputs.safetensors").items() if name in INPUTS}


@pytest.fixture(scope="module")
def expected(official):
    """The model with every official weight."""
    options, state = official
    return convert_mope.build_model(state, convert_mope.convert_config(options, state))[0]


@pytest.fixture(scope="module")
def towers(expected, tmp_path_factory):
    """The pretrained towers that the official training started from."""
    folder = tmp_path_factory.mktemp("towers")
    for name, tower in expected.towers().items():
        tower.save_pretrained(folder / name)
    return {"vision": str(folder / "vision_model"), "text": str(folder / "text_model")}


@pytest.fixture
def tower_of_another_size(tmp_path):
    config = BertConfig(vocab_size=60, hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=9)
    BertModel(config).save_pretrained(tmp_path / "other")
    return str(tmp_path / "other")


def lightning_checkpoint(path: Path, official, wrap: str = "plain", **changes) -> Path:
    """Writes what the official script writes: towers twice, attention and MLP weights dropped, schedulers, options.

    The options do not tell the towers' sizes; those come from the towers.
    """
    options, weights = official
    state = {}
    for name, tensor in weights.items():
        state[f"classifier.{name}"] = tensor
        owner, _, rest = name.partition("_model.")
        state[f"{owner}_classifier.{rest}"] = tensor
    state = {name: tensor for name, tensor in state.items() if not any(part in name for part in DROPPED)}
    kept = ("fuse_method", "use_vpt", "use_pbert", "train_instructor", "moe_n_experts", "prompt_length",
            "t_prompt_length", "d_cross", "d_inter", "w_imp")  # fmt: skip
    arguments = {**{name: options[name] for name in kept}, "dataset": "imdb", **changes}
    file = {
        "state_dict": state,
        "hyper_parameters": {
            "plain": arguments, "args": {"args": argparse.Namespace(**arguments)}, "namespace": argparse.Namespace(**arguments),
        }[wrap],
        "epoch": 9,
        "pytorch-lightning_version": "2.0.0",
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 4e-4}]}],
        "lr_schedulers": [{"milestones": collections.Counter({3: 1, 6: 1}), "gamma": 0.4}],
    }  # fmt: skip
    torch.save(file, path)
    return path


@pytest.mark.parametrize("wrap", ["plain", "args", "namespace"])
def test_a_lightning_checkpoint(wrap, official, expected, towers, inputs, tmp_path):
    checkpoint = lightning_checkpoint(tmp_path / "last.ckpt", official, wrap)
    report = convert_mope.convert_checkpoint(checkpoint, tmp_path / "out", **towers)
    assert report["missing"] == ["mope.absent_image", "mope.absent_text"]
    loaded, info = MopeForSequenceClassification.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert loaded.config.problem_type == "multi_label_classification" and loaded.config.num_labels == 6
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, expected(**inputs).logits)
        automatic = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
        assert torch.equal(automatic(**inputs).logits, expected(**inputs).logits)


def test_a_converted_model_may_become_slim(official, expected, towers, inputs, tmp_path):
    checkpoint = lightning_checkpoint(tmp_path / "last.ckpt", official)
    convert_mope.convert_checkpoint(checkpoint, tmp_path / "out", **towers)
    model = MopeForSequenceClassification.from_pretrained(tmp_path / "out")
    assert set(model.config.frozen_parts) == {"vision_model", "text_model"}
    model.config.weights_scope = "trainable"
    model.save_pretrained(tmp_path / "slim")
    slim = MopeForSequenceClassification.from_pretrained(tmp_path / "slim")
    with torch.no_grad():
        assert torch.equal(slim(**inputs).logits, expected(**inputs).logits)


def test_a_tower_that_differs_is_not_called_the_same(official, towers, tmp_path):
    options, weights = official
    name = "vision_model.encoder.norm.weight"
    changed = options, {**weights, name: weights[name] + 1}
    checkpoint = lightning_checkpoint(tmp_path / "last.ckpt", changed)
    convert_mope.convert_checkpoint(checkpoint, tmp_path / "out", **towers)
    model = MopeForSequenceClassification.from_pretrained(tmp_path / "out")
    assert torch.equal(model.mope.vision_model.layernorm.weight, weights[name] + 1)
    assert set(model.config.frozen_parts) == {"text_model"}


def test_official_behaviour_on_request(official, towers, inputs, tmp_path):
    checkpoint = lightning_checkpoint(tmp_path / "last.ckpt", official)
    convert_mope.main([str(checkpoint), str(tmp_path / "out"), "--official", *_flags(towers)])
    model = MopeForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.window_prompt_order == "official" and model.config.router_noise_in_eval
    assert not torch.equal(model(**inputs).logits, model(**inputs).logits)  # routing noise in eval mode
    outputs = load_file(CASE / "outputs.safetensors")
    given = load_file(CASE / "inputs.safetensors")
    noise = torch.stack([given[f"router_noise.{stage}.1"] for stage in range(4)], dim=1)
    logits = model(**inputs, router_noise=noise).logits.detach()
    torch.testing.assert_close(logits, outputs["logits"], atol=2e-5, rtol=1e-5)


def _flags(towers: dict[str, str]) -> list[str]:
    return [word for name, folder in towers.items() for word in (f"--{name}", folder)]


def test_what_is_not_used_is_reported(official):
    options, state = official
    _, report = convert_mope.build_model(state, convert_mope.convert_config(options, state))
    unused = set(report["unused"])
    assert {"text_model.heads.weight", "vision_model.encoder.head.weight", "text_model.prompt_vectors.0"} <= unused
    assert "vision_model.encoder.layers.0.blocks.0.mm_frozen_expert_key_embed" in unused
    assert "vision_model.classifier.weight" not in unused


# ---- refusals ---------------------------------------------------------------------------------------------------------


def test_missing_towers(official, towers, tmp_path):
    checkpoint = lightning_checkpoint(tmp_path / "last.ckpt", official)
    for given in ("vision", "text"):
        (other,) = {"vision", "text"} - {given}
        with pytest.raises(
            ValueError, match=rf"lacks the backbones' attention.*name the pretrained towers: --{other}\."
        ):
            convert_mope.convert_checkpoint(checkpoint, tmp_path / "out", **{given: towers[given]})
    assert not (tmp_path / "out").exists()


def test_other_towers(official, tower_of_another_size, towers, tmp_path):
    checkpoint = lightning_checkpoint(tmp_path / "last.ckpt", official)
    with pytest.raises(ValueError, match=r"does not fit its options and towers: .* has shape .* the model has"):
        convert_mope.convert_checkpoint(checkpoint, tmp_path / "out", towers["vision"], tower_of_another_size)


def test_a_fine_tuned_checkpoint(official, towers, tmp_path):
    checkpoint = lightning_checkpoint(tmp_path / "last.ckpt", official, finetune=True)
    with pytest.raises(ValueError, match=r"--finetune.*the trained towers are lost"):
        convert_mope.convert_checkpoint(checkpoint, tmp_path / "out", **towers)


def test_unknown_methods(official, towers, tmp_path):
    checkpoint = lightning_checkpoint(tmp_path / "last.ckpt", official, fuse_method="magic")
    with pytest.raises(ValueError, match=r"fuse_method='magic' is not an official one; known: ens, img_only"):
        convert_mope.convert_checkpoint(checkpoint, tmp_path / "out", **towers)


class _RunsCode:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("place", ["hyper_parameters", "state_dict", "callbacks"])
def test_a_malicious_checkpoint_runs_nothing(place, official, towers, tmp_path):
    checkpoint = lightning_checkpoint(tmp_path / "last.ckpt", official)
    file = torch.load(checkpoint, weights_only=False)
    file.setdefault(place, {})["x"] = _RunsCode(tmp_path / "proof")
    torch.save(file, checkpoint)
    with pytest.raises(ValueError, match="holds more than tensors and plain values; it is not loaded") as caught:
        convert_mope.convert_checkpoint(checkpoint, tmp_path / "out", **towers)
    assert "weights_only" not in str(caught.value).split("(")[0] and "False" not in str(caught.value)
    assert not (tmp_path / "proof").exists()
    torch.load(checkpoint, weights_only=False)
    assert (tmp_path / "proof").exists()  # it would have


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 not a zip"])
def test_damaged_files(content, tmp_path):
    checkpoint = tmp_path / "last.ckpt"
    checkpoint.write_bytes(content)
    with pytest.raises(ValueError, match=r"is not a PyTorch checkpoint, or is damaged|holds more than tensors"):
        convert_mope.convert_checkpoint(checkpoint, tmp_path / "out")


def test_other_files(tmp_path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match='not a Lightning checkpoint: it has no "state_dict"'):
        convert_mope.convert_checkpoint(tmp_path / "last.ckpt", tmp_path / "out")
    with pytest.raises(FileNotFoundError):
        convert_mope.convert_checkpoint(tmp_path / "nowhere.ckpt", tmp_path / "out")
