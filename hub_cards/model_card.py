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
"""Model cards, rendered from the records of a run and nothing else."""

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import torch
import transformers
from huggingface_hub import ModelCardData
from jinja2 import Environment


if TYPE_CHECKING:
    from ..training.trainer import FusionTrainer

TEMPLATE_NAME = "training_card.md.j2"
_METRIC_ORDER = (
    "accuracy",
    "f1_macro",
    "f1_micro",
    "f1_weighted",
    "f1_samples",
    "f1_binary",
    "auroc",
    "mse",
    "mae",
    "loss",
)
_SETTINGS = (
    "learning_rate", "vision_learning_rate", "text_learning_rate", "per_device_train_batch_size",
    "gradient_accumulation_steps", "num_train_epochs", "max_steps", "optim", "weight_decay", "lr_scheduler_type",
    "lr_milestones", "lr_gamma", "warmup_steps", "max_grad_norm", "seed", "bf16", "fp16",
)  # fmt: skip


def write_training_card(
    trainer: "FusionTrainer", path: Path, *, dataset: str | None = None, tags: list[str] | str | None = None, **_: Any
) -> None:
    """Writes the card of a run: results, settings, sizes and versions as the trainer recorded them.

    Args:
        dataset: name of the data set, as the user gave it.
        tags: further Hub tags.

    Other keywords of `Trainer.create_model_card` are claims that the run cannot check; they are left out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_training_card(trainer, dataset=dataset, tags=tags, folder=path.parent), encoding="utf-8")


def render_training_card(
    trainer: "FusionTrainer", *, dataset: str | None, tags: list[str] | str | None, folder: Path
) -> str:
    """The text of the card; `folder` is where the recipe may lie."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    results = last_results(trainer.state.log_history)
    given = {name for metrics in results.values() for name in metrics}
    args = trainer.args.to_dict()
    settings = {name: args[name] for name in _SETTINGS if args.get(name) not in (None, False, -1)}
    if trainer.args.lr_milestones is None:
        settings.pop("lr_gamma")
    tags = [tags] if isinstance(tags, str) else list(tags or [])
    metadata = ModelCardData(
        library_name="transformers",
        tags=["fusionzoo", model.config.model_type, "image-text-classification", *tags],
        ignore_metadata_errors=True,
    )
    template = Environment(keep_trailing_newline=True, trim_blocks=True).from_string(
        files(__package__).joinpath(TEMPLATE_NAME).read_text(encoding="utf-8")
    )
    return template.render(
        metadata=f"---\n{metadata.to_yaml()}\n---",
        title=folder.resolve().name,
        path=folder.resolve().name,
        method_sentence=f"A `{type(model).__name__}` of fusionzoo.",
        dataset=dataset,
        state=trainer.state,
        results=results,
        metric_names=[name for name in _METRIC_ORDER if name in given],
        settings={**settings, "processes": trainer.args.world_size},
        trainable=f"{sum(p.numel() for p in model.parameters() if p.requires_grad):,}",
        total=f"{sum(p.numel() for p in model.parameters()):,}",
        versions=f"transformers {transformers.__version__}, torch {torch.__version__}, datasets {datasets.__version__}",
        recipe=(folder / "recipe.yaml").is_file(),
    )


def last_results(log_history: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Per split, the metrics of the last evaluation in a trainer's history: `eval_*` is validation, `test_*` is test."""
    results: dict[str, dict[str, float]] = {}
    for split, prefix in (("validation", "eval_"), ("test", "test_")):
        for entry in log_history:
            found = {name: entry[prefix + name] for name in _METRIC_ORDER if prefix + name in entry}
            if found:
                results[split] = found
    return results
