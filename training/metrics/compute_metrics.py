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
"""The metrics of a data set as the `compute_metrics` function of a Trainer."""

from collections.abc import Callable

import numpy as np
from transformers import EvalPrediction

from ..data.registry import DatasetSpec
from .fusion_accuracy import FusionAccuracy
from .fusion_auroc import FusionAuroc
from .fusion_f1 import FusionF1


METRIC_NAMES = ("accuracy", "f1_macro", "f1_micro", "f1_weighted", "f1_samples", "f1_binary", "auroc")
THRESHOLD = 0.5
METRIC_RULES = ("standard", "dcp_official")
IGNORED_LABEL = -100


def build_compute_metrics(spec: DatasetSpec, rules: str = "standard") -> Callable[[EvalPrediction], dict[str, float]]:
    """A function from logits and labels to the metrics that `spec.metrics` names.

    Single-label: the class with the largest logit; AUROC on P(class 1), with more classes the mean over the classes
    against the rest. Multi-label: every class with sigmoid(logit) > 0.5; accuracy is then the share of samples with all
    classes right. Regression: mean squared and absolute error, whatever `spec.metrics` says.

    Args:
        spec: the data set.
        rules: `"dcp_official"` are those of the DCP and MMP code, where they differ: sigmoid(logit) >= 0.5 is positive, and
            classes that are neither true nor predicted do not count in the macro F1.

    Single-label samples labelled -100 are left out under both rules. Raises `ValueError` for a metric that does not exist
    or does not fit the problem type.
    """
    if rules not in METRIC_RULES:
        raise ValueError(f"Unknown metric rules {rules!r}; allowed: {', '.join(METRIC_RULES)}.")
    if spec.problem_type == "regression":
        return _regression_metrics
    multilabel = spec.problem_type == "multi_label_classification"
    for name in spec.metrics:
        if name not in METRIC_NAMES:
            raise ValueError(f"Unknown metric {name!r}; available: {', '.join(METRIC_NAMES)}.")
        if (name == "f1_samples" and not multilabel) or (name == "f1_binary" and (multilabel or spec.num_labels != 2)):
            raise ValueError(f"Metric {name!r} is not defined for {spec.problem_type} with {spec.num_labels} classes.")

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        logits = prediction.predictions
        logits = np.asarray(logits[0] if isinstance(logits, tuple) else logits, dtype=np.float64)
        labels = np.asarray(prediction.label_ids)
        if not multilabel:
            logits, labels = logits[labels != IGNORED_LABEL], labels[labels != IGNORED_LABEL]
        scores = probabilities(logits, spec.problem_type)
        if multilabel:
            predicted = scores >= THRESHOLD if rules == "dcp_official" else scores > THRESHOLD
        else:
            predicted = logits.argmax(-1)
        unused_classes = "skip" if rules == "dcp_official" else "zero"
        return _scores(spec, predicted.astype(np.int64), labels.astype(np.int64), scores, unused_classes)

    return compute


def probabilities(logits: np.ndarray, problem_type: str) -> np.ndarray:
    """(samples, classes) logits -> probabilities in float64: sigmoid for multi-label, else softmax."""
    logits = np.asarray(logits, dtype=np.float64)
    if problem_type == "multi_label_classification":
        return 0.5 * (1.0 + np.tanh(0.5 * logits))
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _scores(
    spec: DatasetSpec, predicted: np.ndarray, labels: np.ndarray, scores: np.ndarray, unused_classes: str
) -> dict[str, float]:
    """`predicted`, `labels`: class numbers or 0/1 matrices; `scores`: (samples, classes) probabilities."""
    multilabel = labels.ndim == 2
    config = "multilabel" if multilabel else None
    result: dict[str, float] = {}
    for name in spec.metrics:
        if name == "accuracy" and multilabel:
            result[name] = float((predicted == labels).all(axis=1).mean())
        elif name == "accuracy":
            result |= FusionAccuracy(keep_in_memory=True).compute(predictions=predicted, references=labels)
        elif name == "auroc" and spec.num_labels == 2 and not multilabel:
            result |= FusionAuroc(keep_in_memory=True).compute(predictions=scores[:, 1], references=labels)
        elif name == "auroc":
            truth = labels if multilabel else np.eye(spec.num_labels, dtype=np.int64)[labels]
            result |= FusionAuroc("multilabel", keep_in_memory=True).compute(predictions=scores, references=truth)
        else:
            result |= FusionF1(config, keep_in_memory=True).compute(
                predictions=predicted,
                references=labels,
                average=name.removeprefix("f1_"),
                num_labels=spec.num_labels,
                unused_classes=unused_classes,
            )
    return result


def _regression_metrics(prediction: EvalPrediction) -> dict[str, float]:
    values = prediction.predictions
    values = np.asarray(values[0] if isinstance(values, tuple) else values, dtype=np.float64).reshape(-1)
    error = values - np.asarray(prediction.label_ids, dtype=np.float64).reshape(-1)
    return {"mse": float((error**2).mean()), "mae": float(np.abs(error).mean())}
