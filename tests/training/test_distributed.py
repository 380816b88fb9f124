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
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from process_helpers import kill_self, run_forked
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from training_fixtures import write_recipe_file
from transformers import TrainerState

from fusionzoo.training.fusion_dataset import FusionDataset
from fusionzoo.training.train import run_recipe
from fusionzoo.training.trainer import EpochCallback, FusionTrainer


# importance_loss is a function of a process's own batch, so it is left out where two processes must equal one.
SAME = (
    "--model.importance_loss_weight",
    "0.0",
    "--data.missing_rate",
    "0.5",
    "--data.missing_per_epoch",
    "--save_steps",
    "3",
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """24 rows, 2 epochs: 6 steps of 4 an epoch, or of 2 x 2."""
    return write_recipe_file(tmp_path_factory.mktemp("recipe"))


def losses(folder):
    state = json.loads((Path(folder) / "trainer_state.json").read_text(encoding="utf-8"))
    return [entry for entry in state["log_history"] if "loss" in entry]


def assert_equal_runs(one, other):
    assert len(losses(one)) == len(losses(other)) == 12
    for a, b in zip(losses(one), losses(other)):
        for name in ("loss", "task_loss", "grad_norm"):
            assert a[name] == pytest.approx(b[name], rel=1e-5), (name, a["step"])
    weights, reference = load_file(Path(one) / "model.safetensors"), load_file(Path(other) / "model.safetensors")
    for name, tensor in reference.items():
        torch.testing.assert_close(weights[name], tensor, atol=1e-4, rtol=0)


def test_torchrun_with_two_gloo_processes_equals_one(recipe, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "-m", "fusionzoo.training.train"]
    arguments = [str(recipe), *SAME, "--output_dir", str(tmp_path / "two"), "--per_device_train_batch_size", "2"]
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root, "TOKENIZERS_PARALLELISM": "false"}
    finished = subprocess.run(
        [*command, *arguments], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert run_forked(lambda: run_recipe(recipe, [*SAME, "--output_dir", str(tmp_path / "one")])) == [0]
    assert_equal_runs(tmp_path / "two", tmp_path / "one")
    assert (tmp_path / "two" / "checkpoint-12" / "rng_state_1.pth").is_file()


def recorded_run(recipe, folder, *overrides):
    """`run_recipe` that appends (epoch, row) of every row read for training to `<folder>/rows-<rank>.jsonl`."""

    def work():
        original = FusionDataset.__getitem__
        rank = os.environ.get("RANK", "0")
        Path(folder).mkdir(exist_ok=True)
        file = (Path(folder) / f"rows-{rank}.jsonl").open("a", encoding="utf-8")

        def recording(self, index):
            row = original(self, index)
            if len(self) == 24:
                state = [self.epoch, row["id"], row["image"] is None, row["text"] is None]
                file.write(json.dumps(state) + "\n")
                file.flush()
            return row

        FusionDataset.__getitem__ = recording
        run_recipe(recipe, [*SAME, "--output_dir", str(folder), *overrides])

    return work


def rows_read(folder, rank):
    return [
        json.loads(line) for line in (Path(folder) / f"rows-{rank}.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def test_two_processes_see_the_sample_stream_of_one(recipe, tmp_path):
    assert run_forked(recorded_run(recipe, tmp_path / "one")) == [0]
    two = recorded_run(recipe, tmp_path / "two", "--per_device_train_batch_size", "2")
    assert run_forked(two, world_size=2) == [0, 0]
    alone, first, second = (
        rows_read(tmp_path / "one", 0),
        rows_read(tmp_path / "two", 0),
        rows_read(tmp_path / "two", 1),
    )
    interleaved = []
    for start in range(0, len(first), 2):
        interleaved += first[start : start + 2] + second[start : start + 2]
    assert interleaved == alone
    assert [row[0] for row in alone] == [0] * 24 + [1] * 24
    assert [row[1] for row in alone[:24]] != [row[1] for row in alone[24:]]
    assert {row[1] for row in alone[:24] if row[2]} != {row[1] for row in alone[24:] if row[2]}
    assert_equal_runs(tmp_path / "two", tmp_path / "one")


def test_two_processes_resume_within_the_second_epoch(recipe, tmp_path):
    options = ("--per_device_train_batch_size", "2")
    assert run_forked(recorded_run(recipe, tmp_path / "whole", *options), world_size=2) == [0, 0]

    def killed():
        # dies in step 11, after checkpoint-9
        original, calls = FusionTrainer.training_step, [0]

        def step(self, *arguments, **keywords):
            calls[0] += 1
            if calls[0] == 11:
                kill_self()
            return original(self, *arguments, **keywords)

        FusionTrainer.training_step = step
        recorded_run(recipe, tmp_path / "cut", *options)()

    assert -9 in run_forked(killed, world_size=2)
    for rank in (0, 1):
        (tmp_path / "cut" / f"rows-{rank}.jsonl").unlink()
    assert run_forked(recorded_run(recipe, tmp_path / "cut", *options), world_size=2) == [0, 0]
    for rank in (0, 1):
        whole, rest = rows_read(tmp_path / "whole", rank), rows_read(tmp_path / "cut", rank)
        assert rest == whole[-len(rest) :]
        assert {row[0] for row in rest} == {1}
        assert len(rest) == 2 * 3  # 3 of 12 steps were left after checkpoint-9
    weights, reference = (load_file(tmp_path / name / "model.safetensors") for name in ("cut", "whole"))
    for name, tensor in reference.items():
        assert torch.equal(weights[name], tensor), name


def test_what_the_epoch_callback_is_for():
    """If this fails, accelerate has learnt to tell the data set, and EpochCallback may go."""

    class Dataset(list):
        epoch = 0

        def set_epoch(self, epoch):
            self.epoch = epoch

    def loader_of(dataset, processes):
        return prepare_data_loader(
            DataLoader(dataset, batch_size=2, shuffle=True), num_processes=processes, process_index=0, put_on_device=False,
            use_seedable_sampler=True,
        )  # fmt: skip

    for processes, skipped, told in ((1, 0, True), (1, 1, False), (2, 0, False), (2, 1, False)):
        dataset = Dataset(range(16))
        loader = loader_of(dataset, processes)
        if skipped:
            loader = skip_first_batches(loader, skipped)
        loader.set_epoch(3)
        assert (dataset.epoch == 3) is told, (processes, skipped)
        callback = EpochCallback()
        callback.on_train_begin(None, TrainerState(epoch=5.5), None)
        for epoch in (5, 6):
            callback.on_epoch_begin(None, None, None, train_dataloader=loader)
            assert dataset.epoch == epoch
