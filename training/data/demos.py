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
"""Writes the demo data sets as raw trees, in the layouts in which the owners of the real sets distribute them.

`write_demo_raw("food", folder)` leaves what a download of UPMC Food-101 would leave, only smaller and drawn, including a
few of the defects real downloads have. So the converters, the loader and everything after them run on it unchanged, and
offline. What a sample shows and says is decided in `demo_samples.py`; here it only gets its place on disk.
"""

import inspect
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from html import unescape
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from .demo_concepts import SMILING_FACES
from .demo_samples import (
    RUS_SHARES,
    food_sample,
    imdb_sample,
    meme_quadruple,
    mustard_clip,
    rus_sample,
    ve_image,
)
from .emoji_scenes import STYLE_OPTIONS, Scene, render


__all__ = ["DEFAULT_SIZES", "write_demo_raw"]

MUSTARD_DIR = Path(__file__).parent / "mustard_text"

# Rows per split; small enough for a CPU. `demo:mustard` has the 690 real records and no split of its own.
DEFAULT_SIZES: dict[str, dict[str, int]] = {
    "food": {"train": 3000, "validation": 400, "test": 800},
    "imdb": {"train": 3000, "validation": 400, "test": 800},
    "ve": {"train": 4000, "validation": 600, "test": 900},
    "memes": {"train": 2400, "validation": 400, "test": 800},
    "mustard": {"all": 690},
    "rus": {"train": 3000, "validation": 500, "test": 1000},
}

_HTML_PAGE = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>Not Found</body></html>\n"


def write_demo_raw(
    name: str,
    out_dir: str | os.PathLike[str],
    seed: int = 0,
    sizes: dict[str, int] | None = None,
    planted_defects: bool = True,
    **options: Any,
) -> dict[str, Any]:
    """Writes the raw tree of one demo data set.

    Args:
        name: food, imdb, ve, memes, mustard or rus; `"demo:food"` is understood too.
        out_dir: a new or empty folder.
        seed: another seed gives other samples. Sample i of a split is the same for every size.
        sizes: rows per split, for the splits that differ from `DEFAULT_SIZES[name]`. The layout of food has no
            validation split: its rows are added to the train folder, and the converter draws its own from there.
            For mustard, {"all": n} keeps the first n records (without the folds if n < 690).
        planted_defects: damage a few train records in the ways seen in real downloads (mustard stays as it is, so that
            its official folds fit). The number of records does not change.
        **options: `image_side` (pixels, 84) and `style`: "both" drawings everywhere, "noto", "twemoji", or "cross"
            (Twemoji in the test split only; for mustard in the show FRIENDS). memes: `faces` per mood (8, at most 23),
            `overlay` (False; True writes the caption readably into the picture, which then tells about the label).
            mustard: `p`, how often the face agrees with the label (0.9). rus: `shares` of R, U_image, U_text, S
            ((0.45, 0.20, 0.20, 0.15)), `noise` (0), `hard` ("hard" or "soft", see `rus_sample`).

    Returns:
        What a report of the conversion must show: `{"name", "seed", "options", "written": {raw split: records},
        "skipped": {raw split: {reason: [ids]}}, "repairs": {kind: [ids]}, "oddities": {kind: [ids]}}`. Oddities are kept
        records that deserve a warning. Food's train ids may end up in its validation split.

    Raises:
        ValueError: unknown name, split, option or a value out of range.
        FileExistsError: `out_dir` holds something.

    Example:
        >>> import tempfile
        >>> planted = write_demo_raw("rus", tempfile.mkdtemp(), sizes={"train": 16, "validation": 4, "test": 4})
        >>> planted["written"]
        {'train': 16, 'validation': 4, 'test': 4}
    """
    short = name.removeprefix("demo:")
    if short not in _WRITERS:
        close = get_close_matches(short, _WRITERS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"Unknown demo data set {name!r}; available: {', '.join(_WRITERS)}.{hint}")
    writer = _WRITERS[short]
    _check_options(short, writer, options)
    rows = _checked_sizes(short, sizes)
    root = Path(out_dir)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(f"`out_dir` {root} exists and is not an empty folder; give a new one.")
    root.mkdir(parents=True, exist_ok=True)

    log = _PlantedLog()
    written = writer(root, seed, rows, planted_defects, log, **options)
    facts = {"skipped": log.skipped, "repairs": log.repairs, "oddities": log.oddities}
    return {"name": short, "seed": seed, "options": dict(options), "written": written, **facts}


