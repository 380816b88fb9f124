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
import numpy as np
import pytest
from sklearn import metrics as sk
from training_fixtures import toy_spec
from transformers import EvalPrediction

from fusionzoo.training.metrics.compute_metrics import build_compute_metrics, probabilities
from fusionzoo.training.metrics.fusion_accuracy import FusionAccuracy
from fusionzoo.training.metrics.fusion_auroc import FusionAuroc
from fusionzoo.training.metrics.fusion_f1 import FusionF1


ALL_SINGLE = ("accuracy", "f1_macro", "f1_micro", "f1_weighted", "auroc")
ALL_MULTI = ("accuracy", "f1_macro", "f1_micro", "f1_weighted", "f1_samples", "auroc")


def multi_spec(metrics=ALL_MULTI):
    return toy_spec(problem_type="multi_label_classification", metrics=metrics, main_metric=metrics[0])


def test_single_label_by_hand_with_an_absent_class():
    # predicted 0 0 1, true 0 1 1; class 2 never occurs. F1: class 0 = 2/3, class 1 = 2/3, class 2 = 0.
    logits = np.array([[3.0, 1.0, 0.0], [2.0, 1.0, 0.0], [0.0, 5.0, 1.0]])
    result = build_compute_metrics(toy_spec(metrics=ALL_SINGLE))(EvalPrediction(logits, np.array([0, 1, 1])))
    assert result["accuracy"] == pytest.approx(2 / 3)
    assert result["f1_macro"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert result["f1_weighted"] == pytest.approx(2 / 3)
    assert result["f1_micro"] == pytest.approx(2 / 3)


def test_single_label_against_scikit_learn():
    generator = np.random.default_rng(3)
    logits, labels = generator.normal(size=(200, 3)), generator.integers(0, 3, 200)
    result = build_compute_metrics(toy_spec(metrics=ALL_SINGLE))(EvalPrediction((logits, "scores"), labels))
    predicted = logits.argmax(1)
    assert result["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    for average in ("macro", "micro", "weighted"):
        assert result[f"f1_{average}"] == pytest.approx(sk.f1_score(labels, predicted, average=average))
    shares = probabilities(logits, "single_label_classification")
    assert result["auroc"] == pytest.approx(sk.roc_auc_score(labels, shares, multi_class="ovr", average="macro"))


def test_multi_label_threshold_is_half_of_the_sigmoid():
    logits = np.array([[0.1, -0.1, -2.0], [0.0, 3.0, 0.4]])  # sigmoid(0.4) = 0.6: above 0.5, sigmoid(0) is not
    labels = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    result = build_compute_metrics(multi_spec())(EvalPrediction(logits, labels))
    assert result["accuracy"] == 1.0
    assert result["f1_samples"] == 1.0
    assert result["f1_macro"] == 1.0


def test_multi_label_against_scikit_learn_with_a_class_nobody_has():
    generator = np.random.default_rng(4)
    logits, labels = generator.normal(size=(60, 3)), (generator.random((60, 3)) < 0.4).astype(np.float32)
    labels[:, 2] = 0
    result = build_compute_metrics(multi_spec())(EvalPrediction(logits, labels))
    predicted = (logits > 0).astype(int)
    for average in ("macro", "micro", "weighted", "samples"):
        expected = sk.f1_score(labels.astype(int), predicted, average=average, zero_division=0)
        assert result[f"f1_{average}"] == pytest.approx(expected)
    assert result["auroc"] == pytest.approx(sk.roc_auc_score(labels[:, :2], logits[:, :2], average="macro"))


def test_binary_auroc_ranks_and_ties():
    spec = toy_spec(label_names=("no", "yes"), metrics=("auroc", "f1_binary"), main_metric="auroc")
    logits = np.array([[0.0, -1.0], [0.0, 1.0], [0.0, 0.5], [0.0, 1.0]])  # the positive of row 1 ties with row 3
    result = build_compute_metrics(spec)(EvalPrediction(logits, np.array([0, 1, 0, 0])))
    assert result["auroc"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert result["f1_binary"] == pytest.approx(0.5)


def test_auroc_is_nan_with_one_class_or_a_nan_score():
    assert np.isnan(FusionAuroc(keep_in_memory=True).compute(predictions=[0.1, 0.2], references=[1, 1])["auroc"])
    nan = float("nan")
    assert np.isnan(FusionAuroc(keep_in_memory=True).compute(predictions=[nan, 0.2], references=[0, 1])["auroc"])


def test_probabilities_do_not_overflow():
    assert probabilities(np.array([[1e4, 0.0]]), "single_label_classification").tolist() == [[1.0, 0.0]]
    assert probabilities(np.array([[-1e4, 1e4]]), "multi_label_classification").tolist() == [[0.0, 1.0]]


def test_regression():
    spec = toy_spec(problem_type="regression", label_names=())
    result = build_compute_metrics(spec)(EvalPrediction(np.array([[1.0], [3.0]]), np.array([1.0, 1.0])))
    assert result == {"mse": 2.0, "mae": 1.0}


@pytest.mark.parametrize("metric", ["f1_samples", "f1_binary", "f1_sample"])
def test_a_metric_that_does_not_fit_is_refused(metric):
    with pytest.raises(ValueError, match=metric):
        build_compute_metrics(toy_spec(metrics=(metric,)))


def test_metrics_are_evaluate_metrics():
    metric = FusionAccuracy(keep_in_memory=True)
    metric.add_batch(predictions=[0, 1], references=[0, 0])
    metric.add_batch(predictions=[2, 2], references=[2, 2])
    assert metric.compute() == {"accuracy": 0.75}
    with pytest.raises(ValueError, match="num_labels"):
        FusionF1(keep_in_memory=True).compute(predictions=[0], references=[0], average="macro")
    with pytest.raises(ValueError, match="average"):
        FusionF1(keep_in_memory=True).compute(predictions=[0], references=[0], average="mean")


def test_the_official_rules_leave_unused_classes_out():
    # class 2 is never true and never predicted; sigmoid(0) = 0.5 is positive under the official rules only
    logits = np.array([[0.0, -1.0, -2.0], [1.0, 3.0, -4.0]])
    labels = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    prediction = EvalPrediction(logits, labels)
    spec = multi_spec(("f1_macro", "f1_micro"))
    standard, official = (build_compute_metrics(spec, rules)(prediction) for rules in ("standard", "dcp_official"))
    assert standard["f1_macro"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert official == {"f1_macro": 1.0, "f1_micro": 1.0}
    with pytest.raises(ValueError, match="Unknown metric rules 'official'; allowed: standard, dcp_official"):
        build_compute_metrics(spec, "official")


def test_f1_without_unused_classes():
    metric = FusionF1(keep_in_memory=True)
    options = {"predictions": [0, 1], "references": [0, 1], "average": "macro", "num_labels": 4}
    assert metric.compute(**options) == {"f1_macro": 0.5}
    assert metric.compute(**options, unused_classes="skip") == {"f1_macro": 1.0}
    with pytest.raises(ValueError, match="unused_classes must be one of zero, skip"):
        metric.compute(**options, unused_classes="drop")


def test_ignored_labels_do_not_count():
    logits = np.array([[3.0, 1.0, 0.0], [2.0, 1.0, 0.0], [0.0, 5.0, 1.0]])
    spec = toy_spec(metrics=("accuracy",), main_metric="accuracy")
    assert build_compute_metrics(spec)(EvalPrediction(logits, np.array([0, -100, 2]))) == {"accuracy": 0.5}
