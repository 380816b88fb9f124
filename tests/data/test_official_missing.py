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
"""The official missing tables: fingerprints, refusals, and their use by a data set and a recipe."""

import json
import random

import numpy as np
import pytest

from fusionzoo.training.arguments import DataArguments
from fusionzoo.training.data.official_missing import (
    OfficialItems,
    OfficialMissing,
    official_file_name,
    official_tables,
)
from fusionzoo.training.task_loading import load_task_data


SIZES = {"train": 20, "validation": 10, "test": 10}
IDS = [f"id{row}" for row in range(20)]


def missing_for(**changes) -> OfficialMissing:
    settings = {
        "split": "train", "sizes": SIZES, "rate": dict.fromkeys(SIZES, 0.7), "kind": dict.fromkeys(SIZES, "both"),
    }  # fmt: skip
    return OfficialMissing(**{**settings, **changes})


def test_the_global_generator_gives_the_same_and_is_left_alone():
    state = random.getstate()
    tables = official_tables(SIZES, "both", 0.7, seed=3)
    assert random.getstate() == state
    random.seed(3)
    for split, rows in SIZES.items():
        chosen = random.sample(range(rows), int(rows * 0.7))
        images = random.sample(chosen, int(len(chosen) * 0.5))
        expected = [2 if row in images else 1 if row in chosen else 0 for row in range(rows)]
        assert tables[split].tolist() == expected
    random.setstate(state)


def test_a_split_depends_on_those_before_it():
    whole = official_tables(SIZES, "both", 0.7)
    without = official_tables({"validation": 10, "test": 10}, "both", 0.7)
    kept = official_tables(SIZES, "both", 0.7, kept={"train": whole["train"]})
    assert not np.array_equal(whole["validation"], without["validation"])
    assert np.array_equal(kept["validation"], without["validation"])
    complete = official_tables(SIZES, "both", {"train": 0.0, "validation": 0.7, "test": 0.7})
    assert np.array_equal(complete["validation"], without["validation"])


def test_a_saved_table_is_used_only_where_it_fits(tmp_path):
    missing, path = missing_for(), tmp_path / "train.json"
    missing.save(path, IDS)
    assert np.array_equal(missing.load(path, IDS), missing.table(IDS))
    for changes, message in (
        ({"seed": 1}, "is stale: seed is 0, wanted 1. Delete it"),
        ({"both_ratio": 0.3}, "both_ratio is 0.5, wanted 0.3"),
        ({"sizes": {**SIZES, "validation": 9}}, "sizes is"),
        ({"rate": {**dict.fromkeys(SIZES, 0.7), "test": 0.5}}, "rate is"),
        ({"kind": dict.fromkeys(SIZES, "text")}, "kind is"),
    ):
        with pytest.raises(ValueError, match=message):
            missing_for(**changes).load(path, IDS)
    with pytest.raises(ValueError, match="its ids or codes are not those"):
        missing.load(path, IDS[::-1])
    with pytest.raises(ValueError, match="no table of these ids"):
        missing.load(path, [*IDS[:-1], "other"])
    content = json.loads(path.read_text())
    content["codes"]["id0"] = (content["codes"]["id0"] + 1) % 3
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="its ids or codes are not those"):
        missing.load(path, IDS)
    path.write_text("[]")
    with pytest.raises(ValueError, match="no table of these ids"):
        missing.load(path, IDS)


def test_wrong_settings():
    with pytest.raises(ValueError, match="is for 20 rows, but there are 19; it needs the whole split"):
        missing_for().table(IDS[:-1])
    with pytest.raises(ValueError, match="split='dev'"):
        missing_for(split="dev")
    with pytest.raises(ValueError, match="`rate` has no entry for the split 'validation'"):
        missing_for(rate={"train": 0.5})
    with pytest.raises(ValueError, match=r"`rate` is 1\.5"):
        missing_for(rate=dict.fromkeys(SIZES, 1.5))
    with pytest.raises(ValueError, match="`kind` is 'audio'"):
        missing_for(kind=dict.fromkeys(SIZES, "audio"))
    with pytest.raises(ValueError, match="dataset='snli_ve' has no official tables"):
        official_file_name("snli_ve", "train", "both", 0.7)
    assert official_file_name("food101", "validation", "text", 1.0) == "food101_val_missing_text_10.pt"


def test_items_keep_what_the_table_leaves():
    rows = [{"image": "a", "plots": ["one", "two"]}, {"image": "b", "plots": ["three"]}]
    items = OfficialItems(rows, [1, 2])
    shown = [(each["image"], each["text"], each["row"], each["plot"]) for each in (items[i] for i in range(3))]
    assert shown == [("a", None, 0, 0), ("a", None, 0, 1), (None, "three", 1, 0)]
    with pytest.raises(ValueError, match="3 codes for 2 rows"):
        OfficialItems(rows, [0, 0, 0])
    with pytest.raises(ValueError, match="give the one that drew the table"):
        OfficialItems(rows, [0, 0], simulate_missing=True)


def test_a_recipe_can_ask_for_the_official_tables(tmp_path):
    sizes = {"train": 30, "validation": 12, "test": 12}
    options = {"root": str(tmp_path / "food"), "sizes": sizes}
    root = options.pop("root")
    data = DataArguments(
        name="demo:food", root=root, options=options, missing_rate=0.7, missing_eval_rate=0.5,
        missing_table="official",
    )  # fmt: skip
    task = load_task_data(data, seed=5)
    rate = {"train": 0.7, "validation": 0.5, "test": 0.5}
    found = {name: len(getattr(task, name)) for name in sizes}
    expected = official_tables(found, "both", rate, seed=5)
    for name in sizes:
        assert np.array_equal(getattr(task, name).missing_types(), expected[name])
    with pytest.raises(ValueError, match="one table for all epochs"):
        DataArguments(name="demo:food", missing_table="official", missing_per_epoch=True)
    with pytest.raises(ValueError, match=r"data\.metric_rules must be one of standard, dcp_official"):
        DataArguments(name="demo:food", metric_rules="official")
