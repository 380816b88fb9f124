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
"""The demo data sets: layouts, planted defects, and the structure between the modalities that each of them promises."""

import collections
import csv
import hashlib
import html
import json

import numpy as np
import pytest
from PIL import Image
from scipy.stats import chi2_contingency, chisquare

from fusionzoo.training.data.demo_concepts import (
    GENRE_CONCEPTS,
    NEGATIVE_FACES,
    RUS_ANIMALS,
    RUS_FRUITS,
    RUS_TOOLS,
    SCEPTICAL_FACES,
    SMILING_FACES,
    VE_CONCEPTS,
    with_article,
)
from fusionzoo.training.data.demo_samples import (
    OPINIONS,
    food_sample,
    imdb_sample,
    meme_quadruple,
    mustard_clip,
    rus_sample,
    ve_image,
)
from fusionzoo.training.data.demos import DEFAULT_SIZES, MUSTARD_DIR, write_demo_raw
from fusionzoo.training.data.label_names import DEMO_FOOD_CLASSES, MMIMDB_GENRES


SMALL = {
    "food": {"train": 60, "validation": 12, "test": 24},
    "imdb": {"train": 40, "validation": 8, "test": 12},
    "ve": {"train": 40, "validation": 9, "test": 12},
    "memes": {"train": 40, "validation": 8, "test": 12},
    "mustard": {"all": 20},
    "rus": {"train": 40, "validation": 8, "test": 12},
}


