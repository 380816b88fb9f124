"""Each converter on made-up trees of the owners' layouts: rows, labels, repairs, skips, editions."""

import json

import pyarrow.parquet as pq
import pytest
from fixtures_raw_trees import (
    FOOD_CLASSES,
    REAL_DATA,
    encoded,
    food_kaggle,
    jpeg,
    json_lines,
    mmimdb,
    mmimdb_record,
    picture,
    write,
)

from fusionzoo.training.data import conversion
from fusionzoo.training.data.conversion import LayoutError
from fusionzoo.training.data.demos import write_demo_raw
from fusionzoo.training.data.images import store_image
from fusionzoo.training.data.prepare import prepare_dataset, verify_dataset
from fusionzoo.training.data.registry import get_dataset_spec


needs_real_data = pytest.mark.skipif(not REAL_DATA.is_dir(), reason="../shared/data is not here")


def prepared(name, raw, out, **options):
    """(report, {split: rows in storage form}, {id: row})."""
    report = prepare_dataset(name, raw, out, **{"max_skip": 1.0, **options})
    rows = {
        split: [
            row
            for file in sorted((out / get_dataset_spec(name).config_name).glob(f"{split}-*.parquet"))
            for row in pq.read_table(file).to_pylist()
        ]
        for split in report.splits
    }
    return report, rows, {row["id"]: row for part in rows.values() for row in part}


# Food-101 -----------------------------------------------------------------------------------------------------------


def test_food_kaggle_takes_a_tenth_of_each_class_for_validation(tmp_path):
    raw = food_kaggle(tmp_path / "raw", train=60)
    report, rows, _ = prepared("food101", raw, tmp_path / "out")
    assert {split: len(part) for split, part in rows.items()} == {"train": 54, "validation": 6, "test": 6}
    assert report.label_histogram["validation"] == {"apple_pie": 2, "pizza": 2, "sushi": 2}
    assert any("no validation split" in text for text in report.warnings)
    again = prepared("food101", raw, tmp_path / "again", validation_share=0)
    assert list(again[1]) == ["train", "test"] and len(again[1]["train"]) == 60


def test_food_kaggle_with_split_json(tmp_path):
    raw = food_kaggle(tmp_path / "raw")
    split = {"train": [f"{FOOD_CLASSES[i % 3]}_{i}.jpg" for i in range(7)], "val": ["sushi_11.jpg"], "test": []}
    write(raw / "split.json", json.dumps(split))
    report, rows, _ = prepared("food101", raw, tmp_path / "out")
    assert {name: len(part) for name, part in rows.items()} == {"train": 7, "validation": 1, "test": 6}
    assert rows["validation"][0]["source"] == "images/train/sushi/sushi_11.jpg"
    assert any(text.startswith("4 train titles are in neither list") for text in report.warnings)


def test_food_missing_modality_layout_is_preferred_and_said(tmp_path):
    raw = food_kaggle(tmp_path / "raw")
    write(raw / "images/train/pizza/pizza_7-12.jpg", jpeg(77))
    split = {
        "train": ["sushi_2.jpg", "pizza_7-12.jpg"],
        "val": ["apple_pie_3.jpg", "sushi_5.jpg"],
        "test": ["pizza_1001.jpg"],
    }
    titles = {
        "sushi_2.jpg": "One",
        "pizza_7-12.jpg": ["As a list"],
        "apple_pie_3.jpg": '[["Amy\'s', "pizza_1001.jpg": "T &amp;amp; U",
    }  # fmt: skip
    write(raw / "split.json", json.dumps(split))
    write(raw / "text.json", json.dumps(titles))
    write(raw / "class_idx.json", json.dumps({name: i for i, name in enumerate(reversed(FOOD_CLASSES))}))
    report, rows, by_id = prepared("food101", raw, tmp_path / "out")
    assert report.variant == "missing-modality"
    assert any("also looks like kaggle" in text for text in report.warnings)
    assert [row["text"] for row in rows["train"]] == ["One", "As a list"]
    assert by_id["apple_pie_3"]["text"] == "Amy's" and by_id["pizza_1001"]["text"] == "T & U"
    assert report.splits["validation"].skipped == {"title_missing": ["sushi_5"]}
    assert report.splits["train"].expected == 61142
    kept = prepared("food101", raw, tmp_path / "kept", keep_textless=True)[2]
    assert kept["sushi_5"]["text"] == ""


