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
"""What a run may set: the model, the data and the training, one dataclass each.

A recipe (`training/recipe_files.py`) fills these three from a YAML file and from the command line. Every field carries
the sentence that explains it; nothing else documents the options.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers import TrainingArguments


@dataclass
class ModelArguments:
    """The `model:` section of a recipe (and its top-level key `method`)."""

    method: str = field(metadata={"help": "Name of the fusion method, e.g. mope (`fusionzoo list`)."})
    vision: str | None = field(
        default=None,
        metadata={"help": "Vision tower: Hub repo id, local folder, or dinov2-small[@side] of `fusionzoo weights`."},
    )
    text: str | None = field(
        default=None, metadata={"help": "Text tower: Hub repo id, local folder, or minilm of `fusionzoo weights`."}
    )
    checkpoint: str | None = field(
        default=None,
        metadata={"help": "A saved fusionzoo model to start from instead of `vision` and `text` (folder or repo id)."},
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "Attention of the towers: sdpa, eager, flash_attention_2, ..."}
    )
    config: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "Fields of the method's config. In a recipe they stand directly in the model section."},
    )
    processor: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "Options of the method's Processor.from_backbones, as a mapping."}
    )

    def __post_init__(self):
        if self.checkpoint is None and (self.vision is None or self.text is None):
            raise ValueError(
                "The model section needs both `vision` and `text` (Hub repo ids or folders), or `checkpoint` (a saved "
                f"fusionzoo model); got vision={self.vision!r}, text={self.text!r}, checkpoint=None."
            )
        if self.checkpoint is not None and (self.vision is not None or self.text is not None):
            raise ValueError("Set either `checkpoint`, or `vision` and `text`, in the model section, not both.")


@dataclass
class DataArguments:
    """The `data:` section of a recipe."""

    name: str = field(
        metadata={"help": "A data set of the zoo, demo:<name>, a Hub repo id, or a path to your own file or folder."}
    )
    root: str | None = field(default=None, metadata={"help": "Folder that `fusionzoo prepare` wrote."})
    columns: dict[str, str] | None = field(
        default=None, metadata={"help": "For your own file: which of its columns are image, text and label."}
    )
    options: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "Passed on to load_fusion_dataset, e.g. the sizes of a demo."}
    )
    train_split: str | None = field(default=None, metadata={"help": "Split to train on. Default: the data set's."})
    validation_split: str | None = field(
        default=None, metadata={"help": "Split to evaluate on while training. Default: the data set's."}
    )
    test_split: str | None = field(
        default=None, metadata={"help": "Split for the final evaluation (`do_predict`). Default: the data set's."}
    )
    max_train_samples: int | None = field(
        default=None,
        metadata={"help": "Train on this many samples, drawn by a hash of (seed, id): few-shot training."},
    )
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Evaluate on this many samples, drawn by a hash of (seed, id)."}
    )
    missing_rate: float = field(
        default=0.0, metadata={"help": "Share of the training samples that lack a modality (exactly floor(N * rate))."}
    )
    missing_kind: Literal["image", "text", "both"] = field(
        default="both", metadata={"help": "Which modality is missing; both: some lack the image, the rest the text."}
    )
    missing_both_ratio: float = field(
        default=0.5, metadata={"help": "With missing_kind both: share of the missing samples that lack the image."}
    )
    missing_per_epoch: bool = field(
        default=False, metadata={"help": "Draw anew in each epoch which samples lack a modality."}
    )
    missing_table: Literal["addressed", "official"] = field(
        default="addressed",
        metadata={
            "help": "addressed: by a hash of (seed, id); official: the tables of the DCP and MMP code, by row order."
        },
    )
    missing_eval_rate: float = field(
        default=0.0, metadata={"help": "As missing_rate, for the validation and test split."}
    )
    metric_rules: Literal["standard", "dcp_official"] = field(
        default="standard",
        metadata={"help": "dcp_official: thresholds and macro F1 as in the code of DCP and MMP."},
    )
    randaugment_num_ops: int = field(
        default=0, metadata={"help": "RandAugment on training images: operations per image (0 = off)."}
    )
    randaugment_magnitude: int = field(default=7, metadata={"help": "RandAugment's magnitude, 0 to 30."})

    def __post_init__(self):
        for name in ("missing_rate", "missing_eval_rate", "missing_both_ratio"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"data.{name} must lie between 0 and 1, got {value!r}.")
        if self.missing_kind not in ("image", "text", "both"):
            raise ValueError(f"data.missing_kind must be one of image, text, both; got {self.missing_kind!r}.")
        for name, allowed in (
            ("missing_table", ("addressed", "official")),
            ("metric_rules", ("standard", "dcp_official")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"data.{name} must be one of {', '.join(allowed)}; got {getattr(self, name)!r}.")
        if self.missing_table == "official" and self.missing_per_epoch:
            raise ValueError(
                "data.missing_table official is one table for all epochs; set data.missing_per_epoch to false, or "
                "data.missing_table to addressed."
            )
        for name in ("max_train_samples", "max_eval_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"data.{name} must be at least 1 (leave it out for all samples), got {value!r}.")
        if self.randaugment_num_ops < 0 or not 0 <= self.randaugment_magnitude <= 30:
            raise ValueError(
                "data.randaugment_num_ops must be at least 0 and data.randaugment_magnitude between 0 and 30, got "
                f"{self.randaugment_num_ops!r} and {self.randaugment_magnitude!r}."
            )


@dataclass
class FusionTrainingArguments(TrainingArguments):
    """transformers' `TrainingArguments` with learning-rate groups, milestones and exact resuming.

    Defaults that differ from `TrainingArguments`, and why:

    - `remove_unused_columns` is False: rows carry raw images and text that only the collator turns into model inputs.
    - `label_names` is `["labels"]`.
    - `data_seed` is `seed`: the order of the samples must not depend on what else drew random numbers.
    - `use_cpu` is True where there is no accelerator, which makes several processes use gloo.
    - `resume_from_checkpoint` is `"auto"`: the training script continues from the newest valid checkpoint.
    """

    if TYPE_CHECKING:  # inherited; mypy does not look into transformers
        bf16: bool = False
        fp16: bool = False
        use_cpu: bool = False
        data_seed: int | None = None
        label_names: list[str] | None = None

    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay False: rows carry raw images and text for the collator."}
    )
    resume_from_checkpoint: str | None = field(
        default="auto",
        metadata={"help": "auto: the newest valid checkpoint of output_dir, if any; null: start anew; or a folder."},
    )
    precision: str | None = field(
        default=None,
        metadata={"help": "auto: bf16 where the accelerator has it, else fp32. Unset: `bf16` and `fp16` decide."},
    )
    vision_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the vision group. Default: learning_rate."}
    )
    text_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the text group. Default: learning_rate."}
    )
    fusion_weight_decay: float | None = field(
        default=None, metadata={"help": "Weight decay of the fusion group. Default: weight_decay."}
    )
    decay_all_parameters: bool = field(
        default=False, metadata={"help": "Apply weight decay to biases and normalisation layers as well."}
    )
    decay_norm_weights: bool = field(
        default=False,
        metadata={"help": "Apply weight decay to the weights of normalisation layers too; biases have none."},
    )
    head_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the classifier, for methods that tell it apart."}
    )
    schedule_rules: Literal["standard", "dcp_official"] = field(
        default="standard",
        metadata={
            "help": "dcp_official: the linear schedule of the DCP and MMP code, whose step counts are rounded down."
        },
    )
    lr_milestones: list[float] | None = field(
        default=None,
        metadata={
            "help": "Epochs at which every learning rate is multiplied by lr_gamma (lr_scheduler_type constant)."
        },
    )
    lr_gamma: float = field(default=0.1, metadata={"help": "Factor applied at each of lr_milestones."})

    def __post_init__(self):
        if self.remove_unused_columns:
            raise ValueError(
                "training.remove_unused_columns must stay false: the collator needs the raw image and text columns."
            )
        if self.precision is not None:
            choices = ("auto", "fp32", "bf16", "fp16")
            if self.precision not in choices:
                raise ValueError(f"training.precision must be one of {', '.join(choices)}; got {self.precision!r}.")
            has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported() and not self.use_cpu
            bf16, fp16 = self.precision == "bf16" or (self.precision == "auto" and has_bf16), self.precision == "fp16"
            if self.bf16 > bf16 or self.fp16 > fp16:
                raise ValueError(
                    f"training.precision {self.precision!r} contradicts bf16={self.bf16} and fp16={self.fp16}; set either "
                    "precision or those, not both."
                )
            self.bf16, self.fp16 = bf16, fp16
        if not torch.accelerator.is_available():
            self.use_cpu = True
        if self.data_seed is None:
            self.data_seed = self.seed
        if self.label_names is None:
            self.label_names = ["labels"]
        super().__post_init__()
        self._check_milestones()
        self._check_schedule_rules()

    @property
    def device(self) -> torch.device:
        """The device; on the CPU without the process number, which old versions of torch cannot load tensors onto."""
        device = super().device
        return torch.device("cpu") if device.type == "cpu" else device

    def _check_schedule_rules(self) -> None:
        if self.schedule_rules not in ("standard", "dcp_official"):
            raise ValueError(
                f"training.schedule_rules must be one of standard, dcp_official; got {self.schedule_rules!r}."
            )
        if self.schedule_rules == "dcp_official" and (
            self.lr_scheduler_type.value != "linear" or self.lr_milestones is not None or self.max_steps > 0
        ):
            raise ValueError(
                "training.schedule_rules dcp_official is a linear schedule over num_train_epochs; it needs "
                "lr_scheduler_type: linear, and neither lr_milestones nor max_steps."
            )

    def _check_milestones(self) -> None:
        if self.lr_milestones is None:
            return
        if list(self.lr_milestones) != sorted(set(self.lr_milestones)) or any(m <= 0 for m in self.lr_milestones):
            raise ValueError(
                f"training.lr_milestones must be increasing positive epochs, e.g. [3, 6]; got {self.lr_milestones!r}."
            )
        if self.lr_scheduler_type.value not in ("constant", "constant_with_warmup"):
            raise ValueError(
                "training.lr_milestones replaces the schedule, so it needs lr_scheduler_type: constant (or "
                f"constant_with_warmup); got {self.lr_scheduler_type.value!r}."
            )
