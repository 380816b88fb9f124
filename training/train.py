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
"""Trains a model from a recipe: one process with `fusionzoo train RECIPE`, several with

    python -m torch.distributed.run --nproc_per_node 2 -m fusionzoo.training.train RECIPE [--any_training_argument ...]

The run folder (`output_dir`) receives the resolved recipe, the model with its processor, the metrics, the trainer's
state, a card and the checkpoints. Starting the same command again continues an interrupted run exactly.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from transformers import set_seed
from transformers.utils import logging

from .arguments import FusionTrainingArguments
from .checkpointing import list_checkpoints
from .collation import FusionCollator
from .metrics.compute_metrics import build_compute_metrics
from .recipe_files import TOP_LEVEL_KEYS, RecipeError, build_arguments, resolve_recipe, write_recipe
from .task_loading import TaskData, build_model, build_processor, load_task_data
from .trainer import FusionTrainer


logger = logging.get_logger(__name__)

RECIPE_NAME = "recipe.yaml"
# Training keys that may change between the parts of an interrupted run: they do not touch what is computed.
_FREE_PREFIXES = (
    "output_dir", "resume_", "logging_", "log_", "eval_", "per_device_eval", "save_", "report_to", "run_name", "project",
    "disable_tqdm", "push_to_hub", "hub_", "do_", "dataloader_num_workers", "dataloader_pin", "dataloader_prefetch",
    "dataloader_persistent", "skip_memory", "ddp_", "debug",
)  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Entry point of `python -m fusionzoo.training.train`: RECIPE and overrides."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help"):
        print(__doc__)
        return
    try:
        run_recipe(words[0], words[1:])
    except RecipeError as error:
        sys.exit(f"error: {error}")


@dataclass
class FittedRun:
    """A finished run, still in memory."""

    trainer: FusionTrainer
    task: TaskData
    method: str
    dataset: str
    metrics: dict[str, Any]


def run_recipe(path_or_name: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> dict[str, Any]:
    """Trains, evaluates and saves as the recipe says; returns the metrics of the validation (and test) split."""
    return fit_recipe(path_or_name, overrides).metrics


def fit_recipe(path_or_name: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> FittedRun:
    """As `run_recipe`; returns the trainer with its model and the data too."""
    recipe = resolve_recipe(path_or_name, overrides)
    model_args, data_args, args = build_arguments(recipe)
    resume = None if args.resume_from_checkpoint in (None, "none") else args.resume_from_checkpoint
    _prepare_run_dir(recipe, args, resume)
    set_seed(args.seed)

    with args.main_process_first(desc="loading the data and the towers"):
        task = load_task_data(data_args, args.seed)
        processor = build_processor(model_args)
        model = build_model(model_args, task.spec)
    if task.train is None:
        raise RecipeError(f"The data set {data_args.name!r} has no split {task.spec.train_split!r} to train on.")
    _pick_best_by(task.spec.main_metric, recipe, args)
    trainer = FusionTrainer(
        model=model,
        args=args,
        train_dataset=task.train,
        eval_dataset=task.validation,
        data_collator=FusionCollator(processor, task.spec),
        compute_metrics=build_compute_metrics(task.spec, data_args.metric_rules),
        processing_class=processor,
    )
    outcome = trainer.train(resume_from_checkpoint=resume)
    trainer.save_model()
    trainer.save_state()
    if outcome.metrics:
        trainer.save_metrics("train", outcome.metrics)
    results: dict[str, Any] = {}
    if task.validation is not None:
        results |= trainer.evaluate()
        trainer.save_metrics("eval", results)
    if args.do_predict and task.test is not None:
        test_metrics = trainer.predict(task.test).metrics
        trainer.save_metrics("test", test_metrics)
        trainer.log(dict(test_metrics))
        results |= test_metrics
    trainer.create_model_card(dataset=data_args.name)
    if trainer.is_world_process_zero():
        logger.warning(f"Run folder {args.output_dir}: {json.dumps(results)}")
    return FittedRun(trainer, task, model_args.method, data_args.name, results)


def _prepare_run_dir(recipe: dict[str, Any], args: FusionTrainingArguments, resume: str | None) -> None:
    """Refuses to mix two runs in one folder, then writes the resolved recipe there."""
    folder = Path(args.output_dir)
    stored_path = folder / RECIPE_NAME
    present = json.loads(json.dumps({key: recipe[key] for key in TOP_LEVEL_KEYS}))
    if list_checkpoints(folder):
        if resume is None:
            raise RecipeError(
                f"{folder} already holds checkpoints. Choose another --output_dir, delete them, or continue that run "
                "with --resume_from_checkpoint auto."
            )
        if resume == "auto" and stored_path.is_file():
            stored = yaml.safe_load(stored_path.read_text(encoding="utf-8"))
            changes = _differences(stored, present)
            if changes:
                raise RecipeError(
                    f"{folder} holds an interrupted or finished run of another recipe: {'; '.join(changes)}. Choose "
                    "another --output_dir, delete that folder, or name the checkpoint with --resume_from_checkpoint."
                )
    if args.process_index == 0:
        folder.mkdir(parents=True, exist_ok=True)
        write_recipe(present, stored_path)


def _differences(stored: dict[str, Any], present: dict[str, Any]) -> list[str]:
    changes = []
    if stored.get("method") != present["method"]:
        changes.append(f"method {stored.get('method')!r} -> {present['method']!r}")
    for section in ("model", "data", "training"):
        old, new = stored.get(section) or {}, present[section]
        for key in sorted({*old, *new}):
            free = section == "training" and key.startswith(_FREE_PREFIXES)
            if not free and old.get(key) != new.get(key):
                changes.append(f"{section}.{key} {old.get(key)!r} -> {new.get(key)!r}")
    return changes


def _pick_best_by(main_metric: str, recipe: dict[str, Any], args: FusionTrainingArguments) -> None:
    """`load_best_model_at_end` goes by the data set's main metric unless the recipe names another."""
    if args.load_best_model_at_end and "metric_for_best_model" not in recipe["training"]:
        args.metric_for_best_model = main_metric
        args.greater_is_better = main_metric not in ("mse", "mae", "loss")


if __name__ == "__main__":
    main()
