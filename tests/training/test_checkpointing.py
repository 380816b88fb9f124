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
import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
from process_helpers import kill_self, run_forked
from safetensors.torch import load_file
from training_fixtures import write_recipe_file

from fusionzoo.training.checkpointing import (
    CheckpointError,
    commit_checkpoint,
    find_valid_checkpoint,
    list_checkpoints,
    staging_dir,
    verify_checkpoint,
)
from fusionzoo.training.recipe_files import RecipeError
from fusionzoo.training.train import run_recipe


# Everything that draws random numbers is on, so that only an exact resume ends in the same weights.
NOISY = (
    "--model.prompt_dropout", "0.2", "--model.router_noise_std", "0.1", "--data.missing_rate", "0.5",
    "--data.missing_per_epoch", "--data.randaugment_num_ops", "1", "--lr_scheduler_type", "cosine",
    "--save_total_limit", "2", "--num_train_epochs", "2", "--save_steps", "2", "--eval_strategy", "epoch",
)  # fmt: skip


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A noisy toy run of 2 x 6 steps, with checkpoints at 2, 4, ..., 12."""
    return write_recipe_file(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def reference(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    assert train(recipe, folder) == 0
    return load_file(folder / "model.safetensors")


def train(recipe, folder, *overrides, kill=None):
    """Runs the recipe in a process of its own, after `kill()` has set its trap; returns its exit code."""

    def work():
        if kill is not None:
            kill()
        run_recipe(recipe, ["--output_dir", str(folder), *NOISY, *overrides])

    return run_forked(work)[0]


def at_call(owner, name, number, then=kill_self):
    """Makes the `number`-th call of `owner.name` call `then(*arguments)` first."""

    def install():
        original, calls = getattr(owner, name), [0]

        def counted(*arguments, **keywords):
            calls[0] += 1
            if calls[0] == number:
                then() if then is kill_self else then(*arguments, **keywords)
            return original(*arguments, **keywords)

        setattr(owner, name, counted)

    return install


def half_a_file(_, path, *arguments, **keywords):
    """What a process leaves that dies in the middle of writing."""
    Path(path).write_bytes(b"PK\x03\x04 half of it")
    kill_self()


def trainer_method(name, number):
    def install():
        from fusionzoo.training.trainer import FusionTrainer

        at_call(FusionTrainer, name, number)()

    return install


KILLS = {
    "in the first step": trainer_method("training_step", 1),
    "within the second epoch": trainer_method("training_step", 10),
    "before a checkpoint is written": trainer_method("_save_checkpoint", 3),
    "while optimizer.pt is written": at_call(torch, "save", 6, half_a_file),
    "while files are flushed": at_call(os, "fsync", 20),
    "before a rename": at_call(Path, "rename", 2),
    "while an old checkpoint is deleted": at_call(shutil, "rmtree", 9),
    "after the last checkpoint": trainer_method("save_model", 7),
}


@pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS.keys())
def test_killed_and_resumed_is_bit_equal(recipe, reference, tmp_path, kill):
    assert train(recipe, tmp_path / "run", kill=kill) == -9
    for path in list_checkpoints(tmp_path / "run"):
        verify_checkpoint(path)
    assert train(recipe, tmp_path / "run") == 0
    assert_equal(load_file(tmp_path / "run" / "model.safetensors"), reference)
    assert not staging_dir(tmp_path / "run").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_with_workers_is_bit_equal(recipe, reference, tmp_path, workers):
    # Without evaluations: they must leave no trace in the random state.
    options = ("--dataloader_num_workers", str(workers), "--eval_strategy", "no")
    assert train(recipe, tmp_path, *options, kill=trainer_method("training_step", 10)) == -9
    assert train(recipe, tmp_path, *options) == 0
    assert_equal(load_file(tmp_path / "model.safetensors"), reference)


def assert_equal(weights, reference):
    assert weights.keys() == reference.keys()
    for name, tensor in reference.items():
        assert torch.equal(weights[name], tensor), name


def test_a_finished_run_is_not_trained_further(recipe, reference, tmp_path):
    assert train(recipe, tmp_path) == 0
    (tmp_path / "model.safetensors").unlink()
    assert train(recipe, tmp_path, kill=trainer_method("training_step", 1)) == 0
    assert_equal(load_file(tmp_path / "model.safetensors"), reference)


# ---- damaged checkpoints: on plain folders ----


def make_checkpoint(run_dir, step, content=b"weights"):
    staged = staging_dir(run_dir) / f"checkpoint-{step}" / "nested"
    staged.mkdir(parents=True)
    (staged.parent / "model.safetensors").write_bytes(content)
    (staged / "part.bin").write_bytes(b"123")
    return commit_checkpoint(run_dir, f"checkpoint-{step}", step, world_size=1)


def change_a_byte(path):
    (path / "model.safetensors").write_bytes(b"weighty")


def cut_a_file(path):
    (path / "model.safetensors").write_bytes(b"weig")


def remove_a_file(path):
    (path / "nested" / "part.bin").unlink()


def remove_the_manifest(path):
    (path / "manifest.json").unlink()


def spoil_the_manifest(path):
    (path / "manifest.json").write_text('{"files": {')


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (change_a_byte, "model.safetensors differs"),
        (cut_a_file, "model.safetensors has 4 bytes instead of 7"),
        (remove_a_file, "nested/part.bin is missing"),
        (remove_the_manifest, "no manifest.json"),
        (spoil_the_manifest, "cannot be read"),
    ],
)
def test_a_damaged_newest_checkpoint_is_refused_with_the_reason(tmp_path, damage, reason):
    make_checkpoint(tmp_path, 9)
    make_checkpoint(tmp_path, 10)
    assert find_valid_checkpoint(tmp_path).path == tmp_path / "checkpoint-10"
    damage(tmp_path / "checkpoint-10")
    choice = find_valid_checkpoint(tmp_path)
    assert choice.path == tmp_path / "checkpoint-9"
    assert [path.name for path, _ in choice.refused] == ["checkpoint-10"]
    assert reason in choice.refused[0][1]
    with pytest.raises(CheckpointError, match=reason):
        verify_checkpoint(tmp_path / "checkpoint-10")


def test_nothing_valid(tmp_path):
    make_checkpoint(tmp_path, 1)
    remove_the_manifest(tmp_path / "checkpoint-1")
    choice = find_valid_checkpoint(tmp_path)
    assert choice.path is None
    assert len(choice.refused) == 1
    assert find_valid_checkpoint(tmp_path / "nowhere").path is None


def test_a_checkpoint_is_replaced_as_a_whole(tmp_path):
    make_checkpoint(tmp_path, 5, b"old")
    final = make_checkpoint(tmp_path, 5, b"new")
    assert (final / "model.safetensors").read_bytes() == b"new"
    assert verify_checkpoint(final)["step"] == 5
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-5"]


def test_training_resumes_from_the_newest_valid_one_and_says_so(recipe, reference, tmp_path):
    log = tmp_path / "log.txt"
    assert train(recipe, tmp_path, kill=trainer_method("training_step", 10)) == -9
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-8", "checkpoint-6"]
    with (tmp_path / "checkpoint-8" / "optimizer.pt").open("r+b") as file:
        file.seek(100)
        file.write(b"\xff\xff\xff")
    assert train(recipe, tmp_path, kill=lambda: logging.basicConfig(filename=log, force=True)) == 0
    said = log.read_text(encoding="utf-8")
    assert "Refused checkpoint" in said
    assert "checkpoint-8: file optimizer.pt differs" in said
    assert "Resuming from checkpoint" in said
    assert_equal(load_file(tmp_path / "model.safetensors"), reference)
    verify_checkpoint(tmp_path / "checkpoint-12")


# ---- two runs in one folder ----


def test_another_recipe_is_refused(recipe, tmp_path):
    assert train(recipe, tmp_path, kill=trainer_method("training_step", 4)) == -9
    run = ["--output_dir", str(tmp_path), *NOISY]
    with pytest.raises(RecipeError, match=r"training.learning_rate 0.01 -> 0.02"):
        run_recipe(recipe, [*run, "--learning_rate", "0.02"])
    with pytest.raises(RecipeError, match="already holds checkpoints"):
        run_recipe(recipe, [*run, "--resume_from_checkpoint", "null"])
    with pytest.raises(CheckpointError, match=r"Cannot resume from .*checkpoint-99"):
        run_recipe(recipe, [*run, "--resume_from_checkpoint", str(tmp_path / "checkpoint-99")])


def test_the_run_folder_tells_what_was_done(recipe, tmp_path):
    assert train(recipe, tmp_path, "--do_predict", "--seed", "7") == 0
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    results = json.loads((tmp_path / "all_results.json").read_text(encoding="utf-8"))
    assert f"| test | {results['test_accuracy']:.4f} |" in card
    assert f"| validation | {results['eval_accuracy']:.4f} |" in card
    assert "| seed | 7 |" in card
    assert "12 steps (2.00 epochs)" in card
    state = json.loads((tmp_path / "trainer_state.json").read_text(encoding="utf-8"))
    assert all("task_loss" in entry for entry in state["log_history"] if "loss" in entry)
