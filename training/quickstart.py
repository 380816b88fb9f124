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
"""`make demo`: fine-tunes a fusion method on embedded pictures and text, evaluates, saves, reloads and predicts.

Three models learn under the same budget: the fused one, one that sees pictures only, and one that reads text only. The
towers are real pretrained ones (DINOv2 ViT-S/14 and MiniLM-L6) and stay frozen. The settings come from the recipe and
were chosen on its validation split; the test split is read once, at the end.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForSequenceClassification, AutoProcessor, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_NAME

from .data.registry import DatasetSpec
from .evaluation import COMPLETE, evaluate_model
from .prediction import predict
from .quickstart_pictures import draw_predictions, draw_routing
from .train import fit_recipe


RECIPE = "mope/demo_food"
ABSENT = {"missing_image": "image=1.0", "missing_text": "text=1.0"}
SINGLE_MODALITY = {"image_only": "vision_only", "text_only": "text_only"}
NUM_PREDICTIONS = 3
NUM_COMPARED = 100


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m fusionzoo.training.quickstart", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for everything that is written")
    parser.add_argument("--recipe", default=RECIPE, help="recipe of the fused model (name or file)")
    arguments, overrides = parser.parse_known_args(argv)
    run_demo(arguments.out, arguments.recipe, overrides)


def run_demo(out: Path, recipe: str = RECIPE, overrides: list[str] | tuple[str, ...] = ()) -> dict[str, Any]:
    """Runs the demo and returns what it also writes to `out/summary.json`.

    Args:
        out: folder for the models, the summary and the pictures.
        recipe: recipe of the fused model; the other two differ from it in `fuse_method`, and see complete rows.
        overrides: as on the command line of `fusionzoo train`.
    """
    console, started = Console(), time.perf_counter()
    scores: dict[str, float] = {}
    for name, fuse_method in {**SINGLE_MODALITY, "fused": None}.items():
        console.rule(f"training: {name.replace('_', ' ')}")
        words = [*overrides, "--output_dir", str(out / name), "--resume_from_checkpoint", "none"]
        if fuse_method:  # simulated absences would only hurt a model of one modality
            words += ["--model.fuse_method", fuse_method, "--data.missing_rate", "0"]
        fitted = fit_recipe(recipe, words)
        trainer, spec = fitted.trainer, fitted.task.spec
        if fitted.task.test is None:
            raise ValueError(f"The demo needs a test split, which the data set of {recipe} lacks.")
        test = fitted.task.test.source
        if fuse_method:
            scores[name] = _evaluate(trainer, test, spec)[COMPLETE]

    console.rule("evaluating, saving and reloading")  # of the fused model, which came last
    results = _evaluate(trainer, test, spec, tuple(ABSENT.values()))
    scores["fused"] = results[COMPLETE]
    scores |= {name: results[pattern] for name, pattern in ABSENT.items()}
    folder = out / "fused"
    model = trainer.model
    reloaded = AutoModelForSequenceClassification.from_pretrained(folder)
    compared, rows = _spread(test, NUM_COMPARED), list(_spread(test, NUM_PREDICTIONS))
    before, _ = _forward(model, trainer.data_collator, compared)
    after, routing = _forward(reloaded, trainer.data_collator, compared)
    predictions = list(predict(reloaded, AutoProcessor.from_pretrained(folder), rows))

    draw_predictions(out / "predictions.png", rows, predictions, spec)
    draw_routing(out / "routing.png", routing, list(compared[spec.label_column]), spec)
    summary = {
        "method": fitted.method,
        "dataset": fitted.dataset,
        "metric": spec.main_metric,
        **{name: round(100 * value, 2) for name, value in scores.items()},
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "total_parameters": sum(p.numel() for p in model.parameters()),
        "checkpoint_bytes": (folder / SAFE_WEIGHTS_NAME).stat().st_size,
        "reload_max_abs_diff": (before - after).abs().max().item(),
        "seconds": round(time.perf_counter() - started, 1),
        "predictions": [
            {
                "id": row["id"],
                "text": row[spec.text_column],
                "truth": spec.label_names[row[spec.label_column]],
                **shown,
            }
            for row, shown in zip(rows, map(_top, predictions))
        ],
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _print(console, summary, out)
    return summary


def _evaluate(trainer: Any, test: Any, spec: DatasetSpec, missing: tuple[str, ...] = ()) -> dict[str, float]:
    found = evaluate_model(
        trainer.model, trainer.processing_class, test, spec, missing=missing, batch_size=64, show_progress=True
    )
    return {pattern: metrics[spec.main_metric] for pattern, metrics in found.items()}


def _spread(test: Any, count: int) -> Any:
    """`count` rows from all over the split, whose rows are grouped by class."""
    count = min(count, len(test))
    return test.select([(2 * number + 1) * len(test) // (2 * count) for number in range(count)])


@torch.no_grad()
def _forward(model: PreTrainedModel, collator: Any, test: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and routing weights of all rows, in batches of 32."""
    model.eval()
    logits, routing = [], []
    for start in range(0, len(test), 32):
        batch = collator([test[number] for number in range(start, min(start + 32, len(test)))])
        outputs = model(**{name: value.to(model.device) for name, value in batch.items()})
        logits.append(outputs.logits.cpu())
        routing.append(outputs.router_scores.cpu())
    return torch.cat(logits), torch.cat(routing)


def _top(prediction: dict[str, Any]) -> dict[str, Any]:
    return {
        "predicted": prediction["label"],
        "probability": round(prediction["probabilities"][prediction["label"]], 3),
    }


def _print(console: Console, summary: dict[str, Any], out: Path) -> None:
    table = Table(title=f"{summary['method']} on {summary['dataset']}: test {summary['metric']}, %")
    for title in ("model", "input", "score"):
        table.add_column(title, justify="right" if title == "score" else "left")
    for name, model, inputs in (
        ("fused", "fused", "picture + text"),
        ("image_only", "picture only, same budget", "picture"),
        ("text_only", "text only, same budget", "text"),
        ("missing_image", "fused", "text; picture absent"),
        ("missing_text", "fused", "picture; text absent"),
    ):
        table.add_row(model, inputs, f"{summary[name]:.1f}")
    console.print(table)
    share = summary["trainable_parameters"] / summary["total_parameters"]
    console.print(
        f"Trained {summary['trainable_parameters']:,} of {summary['total_parameters']:,} parameters ({share:.1%}); the "
        f"checkpoint has {summary['checkpoint_bytes'] / 1e6:.1f} MB; reloaded, its logits differ by "
        f"{summary['reload_max_abs_diff']:g}."
    )
    for shown in summary["predictions"]:
        console.print(
            f"  {shown['text']!r} with its picture: {shown['predicted']} ({shown['probability']:.0%}); "
            f"truth: {shown['truth']}",
            markup=False,
        )
    console.print(f"{summary['seconds']:.0f} s. Written: {out / 'summary.json'}, predictions.png, routing.png.")


if __name__ == "__main__":
    main()
