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
import pytest
import yaml

from fusionzoo.auto import get_method
from fusionzoo.training.data.registry import get_dataset_spec
from fusionzoo.training.metrics.compute_metrics import build_compute_metrics
from fusionzoo.training.recipe_files import (
    RECIPES_DIR,
    RecipeError,
    build_arguments,
    list_recipes,
    load_recipe,
    resolve_recipe,
    write_recipe,
)


SHIPPED = [
    "dcp/food101", "dcp/hateful_memes", "dcp/mmimdb", "mmp/food101", "mmp/hateful_memes", "mmp/mmimdb",
    "mope/demo_food", "mope/demo_imdb", "mope/demo_memes", "mope/food101", "mope/hateful_memes", "mope/mmimdb",
]  # fmt: skip

BASE = """\
method: mope
model: {vision: v, text: t, fuse_method: mope}
data: {name: 'demo:food'}
training: {learning_rate: 4e-4, num_train_epochs: 2, eval_strategy: no}
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(BASE, encoding="utf-8")
    return path


def written(tmp_path, text):
    path = tmp_path / "other.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_sweep_is_complete():
    assert list_recipes() == SHIPPED
    assert len(list(RECIPES_DIR.rglob("*.y*ml"))) == len(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_loads(name):
    model, data, training = load_recipe(name)
    assert model.method == name.split("/")[0]
    spec = get_dataset_spec(data.name)
    build_compute_metrics(spec)
    assert training.output_dir == f"runs/{model.method}-{data.name.replace(':', '-')}"
    assert training.load_best_model_at_end == (training.eval_strategy.value != "no")
    text = (RECIPES_DIR / f"{name}.yaml").read_text(encoding="utf-8")
    assert f"fusionzoo train {name}" in text


def test_the_official_numbers():
    model, data, training = load_recipe("mope/mmimdb")
    assert model.config["num_experts"] == 4
    assert model.config["prompt_length"] == 6
    assert (data.randaugment_num_ops, data.randaugment_magnitude) == (2, 7)
    assert training.per_device_train_batch_size == 16
    assert (training.vision_learning_rate, training.text_learning_rate) == (4e-4, 5e-4)
    assert (training.weight_decay, training.decay_all_parameters) == (1e-3, True)
    assert (training.lr_milestones, training.lr_gamma) == ([3.0, 6.0], 0.4)
    assert load_recipe("mope/food101")[2].per_device_train_batch_size == 38


@pytest.mark.parametrize("method", ["dcp", "mmp"])
@pytest.mark.parametrize("dataset", ["mmimdb", "food101", "hateful_memes"])
def test_the_numbers_of_missing_modality_work(method, dataset):
    model, data, training = load_recipe(f"{method}/{dataset}")
    assert model.vision == model.text
    effective = training.per_device_train_batch_size * training.gradient_accumulation_steps
    assert (effective, training.num_train_epochs, training.learning_rate) == (256, 20, 1e-2)
    assert (training.adam_beta2, training.weight_decay, training.max_grad_norm) == (0.98, 0.02, 0)
    assert training.decay_norm_weights and training.schedule_rules == "dcp_official"
    assert (data.missing_rate, data.missing_eval_rate, data.missing_kind, data.missing_table) == (
        0.7, 0.7, "both", "official",
    )  # fmt: skip
    assert (data.metric_rules == "dcp_official") == (dataset == "mmimdb")
    assert training.eval_steps == training.save_steps == (0.0055 if dataset == "hateful_memes" else 0.01)
    config = get_method(method).config_class(**model.config)  # every field exists and fits
    assert config.prompt_length == {"dcp": 36, "mmp": 16}[method]


def test_values_are_yaml_1_2(recipe):
    _, _, training = load_recipe(recipe)
    assert training.learning_rate == 4e-4
    assert training.eval_strategy.value == "no"
    assert training.num_train_epochs == 2.0


def test_overrides(recipe):
    words = [
        "--learning_rate",
        "1e-4",
        "--model.fuse_method=late_concat",
        "--name",
        "demo:imdb",
        "--load_best_model_at_end",
    ]
    words += ["--eval-strategy", "epoch", "--save_strategy", "epoch", "--lr_milestones", "3", "6", "--max_steps", "-1"]
    words += ["--lr_scheduler_type", "constant", "--data.options.sizes.train", "40", "--prompt_length", "2"]
    model, data, training = load_recipe(recipe, words)
    assert training.learning_rate == 1e-4
    assert model.config == {"fuse_method": "late_concat", "prompt_length": 2}
    assert data.name == "demo:imdb"
    assert data.options == {"sizes": {"train": 40}}
    assert training.load_best_model_at_end is True
    assert training.eval_strategy.value == "epoch"
    assert training.lr_milestones == [3.0, 6.0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--learning_rat", "1"], r"'learning_rat' .*Did you mean --training.learning_rate"),
        (["--model.fuse_metod", "mope"], r"'fuse_metod' in section 'model'.*Did you mean fuse_method.*num_experts"),
        (["--data.nam", "x"], r"'nam' in section 'data'.*Did you mean name"),
        (["--training.sed", "1"], r"'sed' in section 'training'.*Did you mean seed"),
        (["--model.num_experts", "four"], r"model.num_experts must be int, got 'four'"),
        (["--model.num_labels", "3"], r"'num_labels' in section 'model'"),
        (["--bf16", "maybe"], r"training.bf16 must be bool, got 'maybe'"),
        (["--missing_rate", "1.5"], r"data.missing_rate must lie between 0 and 1, got 1.5"),
        (["--method", "mop"], r"Unknown method 'mop'"),
        (["learning_rate", "1"], r"Unexpected 'learning_rate'"),
        (["--data.name.x", "1"], r"data.name is 'demo:food', not a mapping"),
        (["--checkpoint", "folder"], r"either `checkpoint`, or `vision` and `text`"),
        (["--lr_scheduler_type", "linea"], r"linea"),
    ],
)
def test_mistakes_on_the_command_line(recipe, words, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(recipe, words)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("training: {", "training: {learning_rte: 1, "), r"other.yaml: unknown key 'learning_rte'.*learning_rate"),
        (("model: {", "model: {num_expert: 4, "), r"unknown key 'num_expert' in section 'model'.*num_experts"),
        (("data: {", "dat: {x: 1}\ndata: {"), r"'dat' in the recipe's top level.*Did you mean data"),
        (("method: mope\n", ""), r"`method` is missing"),
        (("name: 'demo:food'", ""), r"data section needs 'name'"),
        (("vision: v, ", ""), r"both `vision` and `text`"),
        (("learning_rate: 4e-4", "learning_rate: 4e-4, learning_rate: 1e-4"), r"'learning_rate' stands twice"),
        (("data: {name: 'demo:food'}", "data: [a]"), r"section 'data' must be a mapping"),
        (("{learning_rate: 4e-4", "{learning_rate: [1, 2]"), r"training.learning_rate must be float"),
        (("data: {", "data: {{"), r"other.yaml"),
    ],
)
def test_mistakes_in_the_file(tmp_path, change, message):
    assert change[0] in BASE
    with pytest.raises(RecipeError, match=message):
        load_recipe(written(tmp_path, BASE.replace(*change, 1)))


def test_a_value_that_is_not_yaml_is_a_word(recipe):
    assert load_recipe(recipe, ["--root", "{a"])[1].root == "{a"


def test_an_unknown_recipe_name():
    with pytest.raises(RecipeError, match=r"Did you mean mope/food101"):
        load_recipe("mope/food11")


def test_a_bare_key_that_two_sections_know_goes_to_training_first(recipe):
    assert load_recipe(recipe, ["--seed", "3"])[2].seed == 3


def test_written_recipes_read_back_equal(recipe, tmp_path):
    resolved = resolve_recipe(recipe, ["--data.train_split", "1e3x", "--run_name", "no", "--learning_rate", "1e-7"])
    write_recipe(resolved, tmp_path / "copy.yaml")
    assert resolve_recipe(tmp_path / "copy.yaml") == resolved
    assert yaml.safe_load((tmp_path / "copy.yaml").read_text(encoding="utf-8")) == resolved
    assert build_arguments(resolved)[2].run_name == "no"
