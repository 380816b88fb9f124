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
"""Metrics of a saved model, on complete data and with modalities missing."""

import tempfile
from typing import Any

import datasets
from transformers import AutoModelForSequenceClassification, AutoProcessor, PreTrainedModel, ProcessorMixin

from .arguments import FusionTrainingArguments
from .collation import FusionCollator
from .data.loading import load_fusion_dataset
from .data.missing_simulation import MissingModality
from .data.registry import DatasetSpec
from .data.tabular import is_tabular_source
from .fusion_dataset import FusionDataset, subset_by_hash
from .metrics.compute_metrics import build_compute_metrics
from .task_loading import check_labels, spec_of_dataset
from .trainer import FusionTrainer


COMPLETE = "complete"


def evaluate_model(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    dataset: datasets.Dataset,
    spec: DatasetSpec,
    *,
    missing: list[str] | tuple[str, ...] = (),
    seed: int = 0,
    batch_size: int = 32,
    show_progress: bool = False,
) -> dict[str, dict[str, float]]:
    """The metrics of `spec` on complete rows (key `complete`) and under each pattern of `missing`.

    Args:
        dataset: rows with the columns of `spec`.
        missing: patterns `kind=rate`, e.g. `image=0.5`, `text=1.0`, `both=0.7` (half of those lose the image, half the
            text).
        seed: decides which samples lack a modality; the same ones for every model.

    Raises `ValueError` for a pattern that cannot be read, or labels that are not the model's.
    """
    patterns = {COMPLETE: None, **{pattern: parse_missing(pattern, seed) for pattern in missing}}
    check_labels(model, spec)
    with tempfile.TemporaryDirectory() as folder:
        trainer = FusionTrainer(
            model=model,
            args=FusionTrainingArguments(
                output_dir=folder, per_device_eval_batch_size=batch_size, disable_tqdm=not show_progress
            ),
            data_collator=FusionCollator(processor, spec),
            compute_metrics=build_compute_metrics(spec),
        )
        results = {}
        for name, simulation in patterns.items():
            rows = FusionDataset(dataset, spec, seed=seed, missing=simulation)
            metrics = trainer.predict(rows, metric_key_prefix="test").metrics
            wanted = ("test_loss", *(f"test_{metric}" for metric in (*spec.metrics, "mse", "mae")))
            results[name] = {key.removeprefix("test_"): metrics[key] for key in wanted if key in metrics}
    return results


def evaluate_saved_model(
    model_path: str,
    dataset_name: str,
    *,
    root: str | None = None,
    split: str | None = None,
    missing: list[str] | tuple[str, ...] = (),
    seed: int = 0,
    batch_size: int = 32,
    max_samples: int | None = None,
    columns: dict[str, str] | None = None,
    options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Loads a model folder or repo and a data set, and returns `evaluate_model`'s result with what was evaluated.

    Args:
        columns: of your own table: role (image, text, label, id) -> column.
        options: of a demo, as in `load_fusion_dataset`. Your own table gets the model's label names.

    The other arguments are those of `evaluate_model` and the command line. A table in one file has one split, which is
    taken.
    """
    for pattern in missing:
        parse_missing(pattern, seed)  # a typing mistake should not cost the loading time
    model = AutoModelForSequenceClassification.from_pretrained(model_path)
    options = dict(options or {})
    if columns is not None or (root is None and is_tabular_source(dataset_name)):
        options = {**_label_options(model), **options}
    loaded = load_fusion_dataset(dataset_name, root=root, columns=columns, **options)
    spec = spec_of_dataset(dataset_name, loaded, columns, options.get("problem_type"))
    split = split or (next(iter(loaded)) if len(loaded) == 1 else spec.test_split)
    if split not in loaded:
        raise ValueError(f"The data set {dataset_name!r} has no split {split!r}; it has {', '.join(loaded)}.")
    rows = subset_by_hash(loaded[split], max_samples, seed)
    processor = AutoProcessor.from_pretrained(model_path)
    results = evaluate_model(
        model, processor, rows, spec, missing=missing, seed=seed, batch_size=batch_size, show_progress=True
    )
    return {
        "model": str(model_path),
        "dataset": dataset_name,
        "split": split,
        "samples": len(rows),
        "main_metric": spec.main_metric,
        "seed": seed,
        "results": results,
    }


def _label_options(model: PreTrainedModel) -> dict[str, Any]:
    """How a user's table must be read so that its labels are the model's."""
    problem_type = model.config.problem_type
    if problem_type == "regression":
        return {"problem_type": problem_type}
    names = [model.config.id2label[number] for number in range(model.config.num_labels)]
    return {"label_names": names, "problem_type": problem_type}


def parse_missing(pattern: str, seed: int) -> MissingModality:
    """`kind=rate` -> the simulation. Raises `ValueError` saying what is allowed."""
    kind, equals, rate = pattern.partition("=")
    try:
        value = float(rate)
    except ValueError:
        value = -1.0
    if kind not in ("image", "text", "both") or not equals or not 0.0 <= value <= 1.0:
        raise ValueError(
            f"Missing pattern {pattern!r} cannot be read: write image=RATE, text=RATE or both=RATE with a rate from 0 to "
            "1, e.g. image=0.5."
        )
    return MissingModality(rate=value, kind=kind, seed=seed)


def results_table(result: dict[str, Any]) -> str:
    """The results of `evaluate_saved_model` as text: one line per pattern, metrics in percent."""
    names = list(next(iter(result["results"].values())))
    width = max(len(name) for name in (*result["results"], "missing"))
    lines = [
        f"{result['model']} on {result['dataset']} ({result['split']}, {result['samples']} samples)",
        "missing".ljust(width) + "".join(name.rjust(13) for name in names),
    ]
    for pattern, metrics in result["results"].items():
        cells = (metrics[name] if name in ("loss", "mse", "mae") else 100 * metrics[name] for name in names)
        lines.append(pattern.ljust(width) + "".join(f"{cell:13.2f}" for cell in cells))
    return "\n".join(lines)
