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
"""UPMC Food-101 (pictures and page titles) from its three raw layouts; also any set in these layouts with other classes.

Kaggle copy: `texts/{train,test}_titles.csv` without header: file, title, class. Missing-modality copy: `split.json`,
`text.json`, `class_idx.json`. Owner: `texts_txt/<class>/<id>.txt`, the text of the whole page. The class of a file is its
name up to the last underscore. Titles went through Python's `repr` and are repaired by [`text_cleaning.clean_title`].
"""

import functools
import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

from .conversion import Converter, Entry, Layout, LayoutError, Option, RowBuilder, SkipRecord
from .images import IMAGE_EXTENSIONS, UnsafeImageError, resolve_inside
from .raw_files import iter_csv, load_json
from .text_cleaning import MAX_TEXT_BYTES, clean_title


_SPLIT_KEYS = {"train": "train", "validation": "val", "test": "test"}


class Food101Converter(Converter):
    """See the module's text. The class names are the spec's label names."""

    LAYOUTS = (
        Layout("kaggle", ("images/train", "images/test", "texts/train_titles.csv", "texts/test_titles.csv")),
        Layout(
            "missing-modality",
            ("images/train", "images/test", "class_idx.json", "split.json", "text.json"),
            "split.json",
        ),
        Layout("owner", ("images/train", "images/test", "texts_txt")),
    )
    OPTIONS = {
        "validation_share": Option(
            0.1, help="share of each class that becomes the validation split where the tree has no split.json"
        ),
        "keep_textless": Option(False, (True, False), "keep pictures without a title, with an empty text"),
    }

    def scan(self) -> None:
        if not 0 <= self.extra["validation_share"] < 1:
            raise ValueError(
                f"validation_share={self.extra['validation_share']!r} must be at least 0 and less than 1."
            )
        self._split_of: dict[str, set[str]] | None = None
        self._titles: dict[str, Any] | None = None
        if self.layout.name == "missing-modality":
            self._check_class_index()
        elif self.layout.name == "kaggle" and self.has("split.json"):
            names = self._split_lists
            self._split_of = {split: set(names[split]) for split in names}
            known = self._split_of["train"] | self._split_of["validation"]
            unlisted = sum(1 for entry in self._listed("train") if entry.data and entry.data[0] not in known)
            if unlisted:
                self.warn(f"{unlisted:,} train titles are in neither list of split.json and were left out.")
        elif self._share > 0:
            self.warn(
                f"The tree has no validation split; {self._share:.0%} of each class of train, by hash of the id, became it."
            )

    @property
    def edition(self) -> str:
        if self.layout.name == "kaggle":
            if self._split_of is not None:
                return "split.json"
            return "titles, validation by hash" if self._share > 0 else "titles"
        return self.layout.edition

    @property
    def _share(self) -> float:
        return self.extra["validation_share"]

    def splits(self) -> Sequence[str]:
        has_validation = self.layout.name == "missing-modality" or self._split_of is not None or self._share > 0
        return ("train", "validation", "test") if has_validation else ("train", "test")

    def entries(self, split: str) -> Iterator[Entry]:
        """Entries with data [file, title or None, class by the list or None]."""
        if self.layout.name == "missing-modality":
            for file in self._split_lists[split]:
                yield Entry(_stem(file), [file, None, None])
            return
        listed = self._listed("test" if split == "test" else "train")
        if split != "test" and self._split_of is not None:
            names = self._split_of[split]
            for entry in listed:
                if entry.data[0] in names if entry.data else split == "train":
                    yield entry
        elif split == "test" or self._share == 0:
            yield from listed
        else:
            entries = list(listed)
            held_out = self._held_out(entries)
            yield from (entry for entry in entries if (entry.id in held_out) == (split == "validation"))

    def build(self, entry: Entry, split: str, row: RowBuilder) -> dict[str, Any]:
        file, title, listed_class = entry.data
        folder = "test" if split == "test" else "train"
        class_name = _class_of(file)
        if not file or file in (".", "..") or "/" in file or "\\" in file or "\0" in file:
            raise SkipRecord("unsafe_path")
        label = self.label_ids.get(class_name)
        if label is None:
            raise SkipRecord("class_unknown")
        if listed_class is not None and listed_class != class_name:
            raise SkipRecord("class_mismatch")
        if self.layout.name == "missing-modality":
            title = self._title_from_json(file)
        elif self.layout.name == "owner":
            title = self._page_text(class_name, _stem(file))
        if title is None and not self.extra["keep_textless"]:
            raise SkipRecord("title_missing")
        text = row.text(title, main=True, clean=clean_title)
        if not text and not self.extra["keep_textless"]:
            raise SkipRecord("text_empty")
        source = f"images/{folder}/{class_name}/{file}"
        return {"image": row.image(source), "text": text, "label": label, "source": source}

    # Lists ---------------------------------------------------------------------------------------------------------

    def _listed(self, folder: str) -> Iterator[Entry]:
        """The records of one image folder, in the order of the title file, else by class and name."""
        if self.layout.name == "kaggle":
            name = f"{folder}_titles.csv"
            for line, cells in iter_csv(self.file(f"texts/{name}")):
                if len(cells) == 3:
                    yield Entry(_stem(cells[0]), [cells[0], cells[1], cells[2].strip()])
                else:
                    yield Entry(f"{name}:{line}", None, "line_malformed")
            return
        for class_name in self.spec.label_names:
            try:
                path = resolve_inside(self.base, f"images/{folder}/{class_name}")
                names = sorted(entry.name for entry in os.scandir(path))
            except (UnsafeImageError, OSError):
                self.warn(f"There is no folder images/{folder}/{class_name}.")
                continue
            for file in names:
                if os.path.splitext(file)[1].lower() in IMAGE_EXTENSIONS:
                    yield Entry(_stem(file), [file, None, class_name])

    def _held_out(self, listed: list[Entry]) -> set[str]:
        """round(share * n) ids in all, from each class in proportion, the ones with the smallest hash."""
        by_class: dict[str, set[str]] = {}
        for entry in listed:
            if entry.data is not None:
                by_class.setdefault(_class_of(entry.data[0]), set()).add(entry.id)
        exact = {name: self._share * len(ids) for name, ids in by_class.items()}
        taken = {name: int(count) for name, count in exact.items()}
        missing = round(self._share * sum(map(len, by_class.values()))) - sum(taken.values())
        for name in sorted(exact, key=lambda name: (taken[name] - exact[name], name))[: max(0, missing)]:
            taken[name] += 1
        held_out: set[str] = set()
        for name, ids in by_class.items():
            ranked = sorted(ids, key=lambda i: hashlib.sha256(i.encode("utf-8", "surrogateescape")).digest())
            held_out.update(ranked[: taken[name]])
        return held_out

    @functools.cached_property
    def _split_lists(self) -> dict[str, list[str]]:
        """The file names of each split, from split.json."""
        content = load_json(self.file("split.json"), lambda key: self.warn(f"split.json repeats the key {key!r}."))
        if not isinstance(content, dict) or any(
            not isinstance(content.get(key), list) for key in _SPLIT_KEYS.values()
        ):
            raise LayoutError(f"{self.spec.name}: split.json must hold lists of file names under train, val and test.")
        return {split: [str(file) for file in content[key]] for split, key in _SPLIT_KEYS.items()}

    def _check_class_index(self) -> None:
        names = load_json(self.file("class_idx.json"))
        if not isinstance(names, dict):
            raise LayoutError(f"{self.spec.name}: class_idx.json must map class names to numbers.")
        unknown = sorted(set(names) - set(self.label_ids))
        if unknown:
            self.warn(f"class_idx.json has {len(unknown)} classes that this data set does not have.")

    # Texts ---------------------------------------------------------------------------------------------------------

    def _title_from_json(self, file: str) -> str | None:
        if self._titles is None:
            titles = load_json(self.file("text.json"))
            if not isinstance(titles, dict):
                raise LayoutError(f"{self.spec.name}: text.json must map file names to titles.")
            self._titles = titles
        title = self._titles.get(file)
        if isinstance(title, list):
            title = next((item for item in title if isinstance(item, str)), None)
        return title if isinstance(title, str) else None

    def _page_text(self, class_name: str, stem: str) -> str | None:
        try:
            path = resolve_inside(self.base, f"texts_txt/{class_name}/{stem}.txt")
            with path.open("rb") as file:
                return file.read(4 * MAX_TEXT_BYTES).decode("utf-8", errors="surrogateescape")
        except (UnsafeImageError, OSError):
            return None


def _stem(file: str) -> str:
    return os.path.splitext(file)[0]


def _class_of(file: str) -> str:
    return _stem(file).rpartition("_")[0]
