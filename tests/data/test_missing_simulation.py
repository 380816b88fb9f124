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
"""Which samples lose a modality: exact counts, the same whatever the order, and the published files."""

import random

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency

from fusionzoo.training.data.missing_simulation import MissingModality, MissingTable, apply_missing


IDS = [f"{number:06d}" for number in range(2000)]


def counts(codes):
    return np.bincount(codes, minlength=3).tolist()


@pytest.mark.parametrize(
    ("rate", "kind", "ratio", "size", "expected"),
    [
        (0.0, "image", 0.5, 100, [100, 0, 0]),
        (1.0, "text", 0.5, 100, [0, 100, 0]),
        (0.29, "image", 0.5, 100, [71, 0, 29]),  # int(100 * 0.29) is 28 in floating point
        (0.7, "image", 0.5, 61142, [18343, 0, 42799]),  # Food-101's train split
        (0.7, "both", 0.5, 2608, [783, 913, 912]),  # MM-IMDb's dev split: 1825 incomplete, floor(912.5) without image
        (0.5, "both", 0.25, 10, [5, 4, 1]),
        (0.9, "both", 1.0, 7, [1, 0, 6]),
        (0.3, "text", 0.5, 3, [3, 0, 0]),
        (0.5, "image", 0.5, 0, [0, 0, 0]),
    ],
)
def test_exact_counts(rate, kind, ratio, size, expected):
    codes = MissingModality(rate, kind, both_ratio=ratio, seed=7).table([str(number) for number in range(size)])
    assert codes.dtype == np.int8
    assert counts(codes) == expected


def test_known_choice():
    """The choice is part of every reported number, so it must never change."""
    ids = ["tt0106714", "04796", "1_60", "apple_pie_12", "a", "b", "c", "ü", "1000000001.jpg#2r1e", ""]
    assert MissingModality(0.5, "image").table(ids).tolist() == [0, 2, 0, 2, 0, 2, 2, 0, 2, 0]
    assert MissingModality(0.8, "both", seed=42).table(ids).tolist() == [2, 0, 0, 2, 1, 1, 1, 2, 1, 2]
    assert MissingModality(0.8, "both", seed=42, per_epoch=True).table(ids, epoch=3).tolist() == [
        0,
        2,
        1,
        2,
        2,
        2,
        1,
        0,
        1,
        1,
    ]


@pytest.mark.parametrize("kind", ["image", "text", "both"])
def test_order_of_rows_does_not_matter(kind):
    missing = MissingModality(0.6, kind, seed=1)
    shuffled = IDS.copy()
    random.Random(0).shuffle(shuffled)
    assert dict(zip(IDS, missing.table(IDS))) == dict(zip(shuffled, missing.table(shuffled)))


def test_higher_rate_keeps_what_is_missing_at_a_lower_one():
    low, high = (MissingModality(rate, "image", seed=5).table(IDS) for rate in (0.2, 0.6))
    assert set(np.flatnonzero(low)) < set(np.flatnonzero(high))


def test_epochs():
    fixed, fresh = MissingModality(0.5, "both", seed=3), MissingModality(0.5, "both", seed=3, per_epoch=True)
    assert np.array_equal(fixed.table(IDS, epoch=0), fixed.table(IDS, epoch=9))
    assert np.array_equal(fixed.table(IDS), fresh.table(IDS, epoch=0))
    tables = [fresh.table(IDS, epoch=epoch) for epoch in range(3)]
    assert all(counts(table) == [1000, 500, 500] for table in tables)
    pairs = np.zeros((3, 3))
    np.add.at(pairs, (tables[1], tables[2]), 1)
    assert chi2_contingency(pairs).pvalue > 0.001  # epochs are independent of each other


def test_seeds_and_reasons_are_independent():
    one, two = (MissingModality(0.5, "both", seed=seed).table(IDS) for seed in (0, 1))
    pairs = np.zeros((3, 3))
    np.add.at(pairs, (one, two), 1)
    assert chi2_contingency(pairs).pvalue > 0.001


