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
"""Rows of a data set -> one batch for a model."""

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import torch

from .data.registry import DatasetSpec


class FusionCollator:
    """Calls the processor on the raw images and texts of a batch and adds the labels.

    Args:
        processor: a processor of the zoo: `processor(images=[...], text=[...], return_tensors="pt")`.
        spec: the data set's columns, problem type and label names.
        with_labels: `False` for rows without (or with hidden) labels; the batch then has no `labels`.

    *Inputs*: rows with `spec.image_column` (PIL image or `None`), `spec.text_column` (`str` or `None`) and
    `spec.label_column`: a class number (single-label), a list of class numbers (multi-label) or a number (regression).

    *Returns*: what the processor returns, plus `labels`: (batch,) int64, (batch, num_labels) float32 multi-hot, or
    (batch,) float32.

    Raises `ValueError` naming the row's id, the label and the allowed range.
    """

    def __init__(self, processor: Callable[..., Mapping[str, Any]], spec: DatasetSpec, *, with_labels: bool = True):
        self.processor = processor
        self.spec = spec
        self.with_labels = with_labels

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        images = [_middle_frame(row[self.spec.image_column]) for row in rows]
        text = [row[self.spec.text_column] for row in rows]
        batch = dict(self.processor(images=images, text=text, return_tensors="pt"))
        if self.with_labels:
            batch["labels"] = self._labels(rows)
        return batch

    def _labels(self, rows: Sequence[Mapping[str, Any]]) -> torch.Tensor:
        values = [row[self.spec.label_column] for row in rows]
        for row, value in zip(rows, values):
            if value is None:
                raise ValueError(f"Sample {row.get('id')!r} has no label in column {self.spec.label_column!r}.")
        if self.spec.problem_type == "regression":
            for row, value in zip(rows, values):
                if not isinstance(value, Real):
                    raise ValueError(f"Sample {row.get('id')!r}: a regression label must be a number, got {value!r}.")
            return torch.tensor(values, dtype=torch.float32)
        if self.spec.problem_type == "multi_label_classification":
            labels = torch.zeros(len(rows), self.spec.num_labels)
            for position, (row, value) in enumerate(zip(rows, values)):
                if isinstance(value, (str, Integral)):
                    raise ValueError(
                        f"Sample {row.get('id')!r}: a multi-label target must be a list of class numbers, got {value!r}."
                    )
                for label in value:
                    labels[position, self._checked(label, row)] = 1.0
            return labels
        return torch.tensor([self._checked(value, row) for row, value in zip(rows, values)], dtype=torch.int64)

    def _checked(self, label: Any, row: Mapping[str, Any]) -> int:
        last = self.spec.num_labels - 1
        if not isinstance(label, Integral) or not 0 <= int(label) <= last:
            hidden = " (-1 marks a hidden label: use another split, or `fusionzoo predict`)" if label == -1 else ""
            raise ValueError(
                f"Sample {row.get('id')!r}: label {label!r} in column {self.spec.label_column!r} is out of range; allowed "
                f"are whole numbers from 0 to {last}{hidden}."
            )
        return int(label)


def _middle_frame(image: Any) -> Any:
    """Key frames of a clip are shown to an image model by their middle one."""
    if isinstance(image, list):
        return image[len(image) // 2] if image else None
    return image
