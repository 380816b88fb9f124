"""The engine: bytes, resume, lock, policies, reports, hostile trees."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from datasets import load_dataset
from filelock import FileLock
from fixtures_raw_trees import bomb_png, encoded, files_of, food_kaggle, jpeg, picture, write

from fusionzoo.training.data import prepare as prepare_module
from fusionzoo.training.data.conversion import LayoutError, OutputFolderError
from fusionzoo.training.data.prepare import prepare_command, prepare_dataset, verify_dataset
from fusionzoo.training.data.prepare_report import Report
from fusionzoo.training.data.registry import get_dataset_spec
from fusionzoo.training.data.shard_writer import JOURNAL_FILE, LOCK_FILE


SHARDS = {"rows_per_shard": 4, "max_skip": 1.0}


@pytest.fixture
def raw(tmp_path):
    return food_kaggle(tmp_path / "raw")


def result_of(out: Path) -> dict[str, bytes]:
    return files_of(out, "*.parquet", "report.json", "README.md")


def test_what_is_written(raw, tmp_path):
    out = tmp_path / "out"
    report = prepare_dataset("food101", raw, out, **SHARDS)
    assert report.exit_code == 0
    assert {name: (s.seen, s.written) for name, s in report.splits.items()} == {
        "train": (11, 11),
        "validation": (1, 1),
        "test": (6, 6),
    }
    assert sorted(path.name for path in (out / "food101").iterdir()) == [
        "test-00000-of-00002.parquet",
        "test-00001-of-00002.parquet",
        "train-00000-of-00003.parquet",
        "train-00001-of-00003.parquet",
        "train-00002-of-00003.parquet",
        "validation-00000-of-00001.parquet",
    ]
    assert sorted(path.name for path in out.iterdir()) == [
        JOURNAL_FILE,
        LOCK_FILE,
        "README.md",
        "food101",
        "report.json",
    ]
    content = json.loads((out / "report.json").read_text())
    assert content == report.to_dict()
    assert list(content) == [
        "dataset",
        "variant",
        "tool",
        "config_hash",
        "splits",
        "repairs",
        "label_histogram",
        "duplicate_images_across_splits",
        "warnings",
    ]
    assert content["splits"]["test"] == {"expected": 22716, "seen": 6, "written": 6, "skipped": {}}
    assert content["label_histogram"]["test"] == {"apple_pie": 2, "pizza": 2, "sushi": 2}
    assert any("22,716 records expected, 6 found" in text for text in content["warnings"])
    assert verify_dataset(out).exit_code == 0


@pytest.mark.parametrize("streaming", [False, True])
def test_load_dataset_reads_the_folder(raw, tmp_path, streaming):
    out = tmp_path / "out"
    prepare_dataset("food101", raw, out, **SHARDS)
    data = load_dataset(str(out), streaming=streaming, cache_dir=str(tmp_path / "cache"))
    assert set(data) == {"train", "validation", "test"}
    assert data["test"].features == get_dataset_spec("food101").features
    row = next(iter(data["test"]))
    assert row["id"] == "apple_pie_1000" and row["text"] == "Best apple pie no. 0" and row["label"] == 0
    assert row["source"] == "images/test/apple_pie/apple_pie_1000.jpg" and row["image"].size == (48, 32)
    stored = load_dataset(
        "parquet", data_files=str(out / "food101" / "test-00000*.parquet"), cache_dir=str(tmp_path / "c")
    )
    assert stored["train"].features == get_dataset_spec("food101").features


def test_original_bytes_are_kept(raw, tmp_path):
    import pyarrow.parquet as pq

    prepare_dataset("food101", raw, tmp_path / "out")
    for file in (tmp_path / "out" / "food101").glob("*.parquet"):
        for row in pq.read_table(file).to_pylist():
            assert row["image"]["bytes"] == (raw / row["source"]).read_bytes()


def test_same_input_same_bytes_whatever_the_workers(raw, tmp_path):
    results = []
    for number, workers in enumerate((1, 1, 3)):
        prepare_dataset("food101", raw, tmp_path / str(number), workers=workers, **SHARDS)
        results.append(result_of(tmp_path / str(number)))
    assert results[0] == results[1] == results[2] and len(results[0]) == 8


def test_a_second_build_touches_nothing(raw, tmp_path):
    out = tmp_path / "out"
    first = prepare_dataset("food101", raw, out, **SHARDS)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != LOCK_FILE and path.is_file()}
    events = []
    second = prepare_dataset("food101", raw, out, progress=events.append, **SHARDS)
    assert second == first and events == [{"event": "unchanged", "folder": str(out)}]
    assert times == {path: path.stat().st_mtime_ns for path in times}


class Killed(BaseException):
    """Not an Exception, so that nothing on the way handles it."""


@contextmanager
def killed_at_sync(number: int):
    """The process 'dies' at the n-th flush to disk: before it, or (odd numbers) after it."""
    real, calls = os.fsync, 0

    def fsync(descriptor):
        nonlocal calls
        calls += 1
        if calls == number:
            raise Killed
        real(descriptor)

    os.fsync = fsync
    try:
        yield lambda: calls
    finally:
        os.fsync = real


def test_broken_off_anywhere_and_resumed(raw, tmp_path):
    write(raw / "images/train/pizza/pizza_4.jpg", b"<html>")
    write(raw / "images/test/pizza/pizza_1001.jpg", jpeg(0))  # the picture of apple_pie_0
    with killed_at_sync(-1) as calls:
        whole = prepare_dataset("food101", raw, tmp_path / "whole", **SHARDS)
    expected, points = result_of(tmp_path / "whole"), calls()
    assert points > 30 and whole.duplicate_images_across_splits == [["apple_pie_0", "pizza_1001"]]
    for number in range(1, points + 1, 3):
        out = tmp_path / f"out{number}"
        with killed_at_sync(number), pytest.raises(Killed):
            prepare_dataset("food101", raw, out, **SHARDS)
        events = []
        report = prepare_dataset("food101", raw, out, progress=events.append, **SHARDS)
        assert result_of(out) == expected and report == whole
        finished = [event["event"] for event in events]
        if number > points // 2:
            assert "kept" in finished or finished == ["unchanged"]
    assert "written" not in finished  # killed at the very end, no shard was made again


_CHILD = """
import os, signal, sys
from fusionzoo.training.data.prepare import prepare_dataset
real, left = os.replace, int(sys.argv[3])
def replace(*paths):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(*paths)
os.replace = replace
prepare_dataset("food101", sys.argv[1], sys.argv[2], rows_per_shard=4, max_skip=1.0)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_sigkill_and_resume(raw, tmp_path):
    prepare_dataset("food101", raw, tmp_path / "whole", **SHARDS)
    out = tmp_path / "out"
    root = Path(prepare_module.__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    for replacements in (4, 3):  # within the second shard, then within one of the following
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, raw, out, str(replacements)], env=environment, check=False
        )
        assert done.returncode == -signal.SIGKILL
    events = []
    prepare_dataset("food101", raw, out, progress=events.append, **SHARDS)
    assert [event["event"] for event in events].count("kept") >= 2
    assert result_of(out) == result_of(tmp_path / "whole")


