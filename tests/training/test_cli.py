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
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_fixtures import COLOURS, write_recipe_file
from typer.testing import CliRunner

from fusionzoo.cli import app
from fusionzoo.training.train import run_recipe


ROOT = Path(__file__).resolve().parents[2]
runner = CliRunner()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with `run` (a saved model), `table` (the data) and `recipe.yaml`."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("cli")
    result = runner.invoke(
        app, ["train", str(write_recipe_file(folder)), "--save_strategy", "no", "--num_train_epochs", "1"]
    )
    assert result.exit_code == 0, result.output
    return folder


def failing(*words):
    result = runner.invoke(app, list(words))
    assert result.exit_code == 2, result.output
    return re.sub(r"\s+", " ", result.output)


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], []])
def test_help_answers_within_a_second(words):
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        finished = subprocess.run(
            [sys.executable, "-m", "fusionzoo", *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert "fusion" in finished.stdout + finished.stderr
        # Seconds of processor time: the clock would also count what else the machine does.
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 1.0


def test_no_heavy_import_for_help():
    code = "import sys, fusionzoo.cli; print([m for m in ('torch', 'transformers', 'datasets', 'numpy') if m in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


def test_list():
    output = runner.invoke(app, ["list"]).output
    for name in ("mope", "food101", "demo:memes", "mope/mmimdb", "2403.10568"):
        assert name in output


def test_train_wrote_the_run_folder(trained):
    names = {path.name for path in (trained / "run").iterdir()}
    assert {"model.safetensors", "config.json", "processor_config.json", "recipe.yaml", "README.md"} <= names
    config = json.loads((trained / "run" / "config.json").read_text(encoding="utf-8"))
    assert list(config["id2label"].values()) == list(COLOURS)
    assert config["problem_type"] == "single_label_classification"


def test_train_from_the_saved_model(trained, tmp_path):
    recipe = trained / "recipe.yaml"
    words = ["--vision", "null", "--text", "null", "--checkpoint", str(trained / "run"), "--output_dir", str(tmp_path)]
    assert "eval_loss" in run_recipe(recipe, [*words, "--max_steps", "1", "--save_strategy", "no"])


def test_evaluate(trained, tmp_path):
    words = [
        "evaluate",
        str(trained / "run"),
        "--dataset",
        str(trained / "table"),
        "--output",
        str(tmp_path / "m.json"),
    ]
    result = runner.invoke(app, [*words, "--missing", "image=0.5", "--missing", "text=1.0"])
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
    assert metrics["split"] == "test"
    assert metrics["samples"] == 6
    assert list(metrics["results"]) == ["complete", "image=0.5", "text=1.0"]
    assert set(metrics["results"]["complete"]) == {"loss", "accuracy", "f1_macro"}
    assert len({values["loss"] for values in metrics["results"].values()}) == 3
    assert "image=0.5" in result.output
    assert "accuracy" in result.output


def test_evaluate_a_single_file_with_own_columns(trained, tmp_path):
    lines = (trained / "table" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows[:2]:
        row["image"] = None
    own = tmp_path / "own.jsonl"
    own.write_text("\n".join(json.dumps({"caption": r["text"], "class": r["label"]}) for r in rows), encoding="utf-8")
    words = ["evaluate", str(trained / "run"), "--dataset", str(own), "--output", str(tmp_path / "m.json")]
    result = runner.invoke(app, [*words, "--column", "text=caption", "--column", "label=class"])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))["samples"] == 6


def test_predict_one(trained):
    image = next((trained / "table" / "test").glob("*.png"))
    for words in (
        ["--image", str(image), "--text", "the red food"],
        ["--text", "the red food"],
        ["--image", str(image)],
    ):
        result = runner.invoke(app, ["predict", str(trained / "run"), *words])
        assert result.exit_code == 0, result.output
        line = json.loads(result.stdout.strip().splitlines()[-1])
        assert line["label"] == max(line["probabilities"], key=line["probabilities"].get)
        assert sum(line["probabilities"].values()) == pytest.approx(1.0)


def test_predict_files_and_folders(trained, tmp_path):
    run, table = str(trained / "run"), trained / "table"
    by_json = predictions(run, table / "test.jsonl", tmp_path)
    assert [line["id"] for line in by_json] == [f"s{number:03d}" for number in range(6)]
    rows = [json.loads(line) for line in (table / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    csv_file = table / "test_copy.csv"
    csv_file.write_text(
        "id,image,text\n" + "\n".join(f"{row['id']},{row['image']},{row['text']}" for row in rows), encoding="utf-8"
    )
    assert predictions(run, csv_file, tmp_path) == by_json
    csv_file.unlink()
    in_batches_of_one = predictions(run, table / "test.jsonl", tmp_path, "--batch-size", "1")
    for one, many in zip(in_batches_of_one, by_json):
        assert one["probabilities"] == pytest.approx(many["probabilities"], abs=1e-6)
    folder = predictions(run, table / "test", tmp_path, "--top-k", "1")
    assert [line["id"] for line in folder] == [f"s{number:03d}.png" for number in range(6)]
    assert all(len(line["probabilities"]) == 1 for line in folder)


def predictions(run, source, tmp_path, *words):
    out = tmp_path / "out.jsonl"
    result = runner.invoke(app, ["predict", run, str(source), "--output", str(out), *words])
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_bad_examples_do_not_disturb_the_others(trained, tmp_path):
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "broken.png").write_bytes(b"<html>not a picture</html>")
    rows = [
        {"id": "good", "text": "the red food"},
        {"id": "escape", "image": "../../etc/passwd", "text": "x"},
        {"id": "broken", "image": "broken.png", "text": "x"},
        {"id": "gone", "image": "gone.png"},
        {"id": "neither"},
        {"id": "number", "text": 7},
        {"id": "last", "text": "the blue food"},
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    lines = {line["id"]: line for line in predictions(str(trained / "run"), folder / "rows.jsonl", tmp_path)}
    assert list(lines) == [row["id"] for row in rows]
    assert "label" in lines["good"]
    assert "label" in lines["last"]
    assert "leaves the data folder" in lines["escape"]["error"]
    assert "error" in lines["broken"]
    assert "error" in lines["gone"]
    assert "both image and text are absent" in lines["neither"]["error"]
    assert "must be a string" in lines["number"]["error"]


def test_prepare_and_verify_a_demo(tmp_path):
    raw, out = str(tmp_path / "raw"), str(tmp_path / "out")
    result = runner.invoke(app, ["prepare", "demo:rus", "--demo", "--size", "train=12", "--size", "validation=4",
                                 "--size", "test=4", "--raw", raw, "--out", out, "--max-skip", "0.9"])  # fmt: skip
    assert result.exit_code in (0, 3), result.output
    assert runner.invoke(app, ["prepare", "demo:rus", "--verify", out]).exit_code in (0, 3)


def test_errors_name_the_remedy(trained, tmp_path):
    run, table = str(trained / "run"), str(trained / "table")
    assert "Did you mean --training.learning_rate" in failing(
        "train", str(trained / "recipe.yaml"), "--learnin_rate", "1"
    )
    assert "Shipped recipes" in failing("train", "mope/fod101")
    assert "image=RATE" in failing("evaluate", run, "--dataset", table, "--missing", "picture=0.5")
    assert "image=RATE" in failing("evaluate", run, "--dataset", table, "--missing", "image=2")
    assert "no split 'tset'" in failing("evaluate", run, "--dataset", table, "--split", "tset")
    assert "labels" in failing("evaluate", run, "--dataset", "demo:rus")
    assert "ROLE=COLUMN" in failing("evaluate", run, "--dataset", table, "--column", "picture=a")
    assert "--image and/or --text" in failing("predict", run)
    assert "no file or folder" in failing("predict", run, str(tmp_path / "nothing.jsonl"))
    assert "Unknown method 'mop'" in failing("convert", "mop", "a", "b")
    assert "--raw DIR and --out DIR" in failing("prepare", "food101")
    assert "Unknown weights" in failing("weights", "dinov2-smal")
