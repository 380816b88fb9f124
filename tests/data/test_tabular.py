"""The user's own tables and image folders."""

import json

import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from fixtures_raw_trees import bomb_png, encoded, jpeg, json_lines, picture, write

from fusionzoo.training.data.loading import load_fusion_dataset
from fusionzoo.training.data.registry import MULTI_LABEL, REGRESSION
from fusionzoo.training.data.tabular import TableError, load_tabular, tabular_spec


COLUMNS = {"image": "photo", "text": "title", "label": "dish"}


@pytest.fixture
def folder(tmp_path):
    for number in range(4):
        write(tmp_path / "img" / f"{number}.jpg", jpeg(number))
    return tmp_path


def test_csv_with_mapping(folder):
    write(
        folder / "a.csv", 'photo,title,dish,id\nimg/0.jpg,"Soup, hot",soup,x1\nimg\\1.jpg,,pie,x2\n,Only text,pie,x3\n'
    )
    data = load_fusion_dataset(str(folder / "a.csv"), columns=COLUMNS)
    assert data["train"].features == Features(
        {"id": Value("string"), "image": Image(), "text": Value("string"), "label": ClassLabel(names=["pie", "soup"])}
    )
    rows = list(data["train"])
    assert [row["id"] for row in rows] == ["x1", "x2", "x3"] and [row["label"] for row in rows] == [1, 0, 0]
    assert [row["text"] for row in rows] == ["Soup, hot", None, "Only text"]
    assert rows[0]["image"].size == (48, 32) and rows[2]["image"] is None
    spec = tabular_spec("mine", data)
    assert (
        spec.label_names == ("pie", "soup")
        and spec.main_metric == "accuracy"
        and spec.features == data["train"].features
    )


def test_own_column_names_and_splits_of_a_folder(folder):
    for split, label in (("train", "b"), ("val", "a"), ("test", "c")):
        write(folder / f"{split}.tsv", f'image\ttext\tlabel\nimg/1.jpg\tA "quote\t{label}\n'.replace('"', ""))
    data = load_fusion_dataset(str(folder))
    assert {split: part[0]["label"] for split, part in data.items()} == {"train": 1, "validation": 0, "test": 2}


def test_json_lines_keep_empty_and_absent_apart(folder):
    records = [
        {"photo": "img/0.jpg", "title": "", "dish": 2},
        {"photo": "img/1.jpg", "title": None, "dish": 0},
        {"photo": None, "title": "x", "dish": 1},
    ]
    write(folder / "a.jsonl", json_lines(records))
    data = load_tabular(folder / "a.jsonl", COLUMNS)["train"]
    assert data["text"][:] == ["", None, "x"] and data["label"][:] == [2, 0, 1]
    assert data.features["label"].names == ["0", "1", "2"]


def test_several_labels(folder):
    write(folder / "a.csv", "image,label\nimg/0.jpg,war | drama\nimg/1.jpg,\nimg/2.jpg,drama\n")
    data = load_tabular(folder / "a.csv", label_separator="|", problem_type=MULTI_LABEL)
    assert data["train"].features["label"] == List(ClassLabel(names=["drama", "war"]))
    assert data["train"]["label"][:] == [[0, 1], [], [0]]
    assert tabular_spec("m", data).problem_type == MULTI_LABEL and tabular_spec("m", data).main_metric == "f1_macro"
    write(folder / "b.jsonl", json_lines([{"text": "t", "label": ["x", "y", "x"]}, {"text": "u", "label": "y"}]))
    assert load_tabular(folder / "b.jsonl", label_names=["y", "x"])["train"]["label"][:] == [[0, 1], [0]]


def test_numbers_as_targets(folder):
    write(folder / "a.csv", "text,label\na,1.5\nb,-2\n")
    data = load_tabular(folder / "a.csv", problem_type=REGRESSION)
    assert data["train"]["label"][:] == [1.5, -2.0] and tabular_spec("m", data).problem_type == REGRESSION
    for bad in ("nan", "inf", "much"):
        write(folder / "a.csv", f"text,label\na,{bad}\n")
        with pytest.raises(TableError, match="line 2: the label"):
            load_tabular(folder / "a.csv", problem_type=REGRESSION)


def test_parquet_with_embedded_pictures(folder):
    features = Features({"image": Image(), "text": Value("string"), "label": Value("string")})
    rows = [
        {"image": {"bytes": jpeg(1), "path": None}, "text": "t", "label": "a"},
        {"image": None, "text": "u", "label": "b"},
    ]
    Dataset.from_list(rows, features=features).to_parquet(str(folder / "a.parquet"))
    data = load_tabular(folder / "a.parquet")["train"]
    assert data[0]["image"].size == (48, 32) and data[1]["image"] is None and data["label"][:] == [0, 1]
    write(folder / "b.parquet", b"PAR1 nonsense")
    with pytest.raises(TableError, match=r"b\.parquet is not a readable Parquet file"):
        load_tabular(folder / "b.parquet")


