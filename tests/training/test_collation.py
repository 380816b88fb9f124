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
import torch
from fixtures_tiny import tiny_processor
from training_fixtures import toy_dataset, toy_rows, toy_spec

from fusionzoo.training.collation import FusionCollator
from fusionzoo.training.fusion_dataset import FusionDataset, RandAugmentById, sample_seed, subset_by_hash


class EveryOther:
    """Stands for MissingModality: alternates by epoch which half of the ids lacks its image."""

    per_epoch = True

    def table(self, ids, epoch=0):
        return np.array([2 if (number + epoch) % 2 else 0 for number in range(len(ids))], dtype=np.int8)


class LosesText:
    per_epoch = False

    def table(self, ids, epoch=0):
        return np.ones(len(ids), dtype=np.int8)


def test_batch_of_complete_and_missing_rows():
    rows = toy_rows(3)
    rows[1]["image"] = None
    rows[2]["text"] = None
    batch = FusionCollator(tiny_processor(), toy_spec())(rows)
    assert batch["missing_type"].tolist() == [0, 2, 1]
    assert batch["labels"].tolist() == [row["label"] for row in rows]
    assert batch["labels"].dtype == torch.int64
    assert batch["pixel_values"].shape == (3, 3, 32, 32)
    assert batch["pixel_values"][1].abs().max() == 0


def test_multi_label_targets_are_multi_hot():
    rows = [{**row, "label": label} for row, label in zip(toy_rows(3), ([0, 2], [], [1]))]
    labels = FusionCollator(tiny_processor(), toy_spec(problem_type="multi_label_classification"))(rows)["labels"]
    assert labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert labels.dtype == torch.float32


def test_regression_targets_are_floats():
    rows = [{**row, "label": label} for row, label in zip(toy_rows(2), (0.5, 2))]
    labels = FusionCollator(tiny_processor(), toy_spec(problem_type="regression", label_names=()))(rows)["labels"]
    assert labels.tolist() == [0.5, 2.0]


@pytest.mark.parametrize("label", [3, -1, 1.5, "red"])
def test_a_label_out_of_range_is_named(label):
    rows = [{**row, "label": label} for row in toy_rows(1)]
    with pytest.raises(ValueError, match=rf"'s000'.*{label!r}.*from 0 to 2"):
        FusionCollator(tiny_processor(), toy_spec())(rows)


def test_a_multi_label_target_must_be_a_list():
    with pytest.raises(ValueError, match="list of class numbers"):
        FusionCollator(tiny_processor(), toy_spec(problem_type="multi_label_classification"))(toy_rows(1))
    rows = [{**row, "label": [0, 7]} for row in toy_rows(1)]
    with pytest.raises(ValueError, match=r"label 7 .*from 0 to 2"):
        FusionCollator(tiny_processor(), toy_spec(problem_type="multi_label_classification"))(rows)


def test_a_row_without_label():
    rows = [{**row, "label": None} for row in toy_rows(1)]
    with pytest.raises(ValueError, match="no label"):
        FusionCollator(tiny_processor(), toy_spec())(rows)
    assert "labels" not in FusionCollator(tiny_processor(), toy_spec(), with_labels=False)(rows)


def test_key_frames_give_their_middle_one():
    frames = [row["image"] for row in toy_rows(3)]
    row = {**toy_rows(1)[0], "image": frames}
    both = FusionCollator(tiny_processor(), toy_spec())([row, {**row, "image": frames[1]}])
    assert torch.equal(both["pixel_values"][0], both["pixel_values"][1])


def test_missing_follows_the_epoch():
    dataset = FusionDataset(toy_dataset(4), toy_spec(), missing=EveryOther())
    assert [dataset[i]["image"] is None for i in range(4)] == [False, True, False, True]
    dataset.set_epoch(1)
    assert [dataset[i]["image"] is None for i in range(4)] == [True, False, True, False]


def test_simulation_never_empties_a_row():
    rows = toy_dataset(2).map(lambda row: {**row, "image": None})
    dataset = FusionDataset(rows, toy_spec(), missing=LosesText())
    assert dataset[0]["text"] is not None
    assert FusionDataset(toy_dataset(2), toy_spec(), missing=LosesText())[0]["text"] is None


def test_augmentation_depends_on_seed_epoch_and_id_only():
    def pixels(order, epoch, seed=5):
        dataset = FusionDataset(toy_dataset(4).select(order), toy_spec(), seed=seed, augment=RandAugmentById(2, 9))
        dataset.set_epoch(epoch)
        return {row["id"]: np.asarray(row["image"]).tobytes() for row in (dataset[i] for i in range(4))}

    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    first = pixels([0, 1, 2, 3], epoch=0)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(99)
    assert pixels([3, 1, 0, 2], epoch=0) == first
    assert pixels([0, 1, 2, 3], epoch=1) != first
    assert pixels([0, 1, 2, 3], epoch=0, seed=6) != first


def test_addresses_are_stable_across_versions():
    assert sample_seed(42, 0, "0106714") == 6452774778270080188
    assert sample_seed(42, 1, "0106714") != sample_seed(42, 0, "0106714")


def test_subset_is_independent_of_row_order():
    dataset = toy_dataset(20)
    ids = subset_by_hash(dataset, 5, seed=1)["id"]
    assert list(ids) == sorted(ids)
    assert len(ids) == 5
    reversed_ids = subset_by_hash(dataset.select(range(19, -1, -1)), 5, seed=1)["id"]
    assert set(reversed_ids) == set(ids)
    assert set(subset_by_hash(dataset, 5, seed=2)["id"]) != set(ids)
    assert len(subset_by_hash(dataset, 50, seed=1)) == 20


def test_wrong_columns_and_repeated_ids():
    with pytest.raises(ValueError, match=r"lacks the column.*caption"):
        FusionDataset(toy_dataset(2), toy_spec(text_column="caption"))
    repeated = toy_dataset(2).map(lambda row: {"id": "same"})
    with pytest.raises(ValueError, match="'same' occurs more than once"):
        FusionDataset(repeated, toy_spec())