def test_food_owner_layout_and_one_enclosing_folder(tmp_path):
    base = tmp_path / "raw" / "UPMC"
    write(base / "images/train/pizza/pizza_1.JPG", jpeg(1))
    write(base / "images/train/pizza/pizza_2.jpg", jpeg(2))
    write(base / "images/test/sushi/sushi_9.jpg", jpeg(9))
    write(base / "texts_txt/pizza/pizza_1.txt", "<html><body>All about\npizza &amp; more\xa0</body></html>")
    write(base / "texts_txt/sushi/sushi_9.txt", b"broken \xff byte " + b"x" * 200_000)
    report, rows, by_id = prepared("food101", tmp_path / "raw", tmp_path / "out", validation_share=0)
    assert report.variant == "owner" and by_id["pizza_1"]["text"] == "All about pizza & more"
    assert by_id["pizza_1"]["source"] == "images/train/pizza/pizza_1.JPG"
    assert len(by_id["sushi_9"]["text"].encode()) <= 1 << 16 and "\ufffd" in by_id["sushi_9"]["text"]
    assert report.splits["train"].skipped == {"title_missing": ["pizza_2"]} and rows["train"][0]["label"] == 76


@needs_real_data
def test_food_on_the_real_titles_and_split(tmp_path, monkeypatch):
    """All 22,716 real test rows, with one picture for all: nothing is lost, every defect is counted."""
    raw = tmp_path / "raw"
    data = (REAL_DATA / "food101" / "test_titles.csv").read_bytes()
    files = [line.split(b",", 1)[0].decode() for line in data.split(b"\r\n") if line]
    tiny = store_image(encoded(picture(1, (2, 2)), "PNG"))
    monkeypatch.setattr(conversion, "store_image", lambda *_, **__: tiny)  # 22,716 pictures would only cost time
    for file in files:
        folder = raw / "images" / "test" / file.rpartition("_")[0]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    (raw / "images" / "train").mkdir()
    write(raw / "texts" / "train_titles.csv", "")
    (raw / "texts" / "test_titles.csv").symlink_to(raw / "titles.csv")
    write(raw / "titles.csv", data)
    report = prepare_dataset("food101", raw, tmp_path / "out", splits=["test"], dry_run=True)
    test = report.splits["test"]
    assert (test.expected, test.seen, test.written, test.skipped) == (22716, 22716, 22716, {})
    assert report.repairs["list_wrapped_title"] == 912
    assert report.repairs["html_entity"] == 3213
    assert report.repairs["byte_escape"] == 867
    assert sum("-" in file for file in files) == 42
    histogram = report.label_histogram["test"]
    assert len(histogram) == 101 and min(histogram.values()) == 197 and max(histogram.values()) == 238
    assert not report.warnings[1:]


# MM-IMDb ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["owner", "repack"])
def test_mmimdb_rows(tmp_path, layout):
    records = {
        "train": {
            "0106714": mmimdb_record(),
            "0000002": mmimdb_record(genres=["Talk-Show"], year="1950"),
            "0000003": mmimdb_record(plot=["", "<p> </p>"]),
            "0000004": mmimdb_record(genres=["Sci-Fi ", "Adult", "Film-Noir", "Sci-Fi"], year=None, plot="One plot"),
        },
        "dev": {"0000005": mmimdb_record(plot=["aaaa", "bbbb"])},
        "test": {"0000006": mmimdb_record()},
    }
    raw = mmimdb(tmp_path / "raw", records, layout)
    report, rows, by_id = prepared("mmimdb", raw, tmp_path / "out")
    names = get_dataset_spec("mmimdb").label_names
    assert report.variant == layout and list(rows) == ["train", "validation", "test"]
    row = by_id["0106714"]
    assert row["plots"] == ["Short text.", "A longer text & more of it."] and row["text"] == row["plots"][1]
    assert (
        [names[i] for i in row["genres"]] == ["Drama", "War"] and row["year"] == 1994 and row["title"] == "The Sample"
    )
    assert by_id["0000002"]["genres"] == [] and by_id["0000002"]["year"] == 1950
    assert [names[i] for i in by_id["0000004"]["genres"]] == ["Sci-Fi", "Film-Noir"] and by_id["0000004"][
        "year"
    ] is None
    assert by_id["0000005"]["text"] == "aaaa"  # the first of equally long ones
    assert report.splits["train"].skipped == {"plot_missing": ["0000003"]}
    assert report.repairs == {"genre_ignored": 2, "html_entity": 3, "no_known_genre": 1, "plot_author": 3}
    first = prepared("mmimdb", raw, tmp_path / "first", plot="first")[2]
    assert first["0106714"]["text"] == "Short text."