def test_stream_without_a_length():
    missing = MissingModality(0.3, "both", both_ratio=0.8, seed=2)
    codes = np.array([missing.missing_type_of(sample_id) for sample_id in IDS])
    assert abs(np.mean(codes > 0) - 0.3) < 4 * (0.3 * 0.7 / len(IDS)) ** 0.5
    assert abs(np.mean(codes[codes > 0] == 2) - 0.8) < 4 * (0.8 * 0.2 / 600) ** 0.5
    assert codes[17] == missing.missing_type_of(IDS[17])
    assert {int(MissingModality(1.0, "text").missing_type_of(sample_id)) for sample_id in IDS} == {1}
    assert {int(MissingModality(0.0, "text").missing_type_of(sample_id)) for sample_id in IDS} == {0}
    exact = MissingModality(0.3, "both", both_ratio=0.8, seed=2).table(IDS)
    assert np.mean((exact > 0) == (codes > 0)) > 0.95  # the same order decides both


def test_rows_lose_exactly_what_is_named():
    row = {"id": "1", "image": "picture", "text": "", "label": 3}
    missing = MissingModality(0.5, "image")
    assert missing.apply(row, 0) == row
    assert missing.apply(row, 1) == {**row, "text": None}
    assert missing.apply(row, 2) == {**row, "image": None}
    assert row["image"] == "picture"
    frames = {"frames": ["a", "b"], "utterance": "hello"}
    assert apply_missing(frames, 2, image_column="frames", text_column="utterance") == {**frames, "frames": None}


def test_a_row_never_loses_its_last_modality():
    assert apply_missing({"image": None, "text": "x"}, 1) == {"image": None, "text": "x"}
    assert apply_missing({"image": "x", "text": None}, 2) == {"image": "x", "text": None}


def test_table_survives_a_file(tmp_path):
    codes = dict(zip(IDS, MissingModality(0.4, "both").table(IDS)))
    MissingTable(codes).save(tmp_path / "table.json")
    again = MissingTable.load(tmp_path / "table.json")
    assert again.codes == codes
    assert again.table(IDS[::-1]).tolist() == [codes[sample_id] for sample_id in IDS[::-1]]
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]
    (tmp_path / "other.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="expected an object"):
        MissingTable.load(tmp_path / "other.json")
    with pytest.raises(KeyError, match=r"lacks 1 of 2 ids, .*'new'"):
        again.table([IDS[0], "new"])
    with pytest.raises(ValueError, match="3 for the id 'a'; allowed: 0"):
        MissingTable({"a": 3})


def test_published_vectors(tmp_path):
    ids = ["a", "b", "c", "d"]
    torch.save(torch.tensor([0.0, 2.0, 1.0, 0.0]), tmp_path / "train_missing_both_07.pt")
    table = MissingTable.from_official(tmp_path / "train_missing_both_07.pt", ids)
    assert table.codes == {"a": 0, "b": 2, "c": 1, "d": 0}
    with pytest.raises(ValueError, match="4 codes for 3 ids"):
        MissingTable.from_official(tmp_path / "train_missing_both_07.pt", ids[:3])
    torch.save(torch.tensor([0.0, 0.5]), tmp_path / "half.pt")
    with pytest.raises(ValueError, match=r"0\.5 for the id 'b'"):
        MissingTable.from_official(tmp_path / "half.pt", ["a", "b"])
    torch.save({"codes": torch.zeros(2)}, tmp_path / "dict.pt")
    with pytest.raises(ValueError, match="expected a vector"):
        MissingTable.from_official(tmp_path / "dict.pt", ["a", "b"])


class Attack:
    def __reduce__(self):
        return (open, ("attacked", "w"))


def test_a_file_with_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Attack(), tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="is not a file of tensors"):
        MissingTable.from_official(tmp_path / "evil.pt", ["a"])
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate": 1.5}, "`rate` is 1.5; give a share from 0 to 1"),
        ({"rate": float("nan")}, "`rate` is nan"),
        ({"both_ratio": -0.1}, "`both_ratio` is -0.1"),
        ({"kind": "audio"}, "`kind` is 'audio'; allowed: image, text, both"),
    ],
)
def test_wrong_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        MissingModality(**{"rate": 0.5, "kind": "image", **changes})


def test_wrong_ids_and_rows():
    missing = MissingModality(0.5, "image")
    with pytest.raises(ValueError, match="'a' occurs more than once"):
        missing.table(["a", "b", "a"])
    with pytest.raises(TypeError, match=r"Ids must be strings, not int \(7\)"):
        missing.table(["a", 7])
    with pytest.raises(KeyError, match="no column 'image'"):
        missing.apply({"text": "x"}, 2)
    with pytest.raises(ValueError, match="4"):
        missing.apply({"image": 1, "text": "x"}, 4)
