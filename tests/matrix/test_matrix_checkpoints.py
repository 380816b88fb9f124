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
"""What every method owes its user on disk: what is saved comes back bit for bit, and slim files stay honest."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures_tiny import tiny_text_config, tiny_vision_config
from rows import Row
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoProcessor

import fusionzoo


def logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    assert not model.training
    with torch.no_grad():
        return model(**inputs).logits


def model_class(row: Row) -> Any:
    return getattr(fusionzoo, row.model_class)


def disturb(model: Any) -> Any:
    """Stands for training: moves every trainable parameter and the statistics."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.uniform_(0.5, 2)
    return model


def test_save_and_load(row: Row, tmp_path: Path):
    model, inputs = disturb(row.model()), row.inputs(missing=[0, 1, 2, 0])
    model.save_pretrained(tmp_path)
    loaded, info = model_class(row).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(logits(loaded, inputs), logits(model, inputs))
    state = loaded.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert set(load_file(tmp_path / "model.safetensors")) == set(state)  # plain names, as Trainer's resume needs
    trainable = {name: each.requires_grad for name, each in model.named_parameters()}
    assert trainable == {name: each.requires_grad for name, each in loaded.named_parameters()}


def test_auto_classes(row: Row, tmp_path: Path):
    model, inputs = row.model(), row.inputs()
    model.save_pretrained(tmp_path)
    row.make_processor().save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is type(model.config)
    assert torch.equal(
        logits(AutoModelForSequenceClassification.from_pretrained(tmp_path), inputs), logits(model, inputs)
    )
    base = AutoModel.from_pretrained(tmp_path)
    assert type(base) is type(model.base_model)
    expected = model.base_model(**inputs).pooler_output
    assert torch.equal(base(**inputs).pooler_output, expected)
    assert type(AutoProcessor.from_pretrained(tmp_path)) is type(row.make_processor())


def test_a_classifier_from_a_base_model(row: Row, tmp_path: Path):
    model = row.model()
    model.base_model.save_pretrained(tmp_path)
    loaded, info = model_class(row).from_pretrained(tmp_path, output_loading_info=True, num_labels=5)
    assert info["missing_keys"] and all("classifier" in name for name in info["missing_keys"])
    inputs = row.inputs()
    assert torch.equal(loaded.base_model(**inputs).pooler_output, model.base_model(**inputs).pooler_output)
    assert logits(loaded, inputs).shape == (4, 5)