def test_mmimdb_bad_records(tmp_path):
    raw = mmimdb(tmp_path / "raw", {"train": {f"000000{i}": mmimdb_record() for i in range(1, 6)}})
    base = raw / "mmimdb"
    write(base / "dataset/0000001.json", "{")
    write(base / "dataset/0000002.json", "[" * 100_000)
    write(base / "dataset/0000003.json", '{"title": "x", "title": "y", "plot": ["A plot."], "genres": ["Drama"]}')
    (base / "dataset/0000004.jpeg").unlink()
    (base / "dataset/0000005.json").unlink()
    content = json.loads((base / "split.json").read_text())
    content["train"] += ["../../../etc/passwd", 3]
    write(base / "split.json", json.dumps(content))
    report, _, by_id = prepared("mmimdb", raw, tmp_path / "out")
    assert report.splits["train"].skipped == {
        "duplicate_id": ["0000003"],
        "image_missing": ["0000004"],
        "record_missing": ["0000005"],
        "record_unreadable": ["0000001", "0000002"],
        "unsafe_path": ["../../../etc/passwd"],
    }
    assert by_id["0000003"]["title"] == "y" and "A record repeats a key; its last value holds." in report.warnings
    write(base / "split.json", json.dumps(["no", "splits"]))
    with pytest.raises(LayoutError, match="train, dev and test"):
        prepare_dataset("mmimdb", raw, tmp_path / "out2")


def test_mmimdb_split_beside(tmp_path):
    raw = mmimdb(tmp_path / "raw", {"train": {"0000001": mmimdb_record()}})
    (raw / "mmimdb" / "split.json").rename(raw / "split.json")
    report, rows, _ = prepared("mmimdb", raw, tmp_path / "out")
    assert report.variant == "owner-split-beside" and len(rows["train"]) == 1


def test_an_id_in_two_splits_is_reported(tmp_path):
    raw = mmimdb(tmp_path / "raw", {"train": {"0000001": mmimdb_record()}, "test": {"0000001": mmimdb_record()}})
    assert "1 ids of train occur in test as well." in prepared("mmimdb", raw, tmp_path / "out")[0].warnings


@needs_real_data
def test_mmimdb_real_split(tmp_path):
    """The real ids: sizes, order, seven digits. No film is at hand, so each is reported as missing, none is lost."""
    raw = tmp_path / "raw"
    (raw / "dataset").mkdir(parents=True)
    write(raw / "split.json", (REAL_DATA / "mmimdb" / "split.json").read_bytes())
    report = prepare_dataset("mmimdb", raw, tmp_path / "out", dry_run=True)
    assert {name: (s.expected, s.seen) for name, s in report.splits.items()} == {
        "train": (15552, 15552),
        "validation": (2608, 2608),
        "test": (7799, 7799),
    }
    listed = report.splits["train"].skipped["record_missing"]
    assert listed[0] == "0106714" and len(listed) == 1000 and all(len(i) == 7 for i in listed)
    assert report.warnings == [
        "test: 7,799 records skipped as record_missing; the first 1,000 are listed.",
        "train: 15,552 records skipped as record_missing; the first 1,000 are listed.",
        "validation: 2,608 records skipped as record_missing; the first 1,000 are listed.",
    ]


# Hateful Memes ------------------------------------------------------------------------------------------------------


def meme(number: int, **changes) -> dict:
    return {"id": number, "img": f"img/{number:05d}.png", "label": number % 2, "text": " a caption ", **changes}


def memes(base, splits):
    for name, records in splits.items():
        write(base / f"{name}.jsonl", json_lines(records))
        for record in records:
            if isinstance(record.get("img"), str) and ".." not in record["img"]:
                write(base / record["img"], encoded(picture(1, mode="RGBA"), "PNG"))
    return base.parent if base.name == "data" else base


def test_memes_phase_2_below_data(tmp_path):
    splits = {
        "train": [
            meme(1),
            meme(2, id="00002", label="0"),
            meme(3, label=2),
            meme(4, label=True),
            meme(5, img="img/../../00005.png"),
            meme(6, img="img/00066.png"),
            meme(7, text=" \u200e"),
            meme(8, img=None),
        ],
        "dev_seen": [meme(11)],
        "dev_unseen": [meme(11), meme(12)],
        "test_seen": [meme(21), {k: v for k, v in meme(22).items() if k != "label"}],
        "test_unseen": [meme(31)],
    }
    raw = memes(tmp_path / "raw" / "data", splits)
    with (raw / "data" / "train.jsonl").open("a") as file:
        file.write("{broken\n\n[1, 2]\n")
    report, rows, by_id = prepared("hateful_memes", raw, tmp_path / "out")
    assert report.variant == "phase2" and list(rows) == ["train", "dev_seen", "dev_unseen", "test_seen", "test_unseen"]
    assert report.splits["train"].skipped == {
        "image_missing": ["00008"],
        "label_not_binary": ["00003", "00004"],
        "line_malformed": ["train.jsonl:9", "train.jsonl:11"],
        "text_empty": ["00007"],
        "unsafe_path": ["00005"],
    }
    assert [row["id"] for row in rows["train"]] == ["00001", "00002", "00006"]
    assert by_id["00001"]["text"] == "a caption" and by_id["00001"]["image"]["path"] == "00001.png"
    assert by_id["00022"]["label"] == -1 and report.label_histogram["test_seen"] == {"hateful": 1, "(hidden)": 1}
    assert "The id of a record and the name of its picture disagree." in report.warnings
    assert not any("occur in" in text for text in report.warnings)  # dev_seen and dev_unseen overlap by design
    assert verify_dataset(tmp_path / "out").errors == []