def _checked_sizes(name: str, sizes: dict[str, int] | None) -> dict[str, int]:
    rows = dict(DEFAULT_SIZES[name])
    for split, count in (sizes or {}).items():
        if split not in rows:
            raise ValueError(f"`sizes` of demo {name!r} names the split {split!r}; available: {', '.join(rows)}.")
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= 20_000:
            raise ValueError(f"`sizes[{split!r}]` is {count!r}; give a whole number from 0 to 20,000.")
        rows[split] = count
    if name == "memes" and any(count % 4 for count in rows.values()):
        raise ValueError(f"`sizes` of demo 'memes' are {rows}; memes come in fours, so give multiples of 4.")
    if rows.get("all", 0) > 690:
        raise ValueError(f"`sizes['all']` is {rows['all']}; MUStARD has 690 records.")
    return rows


def _check_options(name: str, writer: Callable[..., Any], options: dict[str, Any]) -> None:
    known = [p.name for p in inspect.signature(writer).parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    for option, value in options.items():
        if option not in known:
            raise ValueError(f"Demo {name!r} has no option {option!r}; available: {', '.join(known)}.")
        allowed, fits = _OPTION_RULES[option]
        if not fits(value):
            raise ValueError(f"Option `{option}` of demo {name!r} is {value!r}; allowed: {allowed}.")


def _is_shares(value: Any) -> bool:
    return len(value) == 4 and all(share >= 0 for share in value) and abs(sum(value) - 1) < 1e-9


_OPTION_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "style": (", ".join(STYLE_OPTIONS), lambda value: value in STYLE_OPTIONS),
    "image_side": ("16 to 1024", lambda value: isinstance(value, int) and 16 <= value <= 1024),
    "faces": (f"1 to {len(SMILING_FACES)}", lambda value: isinstance(value, int) and 1 <= value <= len(SMILING_FACES)),
    "overlay": ("True, False", lambda value: isinstance(value, bool)),
    "p": ("0 to 1", lambda value: 0 <= value <= 1),
    "noise": ("0 to 1", lambda value: 0 <= value <= 1),
    "hard": ("hard, soft", lambda value: value in ("hard", "soft")),
    "shares": ("four numbers that are not negative and sum to 1", _is_shares),
}


class _PlantedLog:
    """What was damaged, and what the damage should lead to."""

    def __init__(self) -> None:
        self.skipped: dict[str, dict[str, list[str]]] = {}
        self.repairs: dict[str, list[str]] = {}
        self.oddities: dict[str, list[str]] = {}

    def skip(self, split: str, reason: str, record_id: str) -> None:
        self.skipped.setdefault(split, {}).setdefault(reason, []).append(record_id)

    def repair(self, kind: str, record_id: str) -> None:
        self.repairs.setdefault(kind, []).append(record_id)

    def oddity(self, kind: str, record_id: str) -> None:
        self.oddities.setdefault(kind, []).append(record_id)


# --- food: the Kaggle repack of UPMC Food-101 -------------------------------------------------------------------------


