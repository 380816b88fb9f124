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
"""`FusionTrainer`: transformers' Trainer with what a fusion method needs, and nothing else changed.

It overrides the logging of loss parts, the optimizer's parameter groups and milestone schedule, what exact resuming and
safe checkpoints need, and the model card. Loop, evaluation, mixed precision, several processes: all as in `transformers.Trainer`.
"""

import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainerCallback, TrainerState
from transformers.trainer_utils import TrainOutput, rotate_checkpoints
from transformers.utils import logging

from .arguments import FusionTrainingArguments
from .checkpointing import (
    CheckpointError,
    clear_staging,
    commit_checkpoint,
    find_valid_checkpoint,
    staging_dir,
    verify_checkpoint,
)


logger = logging.get_logger(__name__)

TRAINER_STATE_NAME = "trainer_state.json"


class EpochCallback(TrainerCallback):
    """Tells the data set which epoch begins.

    accelerate's data loader tells its sampler, and the data set only in one process and from the beginning of an epoch:
    not when several processes share the data, and not in the epoch in which training resumes.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        self._next_epoch = int(state.epoch or 0)  # a fraction when resuming within an epoch

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        dataset: Any = getattr(train_dataloader, "dataset", None)
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(self._next_epoch)
        self._next_epoch += 1


class FusionTrainer(Trainer):
    """Trainer for the models of the zoo.

    Takes the arguments of `transformers.Trainer`; `args` should be `FusionTrainingArguments`. Pass a `FusionCollator` as
    `data_collator`, a `FusionDataset` as `train_dataset`, `build_compute_metrics(spec)` as `compute_metrics`, and the
    processor as `processing_class`.

    What differs from `Trainer`:

    - Every scalar that the model returns beside `loss` (e.g. `task_loss`, `importance_loss`) is averaged over the steps
      since the last log, and over processes, and logged under its name.
    - Parameter groups by `model.parameter_group(name)` with the learning rates of `FusionTrainingArguments`; the
      schedule `lr_milestones`.
    - Checkpoints are complete or absent (see `training.checkpointing`). `train(resume_from_checkpoint="auto")`, or
      `True`, continues from the newest valid one; a checkpoint that lacks trained weights is an error, not a warning.
    - `create_model_card` writes a card from what this run recorded.

    *Relations*: a plain `transformers.Trainer` trains the same models, without these.
    """

    args: FusionTrainingArguments
    optimizer: torch.optim.Optimizer | None
    lr_scheduler: torch.optim.lr_scheduler.LRScheduler | None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.add_callback(EpochCallback())
        self.current_gradient_accumulation_steps = 1  # the loop of Trainer sets it for each step
        self._loss_parts: dict[str, torch.Tensor] = {}
        self._loss_part_steps = 0.0
        self._staging: Path | None = None

    # ---- loss parts ----

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        if model.training and isinstance(outputs, dict):
            # A step is made of `current_gradient_accumulation_steps` batches; `loss` is averaged over them likewise.
            share = 1.0 / self.current_gradient_accumulation_steps
            for name, value in outputs.items():
                if name != "loss" and isinstance(value, torch.Tensor) and value.ndim == 0:
                    part = value.detach().float() * share
                    self._loss_parts[name] = self._loss_parts[name] + part if name in self._loss_parts else part
            self._loss_part_steps += share
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self._loss_parts:
            names = sorted(self._loss_parts)
            means = torch.stack([self._loss_parts[name] for name in names]) / self._loss_part_steps
            means = self.accelerator.gather(means.unsqueeze(0)).mean(0)  # (processes, parts) -> (parts,)
            logs |= dict(zip(names, means.tolist()))
            self._loss_parts, self._loss_part_steps = {}, 0.0
        super().log(logs, start_time)

    # ---- evaluation ----

    def evaluation_loop(self, *args, **kwargs):
        # Starting a data loader draws from the global generator. An evaluation between a checkpoint and the next step is
        # not repeated after resuming, so it must leave no trace there.
        devices = [torch.accelerator.current_device_index()] if torch.accelerator.is_available() else []
        device_type = torch.accelerator.current_accelerator().type if devices else "cuda"
        with torch.random.fork_rng(devices=devices, device_type=device_type):
            return super().evaluation_loop(*args, **kwargs)

    # ---- parameter groups and schedule ----

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            opt_model = self.model if model is None else model
            if self.optimizer_cls_and_kwargs is not None:
                optimizer_class, options = self.optimizer_cls_and_kwargs
            else:
                optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, opt_model)
            if {"params", "model", "optimizer_dict"} & set(options) or not isinstance(optimizer_class, type):
                return super().create_optimizer(model)  # GaLore, LOMO and the like make their own groups
            self.optimizer = optimizer_class(self.get_parameter_groups(opt_model), **options)
        return self.optimizer

    def get_parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """One optimizer group per (vision, text, fusion, head) x (decayed or not), of the trainable parameters only.

        Each group has `params`, `lr`, `weight_decay` and, for logs and tests, `name`.
        """
        args = self.args
        group_of = getattr(self.accelerator.unwrap_model(model), "parameter_group", lambda name: "fusion")
        decayed = None if args.decay_all_parameters else set(self.get_decay_parameter_names(model))
        if decayed is not None and args.decay_norm_weights:
            decayed = {name for name, _ in model.named_parameters() if not name.endswith("bias")}
        rates = {
            "fusion": None,
            "vision": args.vision_learning_rate,
            "text": args.text_learning_rate,
            "head": args.head_learning_rate,
        }
        decays = {"vision": None, "text": None, "fusion": args.fusion_weight_decay, "head": None}
        groups: dict[str, dict[str, Any]] = {}
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            part = group_of(name.removeprefix("module."))
            if part not in rates:
                raise ValueError(
                    f"{type(model).__name__}.parameter_group({name!r}) gave {part!r}; it must be vision, text, fusion or "
                    "head."
                )
            has_decay = decayed is None or name in decayed
            weight_decay = args.weight_decay if decays[part] is None else decays[part]
            key = part if has_decay else f"{part}_no_decay"
            group = groups.setdefault(
                key,
                {
                    "name": key,
                    "params": [],
                    "lr": args.learning_rate if rates[part] is None else rates[part],
                    "weight_decay": weight_decay if has_decay else 0.0,
                },
            )
            group["params"].append(parameter)
        if not groups:
            raise ValueError(
                f"{type(model).__name__} has no trainable parameter: everything is frozen. Check freeze_backbone and "
                "fuse_method in the model section."
            )
        order = [f"{part}{ending}" for part in rates for ending in ("", "_no_decay")]
        return [groups[key] for key in order if key in groups]  # the first one's rate is logged as learning_rate

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        if self.args.schedule_rules == "dcp_official" and self.lr_scheduler is None:
            schedule = OfficialSchedule(
                self.batches_per_epoch(), self.args.gradient_accumulation_steps, self.args.num_train_epochs
            )
            self.lr_scheduler = LambdaLR(self.optimizer if optimizer is None else optimizer, schedule.factor)
            self._created_lr_scheduler = True
            return self.lr_scheduler
        if self.args.lr_milestones is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        factor = functools.partial(
            milestone_factor,
            milestones=[round(epoch * self.steps_per_epoch()) for epoch in self.args.lr_milestones],
            gamma=self.args.lr_gamma,
            warmup_steps=self.args.get_warmup_steps(num_training_steps),
        )
        self.lr_scheduler = LambdaLR(self.optimizer if optimizer is None else optimizer, factor)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the training data, all processes together."""
        return max(1, math.ceil(self.batches_per_epoch() / self.args.gradient_accumulation_steps))

    def batches_per_epoch(self) -> int:
        """Micro-batches of one process in one pass over the training data."""
        args, samples = self.args, len(self.train_dataset)
        per_batch = self._train_batch_size * args.world_size
        return samples // per_batch if args.dataloader_drop_last else math.ceil(samples / per_batch)

    # ---- checkpoints ----

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs) -> TrainOutput:
        """As `Trainer.train`; `"auto"` takes the newest valid checkpoint or starts anew, `True` demands one.

        A run that had already reached its last step is not trained further: its weights are loaded.
        """
        if self.args.should_save:
            clear_staging(self.args.output_dir)
        checkpoint = self._choose_checkpoint(resume_from_checkpoint)
        self._loss_parts, self._loss_part_steps = {}, 0.0
        if checkpoint is not None and self._is_finished(checkpoint):
            return self._load_finished(checkpoint)
        return super().train(resume_from_checkpoint=checkpoint, **kwargs)

    def _choose_checkpoint(self, wanted: str | bool | None) -> str | None:
        if wanted is None or wanted is False:
            return None
        if self.args.process_index == 0:
            try:
                answer: tuple[str | None, str | None] = (self._find_checkpoint(wanted), None)
            except CheckpointError as error:
                answer = (None, str(error))
        else:
            answer = (None, None)
        if self.args.world_size > 1:
            box = [answer]
            dist.broadcast_object_list(box, src=0)
            answer = box[0]
        checkpoint, problem = answer
        if problem is not None:
            raise CheckpointError(problem)
        return checkpoint

    def _find_checkpoint(self, wanted: str | Literal[True]) -> str | None:
        if wanted is not True and wanted != "auto":
            try:
                verify_checkpoint(wanted)
            except CheckpointError as error:
                raise CheckpointError(
                    f"Cannot resume from {wanted}: {error}. Use resume_from_checkpoint=auto for the newest valid one."
                ) from error
            return str(wanted)
        choice = find_valid_checkpoint(self.args.output_dir)
        for path, reason in choice.refused:
            logger.warning(f"Refused checkpoint {path}: {reason}.")
        if choice.path is not None:
            logger.warning(f"Resuming from checkpoint {choice.path}.")
            return str(choice.path)
        if wanted is True:
            raise CheckpointError(f"There is no valid checkpoint in {self.args.output_dir}.")
        if choice.refused:
            logger.warning(f"No valid checkpoint in {self.args.output_dir}: training starts from the beginning.")
        return None

    def _is_finished(self, checkpoint: str) -> bool:
        args = self.args
        total = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * self.steps_per_epoch())
        state = json.loads((Path(checkpoint) / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        return state["global_step"] >= total

    def _load_finished(self, checkpoint: str) -> TrainOutput:
        logger.warning(f"Checkpoint {checkpoint} is the end of this run: nothing is left to train.")
        self.state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
        best = self.state.best_model_checkpoint
        if self.args.load_best_model_at_end and best is not None and Path(best).is_dir():
            self._load_best_model()
        else:
            self._load_from_checkpoint(checkpoint)
        return TrainOutput(self.state.global_step, 0.0, {})

    def _get_output_dir(self, trial) -> str:
        return super()._get_output_dir(trial) if self._staging is None else str(self._staging)

    def _save_checkpoint(self, model, trial) -> None:
        run_dir = Path(self._get_output_dir(trial))
        name = f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            clear_staging(run_dir)
        self.accelerator.wait_for_everyone()
        self._staging = staging_dir(run_dir)
        try:
            super()._save_checkpoint(model, trial)  # asks _get_output_dir where to write
        finally:
            staging, self._staging = self._staging, None
        if self.state.best_model_checkpoint == str(staging / name):
            self.state.best_model_checkpoint = str(run_dir / name)
        self.accelerator.wait_for_everyone()  # every process has written its random state
        if self.args.should_save:
            self.state.save_to_json(str(staging / name / TRAINER_STATE_NAME))
            final = commit_checkpoint(run_dir, name, self.state.global_step, self.args.world_size)
            rotate_checkpoints(
                output_dir=str(run_dir),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
            )
            if self.args.push_to_hub:
                super()._push_from_checkpoint(str(final))
        self.accelerator.wait_for_everyone()

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Called by `Trainer` while the checkpoint is still unnamed; `_save_checkpoint` pushes it afterwards."""

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        trainable = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        missing = sorted(trainable & set(load_result.missing_keys))
        unexpected = sorted(load_result.unexpected_keys)
        if missing or unexpected:
            raise CheckpointError(
                f"The checkpoint does not fit the model: {len(missing)} trained parameters are missing "
                f"({', '.join(missing[:3])}...), {len(unexpected)} are unknown ({', '.join(unexpected[:3])}...). It was "
                "written with another model section."
            )
        super()._issue_warnings_after_load(load_result)

    # ---- card ----

    def create_model_card(self, **kwargs) -> None:
        """Writes `README.md` into the output folder from this run's records; keywords as in `Trainer`."""
        if self.is_world_process_zero():
            from ..hub_cards.model_card import write_training_card  # cards read training records, so import late

            write_training_card(self, Path(self.args.output_dir) / "README.md", **kwargs)


@dataclass(frozen=True)
class OfficialSchedule:
    """The linear schedule of the DCP and MMP code: a warm-up over a tenth of the steps, then down to 0.

    The steps are counted over all micro-batches and rounded down, while an optimizer step is also made at the end of each
    epoch; so the last steps of a run have a learning rate of 0.

    Args:
        batches: micro-batches per epoch.
        accumulation: micro-batches per optimizer step.
        epochs: passes over the data.
    """

    batches: int
    accumulation: int
    epochs: float

    @property
    def total_steps(self) -> int:
        return int(self.batches * self.epochs / self.accumulation)

    @property
    def warmup_steps(self) -> int:
        return int(0.1 * self.total_steps)

    @property
    def optimizer_steps(self) -> int:
        return math.ceil(self.epochs * math.ceil(self.batches / self.accumulation))

    def factor(self, step: int) -> float:
        """What the learning rate is multiplied by in optimizer step `step`, counted from 0."""
        if step < self.warmup_steps:
            return step / max(1, self.warmup_steps)
        return max(0.0, (self.total_steps - step) / max(1, self.total_steps - self.warmup_steps))


def milestone_factor(step: int, *, milestones: list[int], gamma: float, warmup_steps: int) -> float:
    """gamma ** (number of milestones reached), after a linear warm-up."""
    warmup = min(1.0, step / warmup_steps) if warmup_steps > 0 else 1.0
    return warmup * gamma ** sum(step >= milestone for milestone in milestones)