def test_memes_phase_1(tmp_path):
    raw = memes(tmp_path / "raw", {"train": [meme(1)], "dev": [meme(2)], "test": [meme(3, label=None)]})
    report, rows, _ = prepared("hateful_memes", raw, tmp_path / "out", eval="unseen")
    assert report.variant == "phase1" and {s: len(r) for s, r in rows.items()} == {
        "train": 1,
        "dev_seen": 1,
        "test_seen": 1,
    }
    assert any("asks for dev_unseen, which this tree does not have" in text for text in report.warnings)


# SNLI-VE ------------------------------------------------------------------------------------------------------------


def pair(image: str, number: int, gold: object = "neutral", **changes) -> dict:
    return {
        "Flickr30K_ID": image,
        "annotator_labels": ["neutral"],
        "captionID": f"{image}.jpg#{number}",
        "gold_label": gold,
        "pairID": f"{image}.jpg#{number}r1n",
        "sentence1": "A man sits.",
        "sentence2": "Someone is  seated.",
        **changes,
    }


def test_snli_ve_necla(tmp_path):
    raw = tmp_path / "raw"
    train = [
        pair("1", 0),
        pair("1", 0, "entailment"),
        pair("1", 1, "-"),
        pair("2", 2),
        pair("../../1", 3),
        pair("1", 4, 1),
    ]
    for split, records in (("train", train), ("dev", [pair("1", 8, "contradiction")]), ("test", [pair("1", 9)])):
        write(raw / f"snli_ve_{split}.jsonl", json_lines(records))
    write(raw / "Flickr30K" / "flickr30k_images" / "1.jpg", jpeg(1))
    report, rows, by_id = prepared("snli_ve", raw, tmp_path / "out")
    assert [row["id"] for row in rows["train"]] == ["1.jpg#0r1n", "1.jpg#0r1n#1"]
    row = by_id["1.jpg#8r1n"]
    assert (row["hypothesis"], row["premise"], row["label"], row["image_id"]) == (
        "Someone is seated.",
        "A man sits.",
        2,
        "1",
    )
    assert report.splits["train"].skipped == {
        "gold_missing": ["1.jpg#1r1n"],
        "image_missing": ["2.jpg#2r1n", "../../1.jpg#3r1n"],
        "label_unknown": ["1.jpg#4r1n"],
    }


def test_snli_ve_albef_and_label_order(tmp_path):
    raw = tmp_path / "raw"
    records = [{"image": "flickr30k-images/1.jpg", "sentence": f"S {i}", "label": i} for i in range(3)]
    for split in ("train", "dev", "test"):
        write(raw / f"ve_{split}.json", json.dumps(records))
    write(raw / "flickr30k-images" / "1.jpg", jpeg(1))
    assert prepared("snli_ve", raw, tmp_path / "none")[0].splits["test"].written == 0
    lavis = prepared("snli_ve", raw, tmp_path / "lavis", label_order="lavis")[1]["test"]
    assert [row["label"] for row in lavis] == [2, 1, 0] and lavis[0]["id"] == "test-0-1" and lavis[0]["premise"] == ""


# The demos, through the very same converters ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["food", "imdb", "ve", "memes", "rus", "mustard"])
def test_demo_report_is_exactly_what_was_planted(tmp_path, name):
    sizes = {"all": 40} if name == "mustard" else {"train": 80, "validation": 8, "test": 12}
    planted = write_demo_raw(name, tmp_path / "raw", seed=3, sizes=sizes)
    options = {"split_scheme": "all"} if name == "mustard" else {"validation_share": 0} if name == "food" else {}
    report, _, by_id = prepared(f"demo:{name}", tmp_path / "raw", tmp_path / "out", **options)
    skipped = {split: part.skipped for split, part in report.splits.items() if part.skipped}
    owner_names = {"validation": "dev"} if name in ("imdb", "ve") else {}
    assert {owner_names.get(s, s): r for s, r in skipped.items()} == planted["skipped"]
    assert {owner_names.get(s, s): part.seen for s, part in report.splits.items()} == planted["written"]
    for repair, ids in planted["repairs"].items():
        assert report.repairs[repair] == len(ids), repair
    assert report.exit_code == (3 if skipped else 0)
    verified = verify_dataset(tmp_path / "out")
    assert verified.errors == [] and verified.written == report.written == len(by_id)