def test_processor_round_trip(row: Row, tmp_path: Path):
    processor = row.make_processor()
    processor.save_pretrained(tmp_path)
    loaded = type(processor).from_pretrained(tmp_path)
    images, texts = row.rows(3)
    arguments = {"images": [images[0], None, images[2]], "text": [texts[0], texts[1], None], "return_tensors": "pt"}
    before, after = processor(**arguments), loaded(**arguments)
    assert set(before) == set(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_device_map_and_dtype(row: Row, tmp_path: Path):
    model, inputs = row.model(), row.inputs()
    model.save_pretrained(tmp_path)
    loaded = model_class(row).from_pretrained(tmp_path, device_map="cpu")
    assert torch.equal(logits(loaded, inputs), logits(model, inputs))
    half = model_class(row).from_pretrained(tmp_path, dtype=torch.bfloat16, attn_implementation="eager")
    assert {each.dtype for each in half.parameters()} == {torch.bfloat16}
    assert all(tower.config._attn_implementation == "eager" for tower in half.towers().values())


# ---- slim checkpoints -------------------------------------------------------------------------------------------------


@pytest.fixture
def slim(row: Row, tower_folders: Any, tmp_path: Path) -> Any:
    """A model on copies of the towers, trained a little, saved without them: `(model, its folder, tower folders)`."""
    towers = {part: str(shutil.copytree(folder, tmp_path / part)) for part, folder in tower_folders(row).items()}
    model = disturb(model_class(row).from_backbones(**towers, **row.fields, weights_scope="trainable"))
    model.save_pretrained(tmp_path / "slim")
    return model, tmp_path / "slim", towers


def test_from_backbones_holds_the_towers(row: Row, tower_folders: Any):
    towers = tower_folders(row)
    model = model_class(row).from_backbones(**towers, **row.fields)
    assert not model.training
    assert set(model.config.frozen_parts) == {f"{part}_model" for part in towers}
    for part, folder in towers.items():
        expected = AutoModel.from_pretrained(folder).state_dict()
        ours = model.towers()[f"{part}_model"].state_dict()
        assert ours and all(torch.equal(tensor, expected[name]) for name, tensor in ours.items())


def test_slim_save_and_load(row: Row, slim: Any):
    model, folder, _ = slim
    names = set(load_file(folder / "model.safetensors"))
    everything = set(model.state_dict())
    assert names == {name for name in everything if row.is_trained(name)}
    size = sum(each.numel() * 4 for name, each in model.state_dict().items() if name in names)
    assert (folder / "model.safetensors").stat().st_size < size + 150 * len(names)
    inputs = row.inputs(missing=[0, 1, 2, 0])
    expected = logits(model, inputs)
    for load in (model_class(row), AutoModelForSequenceClassification):
        loaded, info = load.from_pretrained(folder, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        assert torch.equal(logits(loaded, inputs), expected)
    loaded.save_pretrained(folder.parent / "again")  # a slim file stays slim
    again = load_file(folder.parent / "again" / "model.safetensors")
    assert set(again) == names
    loaded.config.weights_scope = "full"
    loaded.save_pretrained(folder.parent / "full")
    assert set(load_file(folder.parent / "full" / "model.safetensors")) == everything
    assert torch.equal(logits(model_class(row).from_pretrained(folder.parent / "full"), inputs), expected)


def test_slim_options(row: Row, slim: Any):
    model, folder, _ = slim
    half = model_class(row).from_pretrained(
        folder, dtype=torch.bfloat16, attn_implementation="eager", device_map="cpu"
    )
    assert {each.dtype for each in half.parameters()} == {torch.bfloat16}
    assert all(tower.config._attn_implementation == "eager" for tower in half.towers().values())
    name, value = row.some_option
    other = model_class(row).from_pretrained(folder, **{name: value})
    assert getattr(other.config, name) == value
    assert torch.equal(logits(other, row.inputs()), logits(model, row.inputs()))
    base = AutoModel.from_pretrained(folder)
    assert torch.equal(base(**row.inputs()).pooler_output, model.base_model(**row.inputs()).pooler_output)


def test_a_changed_tower_is_refused(row: Row, slim: Any):
    _, folder, towers = slim
    file = next(iter(towers.values())) + "/model.safetensors"
    weights = load_file(file)
    name = next(name for name in sorted(weights) if weights[name].dim() == 2 and "pooler" not in name)
    weights[name][0, 0] += 1e-3
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"are not those that .* was trained on; restore them, or load"):
        model_class(row).from_pretrained(folder)


def test_towers_of_unknown_origin_are_refused(row: Row, slim: Any):
    model, folder, _ = slim
    config = json.loads((folder / "config.json").read_text())
    config["frozen_parts"].popitem()
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"leaves out its .*_model, and its config does not say where"):
        model_class(row).from_pretrained(folder)
    model.config.frozen_parts = None
    with pytest.raises(ValueError, match=r"frozen_parts does not say .*; build the model with from_backbones, or use"):
        model.save_pretrained(folder.parent / "refused")
    assert not (folder.parent / "refused").exists()


def test_a_trained_tower_is_not_left_out(row: Row, slim: Any):
    model, folder, _ = slim
    next(iter(model.towers().values())).requires_grad_(True)
    with pytest.raises(
        ValueError, match=r"would leave out .*_model, which you have made trainable; use weights_scope"
    ):
        model.save_pretrained(folder.parent / "refused")


def test_a_missing_tower_is_refused(row: Row, tower_folders: Any):
    towers = tower_folders(row)
    for part in towers:
        with pytest.raises(
            ValueError, match=rf"has a {part} tower, but from_backbones got {part}=None; give a Hub id"
        ):
            model_class(row).from_backbones(**{**towers, part: None}, **row.fields, **_config_of(row, part))


def _config_of(row: Row, part: str) -> dict[str, Any]:
    """The tower's sub-config: a tower that is named nowhere would be one of the default (large) size."""
    kind = row.towers[("vision", "text").index(part)]
    return {f"{part}_config": tiny_vision_config(kind) if part == "vision" else tiny_text_config(kind)}