def jsonl(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def tree(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def is_broken(path):
    try:
        with Image.open(path) as picture:
            picture.load()
    except OSError:
        return True
    return False


def close(count, total, share):
    """Within five standard errors of a binomial count."""
    return abs(count - total * share) < 5 * (total * share * (1 - share)) ** 0.5


def independent(first, second):
    table = collections.Counter(zip(first, second))
    rows, columns = sorted(set(first), key=str), sorted(set(second), key=str)
    return chi2_contingency([[table[row, column] for column in columns] for row in rows]).pvalue > 0.001


# --- samples are addressed --------------------------------------------------------------------------------------------


def texts(name, index, seed=0):
    """What a sample says and is, without numbers that a maths library may round its own way."""
    if name == "food":
        sample = food_sample(seed, "train", index)
        return [sample.label, sample.shown, sample.told, sample.title, sample.scene.background]
    if name == "imdb":
        sample = imdb_sample(seed, "train", index)
        return [sample.genres, sample.title, sample.year, sample.plots]
    if name == "ve":
        return [ve_image(seed, "train", index).premise, ve_image(seed, "train", index).statements]
    if name == "memes":
        return [
            [meme.label, meme.text, meme.scene.placements[0].name] for meme in meme_quadruple(seed, "train", index)
        ]
    if name == "mustard":
        return [[frame.placements[0].name, frame.background] for frame in mustard_clip(seed, f"1_{index}", True)]
    sample = rus_sample(seed, "train", index)
    return [sample.label, sample.interaction, sample.text, sample.scene.placements[0].name, sample.scene.background]


KNOWN_SAMPLES = {
    "food": "2620e89f07cbbffd",
    "imdb": "cf20448e8b5d2922",
    "ve": "226252c34cd58d9d",
    "memes": "df3640dfb9fc6965",
    "mustard": "eec60041d12f5b4c",
    "rus": "cb67b9f35cbe93d1",
}


@pytest.mark.parametrize("name", list(DEFAULT_SIZES))
def test_known_samples(name):
    """Numbers in the docs were measured on these samples, so they must not change."""
    content = json.dumps([texts(name, index) for index in range(20)], ensure_ascii=False)
    assert hashlib.sha256(content.encode()).hexdigest()[:16] == KNOWN_SAMPLES[name]


@pytest.mark.parametrize("name", list(DEFAULT_SIZES))
def test_other_addresses_give_other_samples(name):
    assert texts(name, 1) == texts(name, 1)
    many = [json.dumps(texts(name, index, seed)) for seed in (0, 1) for index in range(30)]
    assert len(set(many)) > 50


@pytest.mark.parametrize("name", ["food", "rus", "memes", "imdb", "ve"])
def test_size_of_a_split_changes_no_sample(name, tmp_path):
    small = dict.fromkeys(DEFAULT_SIZES[name], 4)
    large = dict.fromkeys(DEFAULT_SIZES[name], 12)
    write_demo_raw(name, tmp_path / "small", seed=3, sizes=small, planted_defects=False)
    write_demo_raw(name, tmp_path / "large", seed=3, sizes=large, planted_defects=False)
    few, many = tree(tmp_path / "small"), tree(tmp_path / "large")
    pictures = [path for path in few if path.endswith(("jpg", "jpeg", "png"))]
    assert pictures and all(few[path] == many[path] for path in pictures if not (name == "ve" and path not in many))
    listing = "train.jsonl" if name == "memes" else "rus/train.jsonl" if name == "rus" else None
    if listing:
        assert many[listing].startswith(few[listing])


@pytest.mark.parametrize("name", ["food", "rus", "memes", "imdb", "ve"])
def test_no_picture_occurs_in_two_splits(name, tmp_path):
    sizes = dict.fromkeys(DEFAULT_SIZES[name], 40)
    write_demo_raw(name, tmp_path / "raw", sizes=sizes, planted_defects=False)
    pictures = [content for path, content in tree(tmp_path / "raw").items() if path.endswith(("jpg", "jpeg", "png"))]
    shared = 2 if name == "memes" else 1  # a face of a quadruple carries two captions, in the same split
    assert set(collections.Counter(pictures).values()) == {shared}


# --- layouts and planted defects --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    return {
        name: (root / name, write_demo_raw(f"demo:{name}", root / name, sizes=sizes)) for name, sizes in SMALL.items()
    }


def test_food_has_the_kaggle_layout(written):
    root, planted = written["food"]
    assert planted["written"] == {"train": 72, "test": 24}
    files = tree(root)
    for split, count in planted["written"].items():
        content = files[f"texts/{split}_titles.csv"]
        assert content.count(b"\r\n") == content.count(b"\n") == count
        rows = list(csv.reader(content.decode().splitlines()))
        assert len({row[0] for row in rows}) == count
        for file, title, label in rows:
            assert file.rpartition("_")[0] == label and "," not in title and title.strip() == title
            assert f"images/{split}/{label}/{file}" in files
            assert label in (*DEMO_FOOD_CLASSES, "mystery_dish")
    assert sum(path.startswith("images/") for path in files) == 96


def test_food_defects(written):
    root, planted = written["food"]
    html_page, truncated = planted["skipped"]["train"]["image_unreadable"]
    assert (
        (root / "images" / "train" / html_page.rpartition("_")[0] / f"{html_page}.jpg")
        .read_bytes()
        .startswith(b"<!DOCTYPE")
    )
    cut = root / "images" / "train" / truncated.rpartition("_")[0] / f"{truncated}.jpg"
    assert cut.read_bytes().startswith(b"\xff\xd8\xff") and is_broken(cut)
    assert planted["skipped"]["train"]["class_unknown"] == ["mystery_dish_15"]
    rows = {}
    for split in ("train", "test"):
        with (root / "texts" / f"{split}_titles.csv").open(newline="") as file:
            rows |= {row[0].removesuffix(".jpg"): row[1] for row in csv.reader(file)}
    (wrapped,) = planted["repairs"]["list_wrapped_title"]
    assert rows[wrapped].startswith("[[\"Everybody's guide: ") and rows[wrapped].endswith('"]]')
    assert {key for key, title in rows.items() if html.unescape(title) != title} == set(
        planted["repairs"]["html_entity"]
    )
    broken = [path.stem for path in root.glob("images/*/*/*.jpg") if is_broken(path)]
    assert sorted(broken) == sorted([html_page, truncated])


def test_imdb_has_the_owners_layout(written):
    root, planted = written["imdb"]
    splits = json.loads((root / "mmimdb" / "split.json").read_text())
    assert (
        {split: len(ids) for split, ids in splits.items()} == {"train": 40, "dev": 8, "test": 12} == planted["written"]
    )
    ids = [record_id for split in splits.values() for record_id in split]
    assert len(set(ids)) == 60 and all(len(record_id) == 7 and record_id.isdigit() for record_id in ids)
    dataset = root / "mmimdb" / "dataset"
    records = {record_id: json.loads((dataset / f"{record_id}.json").read_text()) for record_id in ids}
    for record in records.values():
        assert isinstance(record["plot"], list) and max(record["plot"], key=len) == record["plot"][-1]
    assert planted["skipped"]["train"]["image_missing"] == [i for i in ids if not (dataset / f"{i}.jpeg").exists()]
    broken = [path.stem for path in sorted(dataset.glob("*.jpeg")) if is_broken(path)]
    assert planted["skipped"]["train"]["image_unreadable"] == broken and len(broken) == 1
    assert planted["repairs"]["plot_author"] == [i for i in ids if "::" in records[i]["plot"][-1]]
    assert planted["oddities"]["label_unknown"] == [i for i in ids if set(records[i]["genres"]) - set(MMIMDB_GENRES)]


def test_ve_has_the_layout_of_its_generator(written):
    root, planted = written["ve"]
    assert planted["written"] == {"train": 40, "dev": 9, "test": 12}
    rows = {split: jsonl(root / f"snli_ve_{split}.jsonl") for split in planted["written"]}
    for split, pairs in rows.items():
        assert len(pairs) == planted["written"][split] == len({pair["pairID"] for pair in pairs})
        for pair in pairs:
            assert list(pair) == sorted(pair) and pair["pairID"].startswith(pair["Flickr30K_ID"] + ".jpg#")
            assert (root / "Flickr30K" / "flickr30k_images" / f"{pair['Flickr30K_ID']}.jpg").is_file()
    assert planted["skipped"]["train"]["gold_missing"] == [
        p["pairID"] for p in rows["train"] if p["gold_label"] == "-"
    ]
    (cut,) = [path.stem for path in (root / "Flickr30K" / "flickr30k_images").iterdir() if is_broken(path)]
    lost = [pair["pairID"] for pair in rows["train"] if pair["Flickr30K_ID"] == cut]
    assert planted["skipped"]["train"]["image_unreadable"] == lost and len(lost) == 3


def test_memes_have_the_layout_of_phase_two(written):
    root, planted = written["memes"]
    assert planted["written"] == {"train": 40, "dev_seen": 8, "test_seen": 12}
    rows = {split: jsonl(root / f"{split}.jsonl") for split in planted["written"]}
    every = [row for split in rows.values() for row in split]
    assert len({row["id"] for row in every}) == 60
    found = collections.defaultdict(list)
    for row in every:
        assert set(row) == {"id", "img", "label", "text"} and isinstance(row["id"], int)
        record_id = f"{row['id']:05d}"
        if row["img"] != f"img/{record_id}.png":
            assert row["img"].startswith("img/../../")
            found["unsafe_path"].append(record_id)
        if row["label"] not in (0, 1):
            found["label_not_binary"].append(record_id)
        if is_broken(root / "img" / f"{record_id}.png"):
            found["image_unreadable"].append(record_id)
    assert planted["skipped"] == {"train": dict(found)}
    assert {len(ids) for ids in found.values()} == {1} and len(found) == 3


def test_mustard_has_the_real_texts_and_four_frames_each(written, tmp_path):
    root, planted = written["mustard"]
    assert planted["written"] == {"all": 20} and planted["skipped"] == {}
    records = json.loads((root / "sarcasm_data.json").read_text())
    real = json.loads((MUSTARD_DIR / "sarcasm_data.json").read_text())
    assert list(records.items()) == list(real.items())[:20]
    for key in records:
        assert sorted(p.name for p in (root / "frames" / key).iterdir()) == [f"0000{n}.jpg" for n in (1, 2, 3, 4)]
    assert not (root / "split_indices.json").exists()  # positions in the whole file
    assert "Soujanya Poria" in (root / "NOTICE").read_text()


def test_shipped_mustard_texts_are_the_published_ones():
    records = json.loads((MUSTARD_DIR / "sarcasm_data.json").read_text())
    assert len(records) == 690 and sum(record["sarcasm"] for record in records.values()) == 345
    assert collections.Counter(record["show"] for record in records.values())["FRIENDS"] == 356
    folds = json.loads((MUSTARD_DIR / "split_indices.json").read_text())["folds"]
    assert sorted(index for fold in folds for index in fold["test"]) == list(range(690))
    labels = [record["sarcasm"] for record in records.values()]
    assert [sum(labels[index] for index in fold["test"]) for fold in folds] == [74, 71, 63, 76, 61]
    assert "Copyright (c) 2019 Soujanya Poria" in (MUSTARD_DIR / "NOTICE").read_text()


def test_rus_layout_and_defects(written):
    root, planted = written["rus"]
    found = collections.defaultdict(list)
    for split, count in planted["written"].items():
        rows = jsonl(root / "rus" / f"{split}.jsonl")
        assert len(rows) == count == SMALL["rus"][split]
        for row in rows:
            assert set(row) == {"id", "img", "text", "label", "interaction"}
            if row["img"] != f"img/{row['id']}.png":
                found["unsafe_path"].append(row["id"])
            if row["label"] not in (0, 1):
                found["label_unknown"].append(row["id"])
            if is_broken(root / "rus" / "img" / f"{row['id']}.png"):
                found["image_unreadable"].append(row["id"])
    assert planted["skipped"] == {"train": dict(found)} and len(found) == 3


@pytest.mark.parametrize("name", list(DEFAULT_SIZES))
def test_without_defects_everything_is_whole(name, tmp_path):
    planted = write_demo_raw(name, tmp_path / "raw", sizes=SMALL[name], planted_defects=False)
    assert planted["skipped"] == {} and planted["oddities"] == {}
    assert set(planted["repairs"]) <= {"html_entity"}
    for path in tmp_path.rglob("*"):
        if path.suffix in (".jpg", ".jpeg", ".png"):
            with Image.open(path) as picture:
                assert picture.size == (84, 84) and picture.mode == "RGB"
                picture.load()


def test_options_reach_the_pictures(tmp_path):
    write_demo_raw("rus", tmp_path / "a", sizes={"train": 4, "validation": 0, "test": 4}, style="cross", image_side=32)
    with Image.open(tmp_path / "a" / "rus" / "img" / "train-00000.png") as picture:
        assert picture.size == (32, 32)
    for split, style in (("train", "noto"), ("test", "twemoji")):
        for index in range(10):
            assert {p.style for p in food_sample(0, split, index, "cross").scene.placements} == {style}
    both = [food_sample(0, "train", index).scene.placements[0].style for index in range(100)]
    assert 30 < both.count("noto") < 70


# --- what each modality knows -----------------------------------------------------------------------------------------


def test_food_shares():
    samples = [food_sample(0, "train", index) for index in range(20_000)]
    assert chisquare(list(collections.Counter(sample.label for sample in samples).values())).pvalue > 0.001
    assert close(sum(sample.shown == sample.label for sample in samples), 20_000, 0.8)
    assert close(sum(sample.told is None for sample in samples), 20_000, 0.25)
    assert close(sum(sample.told == sample.label for sample in samples), 20_000, 0.65)
    right_picture = [sample.shown == sample.label for sample in samples]
    assert independent(right_picture, [sample.told == sample.label for sample in samples])
    silent = [sample for sample in samples if sample.told is None]
    assert independent([sample.title for sample in silent], [sample.label for sample in silent])


def test_imdb_modalities_complement_each_other():
    samples = [imdb_sample(0, "train", index) for index in range(5000)]
    for sample in samples:
        assert set(sample.genres) == {*sample.shown, *sample.told}
        drawn = [{genre for genre in sample.shown if p.name in GENRE_CONCEPTS[genre]} for p in sample.scene.placements]
        assert set.union(*drawn) == set(sample.shown)
        plot = sample.plots[-1]
        for genre in sample.told:
            assert any(with_article(name) in plot for name in GENRE_CONCEPTS[genre])
    shared = [len({*sample.shown} & {*sample.told}) for sample in samples]
    assert set(shared) == {0, 1} and close(sum(shared), 5000, 0.4)
    frequency = collections.Counter(genre for sample in samples for genre in sample.genres)
    assert set(frequency) == set(MMIMDB_GENRES) and min(frequency.values()) > 0.85 * max(frequency.values())


def test_ve_text_tells_opinions_only():
    opinions = tuple(opinion.split("{x}")[0] for opinion in OPINIONS)
    facts, labels = [], []
    for index in range(4000):
        sample = ve_image(0, "train", index)
        shown = {with_article(name) for name in sample.shown}
        assert tuple(placement.name for placement in sample.scene.placements) == sample.shown
        assert sorted(label for label, _ in sample.statements) == ["contradiction", "entailment", "neutral"]
        for label, hypothesis in sample.statements:
            named = {name for name in VE_CONCEPTS if f" {with_article(name)} " in hypothesis.replace(".", " ")}
            present = any(f" {word} " in hypothesis.replace(".", " ") for word in shown)
            assert present == (label != "contradiction") and named
            assert hypothesis.startswith(opinions) == (label == "neutral")
            if label != "neutral":
                facts.append(hypothesis)
                labels.append(label)
    assert independent(facts, labels)  # whether a fact holds can't be read off the sentence


@pytest.mark.parametrize("overlay", [False, True])
def test_memes_hold_all_confounders(overlay):
    for index in range(300):
        four = meme_quadruple(0, "train", index, overlay=overlay)
        assert {(meme.face_mood, meme.text_mood) for meme in four} == {(0, 0), (0, 1), (1, 0), (1, 1)}
        for meme in four:
            assert meme.label == int(meme.face_mood != meme.text_mood)
            face = meme.scene.placements[0].name
            assert face in (SMILING_FACES if meme.face_mood else NEGATIVE_FACES)[:8]
            same_text = [other for other in four if other.text == meme.text and other is not meme]
            same_face = [other for other in four if other.face_mood == meme.face_mood and other is not meme]
            assert [other.label for other in same_text] == [1 - meme.label] == [other.label for other in same_face]
            assert (same_face[0].scene == meme.scene) != overlay
            assert meme.scene.caption == (meme.text if overlay else "")


def test_memes_are_chance_for_each_modality(tmp_path):
    write_demo_raw("memes", tmp_path / "raw", sizes={"train": 400, "validation": 0, "test": 0}, planted_defects=False)
    rows = jsonl(tmp_path / "raw" / "train.jsonl")
    for key in (lambda row: row["text"], lambda row: (tmp_path / "raw" / row["img"]).read_bytes()):
        groups = collections.defaultdict(list)
        for row in rows:
            groups[key(row)].append(row["label"])
        best = sum(max(collections.Counter(labels).values()) for labels in groups.values())
        assert best == 200  # even a look-up table of the train set itself gets half of them
    assert independent([row["label"] for row in rows], [row["id"] % 4 for row in rows])  # nor does the order tell


def test_more_faces():
    faces = {
        meme.scene.placements[0].name for index in range(900) for meme in meme_quadruple(0, "train", index, faces=23)
    }
    assert faces == {*SMILING_FACES, *NEGATIVE_FACES[:23]}


def test_mustard_faces_agree_with_probability_p():
    agree = 0
    for index in range(4000):
        label = bool(index % 2)
        names = [frame.placements[0].name for frame in mustard_clip(0, f"1_{index}", label, p=0.9)]
        assert names[0] == names[1] in SMILING_FACES[:8] and names[2] == names[3]
        agree += (names[3] in SCEPTICAL_FACES) == label
        assert names[3] in SCEPTICAL_FACES or names[3] == names[0]
    assert close(agree, 4000, 0.9)
    always = [mustard_clip(0, f"1_{index}", True, p=1.0)[3].placements[0].name for index in range(100)]
    assert set(always) <= set(SCEPTICAL_FACES)


@pytest.fixture(scope="module")
def rus():
    # Of 72 marker tables over the seeds 0 to 5 and two splits the smallest p is 0.0002 (seed 0): what chance gives.
    return [rus_sample(1, "train", index) for index in range(20_000)]


def test_rus_shares_and_balance(rus):
    counts = collections.Counter(sample.interaction for sample in rus)
    for name, share in (("R", 0.45), ("U_image", 0.20), ("U_text", 0.20), ("S", 0.15)):
        assert close(counts[name], 20_000, share)
    assert close(sum(sample.label for sample in rus), 20_000, 0.5)
    assert independent([sample.label for sample in rus], [sample.interaction for sample in rus])


def test_rus_bayes_predictions_recover_the_interactions(rus):
    """MMoE's rule on the best unimodal predictions, which are the cues: agree and right R, differ U, agree and wrong S."""
    rule = {(True, True): "R", (True, False): "U_image", (False, True): "U_text", (False, False): "S"}
    right = [(sample.image_cue == sample.label, sample.text_cue == sample.label) for sample in rus]
    assert all(rule[pair] == sample.interaction for pair, sample in zip(right, rus))
    for side in (0, 1):
        assert close(sum(pair[side] for pair in right), 20_000, 0.65)  # the unimodal bounds


def test_rus_markers_tell_nothing_alone_and_everything_together(rus):
    labels, kinds = [sample.label for sample in rus], [sample.interaction for sample in rus]
    for marker, own_cue in (("image_marker", "image_cue"), ("text_marker", "text_cue")):
        values = [getattr(sample, marker) for sample in rus]
        assert chisquare(np.bincount(values, minlength=4)).pvalue > 0.001
        assert independent(values, labels) and independent(values, kinds)
        cues = [getattr(sample, own_cue) for sample in rus]
        assert independent(values, cues) and independent(values, list(zip(labels, cues)))
    names = ("R", "U_image", "U_text", "S")
    for sample in rus:
        kind = (sample.image_marker + sample.text_marker) % 4
        assert names[kind] == sample.interaction
        assert sample.label == (
            sample.image_cue if kind < 2 else sample.text_cue if kind == 2 else 1 - sample.text_cue
        )


def test_rus_content_shows_the_cues_and_markers(rus):
    backgrounds = {}
    for sample in rus[:2000]:
        assert sample.scene.placements[0].name in (RUS_FRUITS if sample.image_cue else RUS_ANIMALS)
        words = [with_article(name) for name in (RUS_FRUITS if sample.text_cue else RUS_ANIMALS)]
        assert sum(sample.text.endswith(f" {word}.") for word in words) == 1
        assert sample.text.split()[0] == ("Today", "Yesterday", "Maybe", "Finally")[sample.text_marker]
        assert backgrounds.setdefault(sample.image_marker, sample.scene.background) == sample.scene.background
    assert len(set(backgrounds.values())) == 4
    pictures, texts_ = [s.scene.placements[0].name for s in rus], [s.text.split()[-1] for s in rus]
    fruits = [s.image_cue == 1 and s.text_cue == 1 for s in rus]
    assert independent(
        [name for name, keep in zip(pictures, fruits) if keep], [word for word, keep in zip(texts_, fruits) if keep]
    )


def test_rus_soft_and_noise():
    samples = [rus_sample(1, "train", index, hard="soft") for index in range(4000)]
    for sample in samples:
        assert (sample.text_cue is None) == (sample.interaction == "U_image")
        assert (sample.image_cue is None) == (sample.interaction == "U_text")
        if sample.image_cue is None:
            assert sample.scene.placements[0].name in RUS_TOOLS
    noisy = [rus_sample(1, "train", index, noise=0.1) for index in range(4000)]
    clean = [rus_sample(1, "train", index) for index in range(4000)]
    assert close(sum(a.label != b.label for a, b in zip(noisy, clean)), 4000, 0.1)
    assert all((a.text, a.scene, a.interaction) == (b.text, b.scene, b.interaction) for a, b in zip(noisy, clean))
    only_synergy = [rus_sample(1, "train", index, shares=(0, 0, 0, 1)) for index in range(100)]
    assert {sample.interaction for sample in only_synergy} == {"S"}


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "foods"}, r"Unknown demo data set 'foods'; available: food, imdb, .*Did you mean 'food'"),
        ({"name": "food", "sizes": {"dev": 3}}, "names the split 'dev'; available: train, validation, test"),
        ({"name": "food", "sizes": {"train": -1}}, r"`sizes\['train'\]` is -1; give a whole number"),
        ({"name": "memes", "sizes": {"train": 10}}, "give multiples of 4"),
        ({"name": "mustard", "sizes": {"all": 700}}, "MUStARD has 690 records"),
        ({"name": "food", "faces": 3}, "Demo 'food' has no option 'faces'; available: style, image_side"),
        ({"name": "memes", "faces": 24}, "`faces` of demo 'memes' is 24; allowed: 1 to 23"),
        ({"name": "rus", "shares": (0.5, 0.5, 0.5, 0.5)}, "allowed: four numbers that are not negative and sum to 1"),
        ({"name": "rus", "hard": "harder"}, "is 'harder'; allowed: hard, soft"),
        ({"name": "food", "style": "apple"}, "is 'apple'; allowed: both, noto, twemoji, cross"),
    ],
)
def test_wrong_arguments(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_demo_raw(**{"out_dir": tmp_path / "raw", **arguments})
    assert not (tmp_path / "raw").exists()


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="is not an empty folder"):
        write_demo_raw("rus", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
