"""load_fusion_dataset: prepared folders, demos, and what it says when it cannot."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import ClassLabel, DatasetDict, Features, Value
from fixtures_raw_trees import encoded, food_kaggle, json_lines, picture, write

from fusionzoo.training.data import loading
from fusionzoo.training.data.expected_counts import EXPECTED
from fusionzoo.training.data.label_names import (
    FOOD101_CLASSES,
    MMIMDB_GENRES,
    MMIMDB_GENRES_MOPE,
    SNLI_VE_LABELS,
    SNLI_VE_LABELS_LAVIS,
    label_permutation,
)
from fusionzoo.training.data.loading import check_features, load_fusion_dataset
from fusionzoo.training.data.prepare import converter_class, prepare_dataset
from fusionzoo.training.data.registry import check_push_allowed, get_dataset_spec, list_datasets


SIZES = {"train": 24, "validation": 8, "test": 8}


@pytest.fixture(scope="module", autouse=True)
def datasets_cache(tmp_path_factory):
    import datasets

    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("cache")
    yield
    datasets.config.HF_DATASETS_CACHE = before


@pytest.fixture(scope="module")
def food(tmp_path_factory):
    base = tmp_path_factory.mktemp("food")
    prepare_dataset("food101", food_kaggle(base / "raw"), base / "out", limit=6)
    return base / "out"


# Registry -----------------------------------------------------------------------------------------------------------


def test_every_spec_is_complete():
    assert list_datasets()[:6] == ["food101", "mmimdb", "snli_ve", "hateful_memes", "mustard", "rus"]
    assert list_datasets()[6:] == [f"demo:{n}" for n in ("food", "imdb", "ve", "memes", "mustard", "rus")]
    for name in list_datasets():
        spec = get_dataset_spec(name)
        assert {spec.image_column, spec.text_column, spec.label_column} <= set(spec.features)
        label = spec.features[spec.label_column]
        assert tuple(getattr(label, "feature", label).names) == spec.label_names
        assert spec.main_metric in spec.metrics and spec.where and issubclass(converter_class(spec), object)
        assert spec.is_demo == name.startswith("demo:")
    assert [get_dataset_spec(n).num_labels for n in list_datasets()] == [101, 23, 3, 2, 2, 2, 20, 23, 3, 2, 2, 2]
    assert all(dataset in list_datasets() for dataset, _ in EXPECTED)


def test_unknown_names_get_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'food101'"):
        get_dataset_spec("food-101")
    with pytest.raises(ValueError, match="Did you mean 'demo:food'"):
        load_fusion_dataset("demo:foood")


def test_label_orders():
    assert label_permutation(SNLI_VE_LABELS_LAVIS, SNLI_VE_LABELS) == [2, 1, 0]
    there = label_permutation(MMIMDB_GENRES_MOPE, MMIMDB_GENRES)
    back = label_permutation(MMIMDB_GENRES, MMIMDB_GENRES_MOPE)
    assert [there[i] for i in back] == list(range(23)) and [MMIMDB_GENRES_MOPE[i] for i in there] == list(
        MMIMDB_GENRES
    )
    with pytest.raises(ValueError, match="Only in the foreign list: \\['x'\\]"):
        label_permutation(["a", "x"], ["a", "b"])


def test_label_files_at_hand():
    from fixtures_raw_trees import REAL_DATA

    if not REAL_DATA.is_dir():
        pytest.skip("../shared/data is not here")
    genres = (REAL_DATA / "mmimdb" / "labels.txt").read_text().split("\n")
    assert tuple(name.strip() for name in genres) == MMIMDB_GENRES_MOPE
    assert tuple((REAL_DATA / "food101" / "labels.txt").read_text().split()) == FOOD101_CLASSES


def test_restricted_sets_are_not_pushed_in_public():
    with pytest.raises(PermissionError, match="private=True"):
        check_push_allowed(get_dataset_spec("hateful_memes"), private=False)
    check_push_allowed(get_dataset_spec("hateful_memes"), private=True)
    check_push_allowed(get_dataset_spec("demo:memes"), private=False)


# Prepared folders ---------------------------------------------------------------------------------------------------


def test_prepared_folder_by_name_and_by_path(food):
    data = load_fusion_dataset("food101", root=food)
    assert isinstance(data, DatasetDict) and {k: len(v) for k, v in data.items()} == {
        "train": 6,
        "validation": 1,
        "test": 6,
    }
    assert load_fusion_dataset(str(food), split="test")["id"] == data["test"]["id"]
    assert data["test"].features == get_dataset_spec("food101").features
    with pytest.raises(ValueError, match="no split 'dev'; it has train, validation, test"):
        load_fusion_dataset("food101", root=food, split="dev")


def test_wrong_set_wrong_folder_wrong_options(food, tmp_path):
    with pytest.raises(ValueError, match="holds food101, not mmimdb"):
        load_fusion_dataset("mmimdb", root=food)
    with pytest.raises(ValueError, match=r"(?s)fusionzoo prepare food101.*gianmarco96"):
        load_fusion_dataset("food101")
    with pytest.raises(ValueError, match="neither a prepared folder"):
        load_fusion_dataset("food101", root=tmp_path)
    with pytest.raises(ValueError, match="There is no folder"):
        load_fusion_dataset("food101", root=tmp_path / "no" / "such" / "folder")
    with pytest.raises(ValueError, match="There is no file or folder"):
        load_fusion_dataset(str(tmp_path / "mine.csv"))
    with pytest.raises(ValueError, match="Did you mean 'mustard'"):
        load_fusion_dataset("mustrad")
    with pytest.raises(ValueError, match="for demos and for your own tables"):
        load_fusion_dataset("food101", root=food, seed=3)


def test_differing_columns_are_listed():
    spec = get_dataset_spec("food101")
    features = Features({**spec.features, "label": ClassLabel(names=["a"]), "title": Value("string")})
    del features["source"]
    with pytest.raises(ValueError, match=r"'label' is ClassLabel.*'source' is missing.*other columns 'title'"):
        check_features(features, spec, "me/copy")
    check_features(Features({**spec.features, "text_raw": Value("string")}), spec, "me/copy")


def test_memes_load_the_asked_for_evaluation_parts(tmp_path):
    raw = tmp_path / "raw"
    for number, name in enumerate(("train", "dev_seen", "dev_unseen", "test_seen", "test_unseen")):
        write(
            raw / f"{name}.jsonl",
            json_lines([{"id": number, "img": f"img/{number:05d}.png", "label": 1, "text": name}]),
        )
        write(raw / "img" / f"{number:05d}.png", encoded(picture(number), "PNG"))
    for kind in ("seen", "unseen"):
        prepare_dataset("hateful_memes", raw, tmp_path / kind, eval=kind)
        data = load_fusion_dataset("hateful_memes", root=tmp_path / kind)
        assert data["validation"]["text"][:] == [f"dev_{kind}"] and data["test"]["text"][:] == [f"test_{kind}"]
        assert len(data["train"]) == 1


# Demos --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["food", "imdb", "ve", "memes", "rus", "mustard"])
def test_demos(tmp_path, name):
    sizes = {"all": 690} if name == "mustard" else SIZES
    spec = get_dataset_spec(f"demo:{name}")
    data = load_fusion_dataset(spec.name, root=tmp_path, sizes=sizes, image_side=32)
    expected = {"train": 251, "validation": 83, "test": 356} if name == "mustard" else SIZES
    assert {split: len(part) for split, part in data.items()} == expected
    row = data["train"][0]
    assert set(row) == set(spec.features) and row[spec.text_column]
    images = row[spec.image_column]
    assert (images[0] if spec.image_is_list else images).size == (32, 32)


def test_demo_is_made_once_and_atomically(tmp_path, monkeypatch):
    first = load_fusion_dataset("demo:rus", root=tmp_path, sizes=SIZES)
    (folder,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    monkeypatch.setattr(loading, "prepare_dataset", None)  # a second one would fail
    second = load_fusion_dataset("demo:rus", root=tmp_path, sizes=SIZES, split="train")
    assert second["text"][:] == first["train"]["text"][:]
    monkeypatch.setattr(loading, "prepare_dataset", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        load_fusion_dataset("demo:rus", root=tmp_path, sizes=SIZES, seed=1)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [folder]


def test_demo_options_reach_both_stages(tmp_path):
    data = load_fusion_dataset(
        "demo:memes", root=tmp_path, sizes=SIZES, planted_defects=True, prepare_options={"text_clean": "mmbt"}
    )
    assert len(data["train"]) == SIZES["train"] - 3
    with pytest.raises(ValueError, match="no option 'colour'"):
        load_fusion_dataset("demo:rus", root=tmp_path, colour="red")


def test_two_processes_make_one_demo(tmp_path):
    code = (
        "import sys; from fusionzoo.training.data.loading import load_fusion_dataset as l; "
        "print(len(l('demo:rus', root=sys.argv[1], sizes={'train': 60, 'validation': 4, 'test': 4})['train']))"
    )
    root = Path(loading.__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    children = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path / "demo"], env=environment, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    assert [child.communicate()[0].split()[-1] for child in children] == [b"60", b"60"]
    assert len([path for path in (tmp_path / "demo").iterdir() if path.is_dir()]) == 1
