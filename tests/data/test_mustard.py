"""MUStARD on its real annotations: records, folds, every split scheme, and a fold file that would like to run code."""

import json
import pickle
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from fixtures_raw_trees import REAL_DATA, jpeg, write

from fusionzoo.training.data.conversion import LayoutError
from fusionzoo.training.data.mustard import SPLIT_SCHEMES
from fusionzoo.training.data.prepare import prepare_dataset
from fusionzoo.training.data.raw_files import RawFileError
from fusionzoo.training.data.restricted_pickle import load_fold_indices


pytestmark = pytest.mark.skipif(not REAL_DATA.is_dir(), reason="../shared/data is not here")
REAL = REAL_DATA / "mustard"


def link(folder, *names):
    for name in names:
        write(folder / name, (REAL_DATA / name if "/" in name else REAL / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = link(tmp_path_factory.mktemp("mustard"), "sarcasm_data.json", "split_indices.p")
    write(folder / "mustard_types.csv", (REAL_DATA / "mmoe" / "mustard_types.csv").read_bytes())
    return folder


def counts(raw, out, scheme, **options):
    report = prepare_dataset("mustard", raw, out, split_scheme=scheme, text_only=True, dry_run=True, **options)
    return report, {split: (part.seen, part.written) for split, part in report.splits.items()}


@pytest.mark.parametrize(
    ("scheme", "sizes"),
    [
        ("all", {"all": 690}),
        ("speaker_independent", {"train": 334, "test": 356}),
        ("mmoe", {"train": 251, "validation": 83, "test": 356}),
        ("mope_code", {"train": 334, "test": 356}),
        *((f"fold{k}", {"train": 552, "test": 138}) for k in range(5)),
    ],
)
def test_split_sizes(raw, tmp_path, scheme, sizes):
    report, found = counts(raw, tmp_path / "out", scheme)
    assert found == {split: (size, size) for split, size in sizes.items()}
    assert {split: part.expected for split, part in report.splits.items()} == sizes
    assert report.exit_code == 0
    assert [text for text in report.warnings if "mope_code" in text] == report.warnings
    assert bool(report.warnings) == (scheme == "mope_code")


def test_labels_of_the_splits(raw, tmp_path):
    positives = [counts(raw, tmp_path / "o", f"fold{k}")[0].label_histogram["test"]["sarcastic"] for k in range(5)]
    assert positives == [74, 71, 63, 76, 61]
    mmoe = counts(raw, tmp_path / "o", "mmoe")[0].label_histogram
    assert mmoe["train"] == {"not-sarcastic": 102, "sarcastic": 149}
    assert mmoe["validation"] == {"not-sarcastic": 39, "sarcastic": 44}
    assert counts(raw, tmp_path / "o", "all")[0].label_histogram == {"all": {"not-sarcastic": 345, "sarcastic": 345}}


def test_default_scheme_has_a_validation_split_and_the_official_test(raw, tmp_path):
    report = prepare_dataset("mustard", raw, tmp_path / "out", text_only=True, dry_run=True)
    found = {split: part.written for split, part in report.splits.items()}
    assert found == {"train": 251, "validation": 83, "test": 356}


def test_rows(raw, tmp_path):
    prepare_dataset("mustard", raw, tmp_path / "out", text_only=True, split_scheme="all")
    rows = [row for f in sorted((tmp_path / "out/mustard").glob("*.parquet")) for row in pq.read_table(f).to_pylist()]
    original = json.loads((REAL / "sarcasm_data.json").read_text())
    assert [row["id"] for row in rows] == list(original)
    assert Counter(row["show"] for row in rows) == {
        "FRIENDS": 356,
        "BBT": 280,
        "GOLDENGIRLS": 40,
        "SARCASMOHOLICS": 14,
    }
    assert len({row["speaker"] for row in rows}) == 21
    folds = Counter(row["fold"] for row in rows)
    assert folds == dict.fromkeys(range(5), 138)
    reference = json.loads((REAL / "split_indices.json").read_text())["folds"]
    assert all(rows[i]["fold"] == k for k, fold in enumerate(reference) for i in fold["test"])
    for row in rows:
        record = original[row["id"]]
        assert len(row["context"]) == len(row["context_speakers"]) == len(record["context"])
        assert row["label"] == record["sarcasm"] and row["speaker"] == record["speaker"]
        assert "<i>" not in row["utterance"] and not any("\n" in turn for turn in row["context"])
        assert row["frames"] == [] and row["audio"] is None
    tagged = [key for key, record in original.items() if "<i>" in record["utterance"]]
    assert tagged and all("  " not in row["utterance"] for row in rows)


def test_frames_are_spread_evenly(tmp_path):
    raw = link(tmp_path / "raw", "sarcasm_data.json")
    ids = list(json.loads((raw / "sarcasm_data.json").read_text()))
    for number in range(10):
        write(raw / "frames" / ids[0] / f"{number + 1:05d}.jpg", jpeg(number))
    write(raw / "frames" / ids[1] / "00001.jpg", jpeg(50))
    for k, expected in ((1, ["00006"]), (2, ["00003", "00008"]), (4, ["00002", "00004", "00007", "00009"])):
        report = prepare_dataset("mustard", raw, tmp_path / f"o{k}", frames=k, split_scheme="all", max_skip=1.0)
        assert report.splits["all"].written == 2 and len(report.splits["all"].skipped["clip_missing"]) == 688
        file = tmp_path / f"o{k}" / "mustard" / "all-00000-of-00002.parquet"
        rows = pq.read_table(file).to_pylist()
        assert [frame["path"][:5] for frame in rows[0]["frames"]] == expected and len(rows[1]["frames"]) == 1
        assert rows[0]["fold"] is None


def test_what_is_missing_is_named(raw, tmp_path):
    with pytest.raises(LayoutError, match="text_only=True"):
        prepare_dataset("mustard", raw, tmp_path / "out")
    bare = link(tmp_path / "bare", "sarcasm_data.json")
    for scheme, file in (("fold0", "split_indices"), ("mmoe", "mustard_types")):
        with pytest.raises(LayoutError, match=file):
            prepare_dataset("mustard", bare, tmp_path / "out", text_only=True, split_scheme=scheme)
    with pytest.raises(ValueError, match=SPLIT_SCHEMES[0]):
        prepare_dataset("mustard", bare, tmp_path / "out", split_scheme="random")
    write(bare / "split_indices.json", json.dumps({"folds": [{"train": [], "test": [0, 0]}]}))
    with pytest.raises(LayoutError, match="not a partition"):
        prepare_dataset("mustard", bare, tmp_path / "out", text_only=True)


def test_fold_pickle_equals_the_json_and_runs_nothing(tmp_path):
    folds = load_fold_indices(REAL / "split_indices.p")
    reference = json.loads((REAL / "split_indices.json").read_text())["folds"]
    assert [{"train": train, "test": test} for train, test in folds] == reference
    assert load_fold_indices(write(tmp_path / "new.p", pickle.dumps([(np.arange(3), np.arange(2))]))) == [
        ([0, 1, 2], [0, 1])
    ]

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    for content in (pickle.dumps(Evil()), b"garbage", pickle.dumps([1]), pickle.dumps([(np.zeros(2), np.zeros(2))])):
        with pytest.raises(RawFileError):
            load_fold_indices(write(tmp_path / "evil.p", content))
    assert not (tmp_path / "owned").exists()