def test_half_a_journal_line(raw, tmp_path):
    out = tmp_path / "out"
    prepare_dataset("food101", raw, tmp_path / "whole", **SHARDS)
    with killed_at_sync(20), pytest.raises(Killed):
        prepare_dataset("food101", raw, out, **SHARDS)
    journal = out / JOURNAL_FILE
    journal.write_bytes(journal.read_bytes()[:-20])
    prepare_dataset("food101", raw, out, **SHARDS)
    assert result_of(out) == result_of(tmp_path / "whole")


def test_changed_options_or_data_start_over(raw, tmp_path):
    out = tmp_path / "out"
    prepare_dataset("food101", raw, out, **SHARDS)
    for changes in ({"rows_per_shard": 3}, {"rows_per_shard": 3, "text_clean": "mmbt"}):
        events = []
        prepare_dataset("food101", raw, out, progress=events.append, **{**SHARDS, **changes})
        assert events[0]["event"] == "restart" and "options" in events[0]["reason"]
        prepare_dataset("food101", raw, tmp_path / str(changes), **{**SHARDS, **changes})
        assert result_of(out) == result_of(tmp_path / str(changes))
    titles = raw / "texts" / "test_titles.csv"
    titles.write_bytes(titles.read_bytes().replace(b"Best", b"Worst"))
    report = prepare_dataset("food101", raw, out, **SHARDS)
    assert report.splits["test"].written == 6 and b"Worst" in b"".join(result_of(out).values())


def test_a_damaged_shard_is_noticed(raw, tmp_path):
    out = tmp_path / "out"
    prepare_dataset("food101", raw, out, **SHARDS)
    expected = result_of(out)
    shard = out / "food101" / "test-00001-of-00002.parquet"
    shard.write_bytes(shard.read_bytes()[:-1] + b"X")
    report = verify_dataset(out)
    assert report.exit_code == 4 and "changed after the build" in report.errors[0]
    prepare_dataset("food101", raw, out, **SHARDS)
    assert result_of(out) == expected and verify_dataset(out).exit_code == 0


