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
"""F1 in its five averages."""

import datasets
import evaluate
import numpy as np
from sklearn.metrics import f1_score


AVERAGES = ("micro", "macro", "weighted", "samples", "binary")
UNUSED_CLASSES = ("zero", "skip")


class FusionF1(evaluate.Metric):
    """F1 with a class that never occurs counted as 0, over a fixed number of classes; needs no network.

    `FusionF1()` takes class numbers, `FusionF1("multilabel")` takes 0/1 vectors, one entry per class.

    Args of `compute`:
        average: `micro`, `macro` (plain mean over all classes), `weighted` (by support), `samples` (mean over samples,
            multi-label only), `binary` (the class 1 of two).
        num_labels: number of classes, so that classes absent from this data count in `macro`. Required for class
            numbers unless `average="binary"`.
        unused_classes: what `macro` does with a class that is neither true nor predicted anywhere: `zero` counts it as 0
            (scikit-learn), `skip` leaves it out (torchmetrics 0.9, so the published numbers of DCP and MMP).

    Example:

    ```python
    >>> from fusionzoo.training.metrics.fusion_f1 import FusionF1

    >>> FusionF1(keep_in_memory=True).compute(predictions=[0, 1], references=[0, 1], average="macro", num_labels=4)
    {'f1_macro': 0.5}
    ```
    """

    def _info(self) -> evaluate.MetricInfo:
        value = datasets.Value("int64")
        if self.config_name == "multilabel":
            value = datasets.Sequence(value)
        return evaluate.MetricInfo(
            description="Harmonic mean of precision and recall.",
            citation="",
            inputs_description="predictions, references: class numbers, or 0/1 vectors for the config 'multilabel'.",
            features=datasets.Features({"predictions": value, "references": value}),
        )

    def _compute(
        self,
        predictions,
        references,
        average: str = "macro",
        num_labels: int | None = None,
        unused_classes: str = "zero",
    ) -> dict[str, float]:
        if unused_classes not in UNUSED_CLASSES:
            raise ValueError(f"unused_classes must be one of {', '.join(UNUSED_CLASSES)}; got {unused_classes!r}.")
        if average not in AVERAGES:
            raise ValueError(f"average must be one of {', '.join(AVERAGES)}; got {average!r}.")
        multilabel = self.config_name == "multilabel"
        if average == "samples" and not multilabel:
            raise ValueError("average='samples' is defined for multi-label data; use FusionF1('multilabel').")
        labels = None
        if not multilabel and average != "binary":
            if num_labels is None:
                raise ValueError(
                    "num_labels is needed: classes that do not occur in this data count as 0 in the mean."
                )
            labels = list(range(num_labels))
        if average == "macro" and unused_classes == "skip":
            labels = _used_classes(np.asarray(predictions), np.asarray(references))
            if not labels:
                return {"f1_macro": 0.0}
        score = f1_score(references, predictions, average=average, labels=labels, zero_division=0)
        return {f"f1_{average}": float(score)}


def _used_classes(predictions: np.ndarray, references: np.ndarray) -> list[int]:
    """The classes that are true or predicted somewhere, of class numbers or of 0/1 vectors."""
    if references.ndim == 1:
        return sorted({*predictions.tolist(), *references.tolist()})
    return np.flatnonzero((predictions + references).any(axis=0)).tolist()
