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
"""Area under the ROC curve."""

import datasets
import evaluate
import numpy as np
from sklearn.metrics import roc_auc_score


class FusionAuroc(evaluate.Metric):
    """Area under the ROC curve, ties averaged; needs no network.

    `FusionAuroc()` takes the score of class 1 and references 0/1. `FusionAuroc("multilabel")` takes a score per class
    and 0/1 vectors, and gives the mean over the classes that have both positive and negative samples. NaN where no class
    has both, or a score is not finite.

    Example:

    ```python
    >>> from fusionzoo.training.metrics.fusion_auroc import FusionAuroc

    >>> FusionAuroc(keep_in_memory=True).compute(predictions=[0.1, 0.4, 0.35, 0.8], references=[0, 0, 1, 1])
    {'auroc': 0.75}
    ```
    """

    def _info(self) -> evaluate.MetricInfo:
        score, label = datasets.Value("float64"), datasets.Value("int64")
        if self.config_name == "multilabel":
            score, label = datasets.Sequence(score), datasets.Sequence(label)
        return evaluate.MetricInfo(
            description="Probability that a positive sample is scored above a negative one.",
            citation="",
            inputs_description="predictions: scores; references: 0 or 1 (vectors of both for the config 'multilabel').",
            features=datasets.Features({"predictions": score, "references": label}),
        )

    def _compute(self, predictions, references) -> dict[str, float]:
        scores = np.asarray(predictions, dtype=np.float64).reshape(len(references), -1)
        truth = np.asarray(references).reshape(len(references), -1)
        if not np.isfinite(scores).all():
            return {"auroc": float("nan")}
        areas = [
            roc_auc_score(truth[:, column], scores[:, column])
            for column in range(truth.shape[1])
            if 0 < truth[:, column].sum() < len(truth)
        ]
        return {"auroc": float(np.mean(areas)) if areas else float("nan")}