def _write_food(
    root: Path,
    seed: int,
    sizes: dict[str, int],
    defects: bool,
    log: _PlantedLog,
    *,
    style: str = "both",
    image_side: int = 84,
) -> dict[str, int]:
    html, truncated, wrapped, unknown = (3, 7, 11, 15) if defects else (None,) * 4
    written = {}
    # Samples of train and validation are drawn from their own addresses, then lie in one folder.
    for folder, parts in (("train", (("train", 0), ("validation", 20_000))), ("test", (("test", 40_000),))):
        lines: list[tuple[str, str, str]] = []
        for split, first in parts:
            for index in range(sizes[split]):
                sample = food_sample(seed, split, index, style)
                label, title, damage = sample.label, sample.title, index if split == "train" else -1
                if damage == unknown:
                    label = "mystery_dish"
                if damage in (html, truncated, unknown):
                    title = "A plain title"  # so that no repair is counted for a record that is skipped
                file = f"{label}_{first + index}.jpg"
                record_id = file.removesuffix(".jpg")
                content = _encoded(sample.scene, image_side, "JPEG")
                if damage == html:
                    content = _HTML_PAGE
                    log.skip(folder, "image_unreadable", record_id)
                elif damage == truncated:
                    content = content[: len(content) // 2]
                    log.skip(folder, "image_unreadable", record_id)
                elif damage == wrapped:
                    title = f'[["Everybody\'s guide: {unescape(title)}"]]'
                    log.repair("list_wrapped_title", record_id)
                elif damage == unknown:
                    log.skip(folder, "class_unknown", record_id)
                if unescape(title) != title:
                    log.repair("html_entity", record_id)
                _put(root / "images" / folder / label / file, content)
                lines.append((file, title, label))
        rows = "".join(",".join(_csv_field(field) for field in line) + "\r\n" for line in sorted(lines))
        _put(root / "texts" / f"{folder}_titles.csv", rows.encode())
        written[folder] = len(lines)
    return written


def _csv_field(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if '"' in text else text


# --- imdb: the owners' archive of MM-IMDb -----------------------------------------------------------------------------


def _write_imdb(
    root: Path,
    seed: int,
    sizes: dict[str, int],
    defects: bool,
    log: _PlantedLog,
    *,
    style: str = "both",
    image_side: int = 84,
) -> dict[str, int]:
    no_poster, author, talk_show, broken = (3, 7, 11, 15) if defects else (None,) * 4
    split_ids: dict[str, list[str]] = {}
    dataset = root / "mmimdb" / "dataset"
    for split, owner_split, first in (
        ("train", "train", 100_000),
        ("validation", "dev", 400_000),
        ("test", "test", 700_000),
    ):
        ids = split_ids.setdefault(owner_split, [])
        for index in range(sizes[split]):
            record_id = f"{first + index:07d}"
            ids.append(record_id)
            sample = imdb_sample(seed, split, index, style)
            genres, plots, damage = list(sample.genres), list(sample.plots), index if split == "train" else -1
            content: bytes | None = _encoded(sample.scene, image_side, "JPEG")
            if damage == no_poster:
                content = None
                log.skip(owner_split, "image_missing", record_id)
            elif damage == author:
                plots[-1] += "::Jane Doe <jane.doe@example.org>"
                log.repair("plot_author", record_id)
            elif damage == talk_show:
                genres.append("Talk-Show")
                log.oddity("label_unknown", record_id)
            elif damage == broken:
                content = _HTML_PAGE
                log.skip(owner_split, "image_unreadable", record_id)
            record = {
                "cast": [{"name": "Doe, Jane"}],
                "genres": genres,
                "plot": plots,
                "plot outline": plots[0],
                "title": sample.title,
                "year": sample.year,
            }
            _put(dataset / f"{record_id}.json", _json(record))
            if content is not None:
                _put(dataset / f"{record_id}.jpeg", content)
    _put(root / "mmimdb" / "split.json", _json(split_ids))
    return {split: len(ids) for split, ids in split_ids.items()}


# --- ve: SNLI-VE as its generator leaves it, beside Flickr30k ---------------------------------------------------------


def _write_ve(
    root: Path,
    seed: int,
    sizes: dict[str, int],
    defects: bool,
    log: _PlantedLog,
    *,
    style: str = "both",
    image_side: int = 84,
) -> dict[str, int]:
    no_gold_pair, truncated_image = (4, 3) if defects else (None, None)  # pair 4 is of image 1; image 3 has pairs 9-11
    written = {}
    for split, owner_split, first in (
        ("train", "train", 1_000_000_000),
        ("validation", "dev", 2_000_000_000),
        ("test", "test", 3_000_000_000),
    ):
        pairs: list[dict[str, Any]] = []
        for index in range(-(-sizes[split] // 3)):  # three statements per picture; the last may get fewer
            sample = ve_image(seed, split, index, style)
            image_id = str(first + index)
            content = _encoded(sample.scene, image_side, "JPEG")
            cut = split == "train" and index == truncated_image
            _put(
                root / "Flickr30K" / "flickr30k_images" / f"{image_id}.jpg",
                content[: len(content) // 2] if cut else content,
            )
            for number, (gold, hypothesis) in enumerate(sample.statements):
                if len(pairs) == sizes[split]:
                    break
                pair_id = f"{image_id}.jpg#{number}r1{gold[0]}"
                if split == "train" and len(pairs) == no_gold_pair:
                    gold = "-"
                    log.skip(owner_split, "gold_missing", pair_id)
                elif cut:
                    log.skip(owner_split, "image_unreadable", pair_id)
                annotators = ["entailment", "neutral", "contradiction", "neutral"] if gold == "-" else [gold]
                pairs.append(
                    {
                        "Flickr30K_ID": image_id,
                        "annotator_labels": annotators,
                        "captionID": f"{image_id}.jpg#{number}",
                        "gold_label": gold,
                        "pairID": pair_id,
                        "sentence1": sample.premise,
                        "sentence1_binary_parse": "",
                        "sentence1_parse": "",
                        "sentence2": hypothesis,
                        "sentence2_binary_parse": "",
                        "sentence2_parse": "",
                    }
                )
        _put(root / f"snli_ve_{owner_split}.jsonl", _jsonl(pairs))
        written[owner_split] = len(pairs)
    return written


# --- memes: Hateful Memes, phase 2 ------------------------------------------------------------------------------------


def _write_memes(
    root: Path,
    seed: int,
    sizes: dict[str, int],
    defects: bool,
    log: _PlantedLog,
    *,
    style: str = "both",
    image_side: int = 84,
    faces: int = 8,
    overlay: bool = False,
) -> dict[str, int]:
    outside, not_binary, broken = (3, 10, 17) if defects else (None,) * 3
    written = {}
    for split, owner_split, first in (
        ("train", "train", 0),
        ("validation", "dev_seen", 40_000),
        ("test", "test_seen", 70_000),
    ):
        records: list[dict[str, Any]] = []
        for quadruple in range(sizes[split] // 4):
            drawn: dict[Scene, bytes] = {}
            for meme in meme_quadruple(seed, split, quadruple, style, faces, overlay):
                index = len(records)
                damage = index if split == "train" else -1
                record = {
                    "id": first + index,
                    "img": f"img/{first + index:05d}.png",
                    "label": meme.label,
                    "text": meme.text,
                }
                if meme.scene not in drawn:  # two memes of the four share a picture
                    drawn[meme.scene] = _encoded(meme.scene, image_side, "PNG")
                content = drawn[meme.scene]
                record_id = f"{first + index:05d}"
                if damage == outside:
                    record["img"] = f"img/../../{record_id}.png"
                    log.skip(owner_split, "unsafe_path", record_id)
                elif damage == not_binary:
                    record["label"] = 2
                    log.skip(owner_split, "label_not_binary", record_id)
                elif damage == broken:
                    content = content[: len(content) // 2]
                    log.skip(owner_split, "image_unreadable", record_id)
                _put(root / "img" / f"{record_id}.png", content)
                records.append(record)
        _put(root / f"{owner_split}.jsonl", _jsonl(records))
        written[owner_split] = len(records)
    return written


# --- mustard: the real texts, frames instead of videos ----------------------------------------------------------------


def _write_mustard(
    root: Path,
    seed: int,
    sizes: dict[str, int],
    defects: bool,
    log: _PlantedLog,
    *,
    style: str = "both",
    image_side: int = 84,
    p: float = 0.9,
) -> dict[str, int]:
    records = json.loads((MUSTARD_DIR / "sarcasm_data.json").read_text(encoding="utf-8"))
    kept = dict(list(records.items())[: sizes["all"]])
    if len(kept) == len(records):
        for file in ("sarcasm_data.json", "split_indices.json"):
            shutil.copyfile(MUSTARD_DIR / file, root / file)
    else:
        _put(root / "sarcasm_data.json", _json(kept))
    shutil.copyfile(MUSTARD_DIR / "NOTICE", root / "NOTICE")
    for key, record in kept.items():
        clip = mustard_clip(seed, key, record["sarcasm"], p, style, is_test=record["show"] == "FRIENDS")
        for number, frame in enumerate(clip, start=1):
            _put(root / "frames" / key / f"{number:05d}.jpg", _encoded(frame, image_side, "JPEG"))
    return {"all": len(kept)}


# --- rus: our own layout ----------------------------------------------------------------------------------------------


def _write_rus(
    root: Path,
    seed: int,
    sizes: dict[str, int],
    defects: bool,
    log: _PlantedLog,
    *,
    style: str = "both",
    image_side: int = 84,
    shares: Sequence[float] = RUS_SHARES,
    noise: float = 0.0,
    hard: str = "hard",
) -> dict[str, int]:
    outside, unknown, broken = (3, 7, 11) if defects else (None,) * 3
    for split, count in sizes.items():
        records = []
        for index in range(count):
            sample = rus_sample(seed, split, index, tuple(shares), noise, hard, style)  # type: ignore[arg-type]
            record_id = f"{split}-{index:05d}"
            damage = index if split == "train" else -1
            record: dict[str, Any] = {"id": record_id, "img": f"img/{record_id}.png", "text": sample.text}
            record |= {"label": sample.label, "interaction": sample.interaction}
            content = _encoded(sample.scene, image_side, "PNG")
            if damage == outside:
                record["img"] = f"../../{record_id}.png"
                log.skip(split, "unsafe_path", record_id)
            elif damage == unknown:
                record["label"] = 7
                log.skip(split, "label_unknown", record_id)
            elif damage == broken:
                content = _HTML_PAGE
                log.skip(split, "image_unreadable", record_id)
            _put(root / "rus" / "img" / f"{record_id}.png", content)
            records.append(record)
        _put(root / "rus" / f"{split}.jsonl", _jsonl(records))
    return dict(sizes)


_WRITERS: dict[str, Callable[..., dict[str, int]]] = {
    "food": _write_food,
    "imdb": _write_imdb,
    "ve": _write_ve,
    "memes": _write_memes,
    "mustard": _write_mustard,
    "rus": _write_rus,
}


# --- small helpers ----------------------------------------------------------------------------------------------------


def _encoded(scene: Scene, side: int, file_format: str) -> bytes:
    picture: Image.Image = render(scene, side)
    buffer = BytesIO()
    if file_format == "JPEG":
        picture.save(buffer, "JPEG", quality=92)
    else:
        picture.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _put(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _jsonl(records: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False, sort_keys=True) + "\n" for record in records).encode()