def test_image_folders(tmp_path):
    for split in ("train", "test"):
        for number, name in enumerate(("cat", "dog")):
            write(tmp_path / split / name / f"{number}.PNG", encoded(picture(number), "PNG"))
    data = load_fusion_dataset(str(tmp_path))
    assert set(data) == {"train", "test"} and data["test"]["id"][:] == ["test-cat-0", "test-dog-1"]
    assert data["train"].features["label"].names == ["cat", "dog"] and data["train"]["text"][:] == [None, None]
    assert set(load_tabular(tmp_path / "train")) == {"train"}


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("../outside.jpg", "leaves the data folder"),
        ("/etc/passwd", "absolute path"),
        ("C:\\x.jpg", "absolute path"),
        ("https://example.org/x.jpg", "is a URL. Nothing is downloaded"),
        ("img/9.jpg", "There is no image file"),
        ("link.jpg", "leaves the data folder"),
        ("img/\0.jpg", "NUL"),
        ("img", "There is no image file"),
    ],
)
def test_bad_paths(folder, cell, message):
    outside = write(folder.parent / "outside.jpg", jpeg(9))
    (folder / "link.jpg").symlink_to(outside)
    write(folder / "a.csv", f"image,text,label\nimg/0.jpg,t,a\n{cell},t,b\n")
    with pytest.raises(
        TableError, match=rf"(?s)1 of 2 rows cannot be used.*a\.csv, line 3: .*{message}.*skip_bad_rows"
    ):
        load_tabular(folder / "a.csv")
    assert len(load_tabular(folder / "a.csv", skip_bad_rows=True)["train"]) == 1


def test_bad_pictures_are_found_when_asked(folder):
    for name, content in (("html.jpg", b"<html>"), ("cut.jpg", jpeg(1)[:400]), ("bomb.png", bomb_png())):
        write(folder / name, content)
        write(folder / "a.csv", f"image,label\n{name},a\nimg/0.jpg,b\n")
        with pytest.raises(TableError, match="line 2"):
            load_tabular(folder / "a.csv", decode_all=True)


def test_bad_rows_are_named(folder):
    write(folder / "a.csv", "id,image,text,label\n1,img/0.jpg,t,a\n1,,x,a\n2,,,a\n3,,x,\n4,too,few\n")
    with pytest.raises(TableError) as caught:
        load_tabular(folder / "a.csv")
    message = str(caught.value)
    for part in (
        "4 of 5 rows",
        "line 3: the id '1' occurs a second time",
        "line 4: neither a picture nor a text",
        "line 5: the label is empty",
        "line 6: the line cannot be read",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": "foto", "label": "dish"}, "no column 'foto' .for image.. Did you mean 'photo'"),
        ({"image": "photo"}, "needs a label and an image or a text"),
        ({"label": "dish"}, "needs a label and an image or a text"),
        ({"picture": "photo"}, "the roles are image, text, label, id"),
        (None, "say which is which"),
    ],
)
def test_bad_mappings(folder, columns, message):
    write(folder / "a.csv", "photo,title,dish\nimg/0.jpg,t,soup\n")
    with pytest.raises(TableError, match=message):
        load_tabular(folder / "a.csv", columns)


def test_unknown_labels(folder):
    write(folder / "a.csv", "text,label\nx,soup\ny,sopu\n")
    with pytest.raises(TableError, match="'sopu' is unknown; did you mean 'soup'"):
        load_tabular(folder / "a.csv", label_names=["soup", "pie"])
    write(folder / "a.csv", "text,label\nx,1\ny,7\n")
    with pytest.raises(TableError, match="'7' is unknown; known are soup, pie"):
        load_tabular(folder / "a.csv", label_names=["soup", "pie"])
    with pytest.raises(TableError, match="holds a name twice"):
        load_tabular(folder / "a.csv", label_names=["a", "a"])
    with pytest.raises(TableError, match="multi_label_classification"):
        load_tabular(folder / "a.csv", problem_type="many")


def test_hostile_tables(folder):
    write(folder / "a.csv", 'text,label\n"never closed,' + "x" * 2_000_000)
    with pytest.raises(TableError, match="quotation mark that is never closed"):
        load_tabular(folder / "a.csv")
    write(folder / "a.jsonl", '{"text": "ok", "label": "a"}\n' + "[" * 100_000 + "\n" + json.dumps("no object"))
    with pytest.raises(TableError, match="2 of 3 rows"):
        load_tabular(folder / "a.jsonl")
    write(folder / "a.csv", b"text,label\nbad \xff byte,a\n" + b"y" * 1_000_000 + b",b\n")
    rows = load_tabular(folder / "a.csv")["train"]
    assert rows[0]["text"] == "bad \ufffd byte" and len(rows[1]["text"]) == 1 << 16
    write(folder / "a.csv", "")
    with pytest.raises(TableError, match="0 of 0 rows"):
        load_tabular(folder / "a.csv")
    with pytest.raises(TableError, match="There is no file or folder"):
        load_tabular(folder / "none.csv")


def test_two_tables_for_one_split(folder):
    write(folder / "train.csv", "text,label\nx,a\n")
    write(folder / "train.jsonl", "")
    with pytest.raises(TableError, match=r"train\.csv and train\.jsonl"):
        load_tabular(folder)