def test_lock(raw, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with FileLock(out / LOCK_FILE), pytest.raises(OutputFolderError, match="Another process is building"):
        prepare_dataset("food101", raw, out)
    assert prepare_dataset("food101", raw, out).exit_code == 0


def test_foreign_and_nested_folders_are_left_alone(raw, tmp_path):
    write(tmp_path / "mine" / "thesis.txt", "mine")
    with pytest.raises(OutputFolderError, match=r"thesis\.txt"):
        prepare_dataset("food101", raw, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "mine"
    for out in (raw, raw / "out", tmp_path):
        with pytest.raises(OutputFolderError, match="must not contain each other"):
            prepare_dataset("food101", raw, out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "limit=0"),
        ({"workers": 0}, "workers=0"),
        ({"text_clean": "very"}, "standard, none, mmbt"),
        ({"max_skip": 2}, "between 0 and 1"),
        ({"plot": "first"}, "no option 'plot'"),
        ({"splits": ["dev"]}, "train, validation, test"),
        ({"validation_share": 1.0}, "less than 1"),
        ({"variant": "hdf5"}, "kaggle, missing-modality, owner"),
    ],
)
def test_bad_options(raw, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        prepare_dataset("food101", raw, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_missing_and_incomplete_raw_trees_say_where_to_get_them(raw, tmp_path):
    with pytest.raises(LayoutError, match=r"(?s)there is no folder.*gianmarco96/upmcfood101"):
        prepare_dataset("food101", tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LayoutError, match=r"(?s)nothing of its raw distribution.*research use only"):
        prepare_dataset("food101", tmp_path / "empty", tmp_path / "out")
    (raw / "texts" / "train_titles.csv").unlink()
    with pytest.raises(LayoutError, match=r"(?s)layout 'kaggle', but these are missing: texts/train_titles.csv"):
        prepare_dataset("food101", raw, tmp_path / "out")


def test_limit_splits_dry_run_and_raw_text(raw, tmp_path):
    out = tmp_path / "out"
    report = prepare_dataset("food101", raw, out, limit=2, splits=["test"], keep_raw_text=True, text_clean="mmbt")
    assert list(report.splits) == ["test"] and report.splits["test"].written == 2
    assert "Partial" in (out / "README.md").read_text()
    row = load_dataset(str(out), cache_dir=str(tmp_path / "c"))["test"][0]
    assert (row["text"], row["text_raw"]) == ("best apple pie no 0", "Best apple pie no. 0")
    dry = prepare_dataset("food101", raw, tmp_path / "dry", dry_run=True)
    assert dry.written == 18 and not (tmp_path / "dry").exists()


@pytest.fixture
def hostile(tmp_path):
    """A tree with every kind of bad record; returns (tree, {reason: ids})."""
    raw = food_kaggle(tmp_path / "raw", train=40)
    secret = write(tmp_path / "outside" / "pizza_900.jpg", jpeg(900))
    folder = raw / "images" / "train" / "pizza"
    folder.joinpath("pizza_901.jpg").symlink_to(secret)
    bad = {
        "pizza_910.jpg": (b"<!DOCTYPE html>", "image_unreadable"),
        "pizza_911.jpg": (jpeg(1)[:300], "image_unreadable"),
        "pizza_912.jpg": (bomb_png(), "image_too_large"),
        "pizza_913.jpg": (b"", "image_unreadable"),
    }
    expected = {}
    lines = []
    for file, (content, reason) in bad.items():
        write(folder / file, content)
        lines.append(f"{file},A title,pizza")
        expected.setdefault(reason, []).append(file[:-4])
    for file, label, reason in (
        ("pizza_901.jpg", "pizza", "unsafe_path"),
        ("../../../../outside/pizza_900.jpg", "pizza", "unsafe_path"),
        ("/etc/passwd", "passwd", "unsafe_path"),
        ("pizza_..\\..\\x.jpg", "pizza", "unsafe_path"),
        ("pizza_\0.jpg", "pizza", "unsafe_path"),
        ("pizza_..", "pizza", "image_missing"),
        ("pizza_999.jpg", "pizza", "image_missing"),
        ("mud_1.jpg", "mud", "class_unknown"),
        ("pizza_1.jpg", "pizza", "duplicate_id"),
    ):
        lines.append(f"{file},A title,{label}")
        expected.setdefault(reason, []).append(os.path.splitext(file)[0])
    lines += ["pizza_1.jpg,only two", "pizza_914.jpg,&nbsp; <br>,pizza", f"pizza_915.jpg,{'long ' * 200_000},pizza"]
    write(folder / "pizza_914.jpg", jpeg(914))
    write(folder / "pizza_915.jpg", encoded(picture(915, mode="CMYK"), "JPEG"))
    expected["line_malformed"] = ["train_titles.csv:54"]
    expected["text_empty"] = ["pizza_914"]
    titles = raw / "texts" / "train_titles.csv"
    titles.write_bytes(titles.read_bytes() + "\r\n".join(lines).encode())
    return raw, expected


def test_hostile_tree(hostile, tmp_path):
    raw, expected = hostile
    opened = []
    listening = True

    def audit(event, arguments):
        if listening and event == "open" and isinstance(arguments[0], str):
            opened.append(arguments[0])

    sys.addaudithook(audit)
    try:
        report = prepare_dataset("food101", raw, tmp_path / "out", max_skip=0.5, validation_share=0)
    finally:
        listening = False
    found = report.splits["train"].skipped
    assert {reason: sorted(ids) for reason, ids in found.items()} == {k: sorted(v) for k, v in expected.items()}
    assert report.repairs == {"mode_converted": 1, "text_cut": 1}
    assert report.exit_code == 3
    assert any(path.endswith("pizza_910.jpg") for path in opened)
    assert not [path for path in opened if "outside" in path or path == "/etc/passwd"]
    assert verify_dataset(tmp_path / "out").exit_code == 3


def test_policies(hostile, tmp_path):
    raw, _ = hostile
    out = tmp_path / "out"
    assert prepare_dataset("food101", raw, out).exit_code == 4  # 1 % is the limit
    events = []
    assert prepare_dataset("food101", raw, out, max_skip=0.5, progress=events.append).exit_code == 3
    assert prepare_dataset("food101", raw, out, max_skip=0.5, strict=True, progress=events.append).exit_code == 4
    assert {event["event"] for event in events} == {"unchanged"}  # a policy is no reason to build again
    assert Report.load(out, max_skip=0.5).exit_code == 3


def test_command(hostile, tmp_path):
    raw, _ = hostile
    lines = []
    assert prepare_command("food101", raw, tmp_path / "out", max_skip=0.5, echo=lines.append) == 3
    text = "\n".join(lines)
    assert "skipped in train, image_too_large: pizza_912" in text and "A title" not in text
    assert prepare_command("food101", tmp_path / "no", tmp_path / "out2", echo=lines.append) == 2
    assert "gianmarco96" in lines[-1]

    def interrupt(*_):
        raise KeyboardInterrupt

    assert prepare_command("food101", raw, tmp_path / "out3", echo=lines.append, max_skip=0.5, rows_per_shard=9) == 3
    real, prepare_module.merge_statistics = prepare_module.merge_statistics, interrupt
    try:
        assert prepare_command("food101", raw, tmp_path / "out4", echo=lines.append) == 130
    finally:
        prepare_module.merge_statistics = real


def test_allow_truncated(raw, tmp_path):
    whole = encoded(picture(3, (256, 256)).effect_spread(40), "JPEG")
    write(raw / "images/test/pizza/pizza_1001.jpg", whole[: len(whole) // 2])
    assert prepare_dataset("food101", raw, tmp_path / "a").splits["test"].skipped == {
        "image_unreadable": ["pizza_1001"]
    }
    report = prepare_dataset("food101", raw, tmp_path / "b", allow_truncated=True, workers=2)
    assert report.exit_code == 0 and report.repairs == {"truncated": 1}
    assert verify_dataset(tmp_path / "b").exit_code == 0  # what is stored decodes completely


def test_verify_refuses_unfinished_and_foreign_folders(raw, tmp_path):
    with killed_at_sync(9), pytest.raises(Killed):
        prepare_dataset("food101", raw, tmp_path / "out", **SHARDS)
    with pytest.raises(ValueError, match="not finished"):
        verify_dataset(tmp_path / "out")
    with pytest.raises(ValueError, match="was not made by"):
        verify_dataset(raw)


def test_verify_sample(raw, tmp_path):
    prepare_dataset("food101", raw, tmp_path / "out")
    report = verify_dataset(tmp_path / "out", sample=2)
    assert report.exit_code == 0 and report.written == 18
