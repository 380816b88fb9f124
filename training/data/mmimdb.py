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
"""MM-IMDb: film posters, plots and genres (several per film), from `<id>.json` + `<id>.jpeg` and `split.json`.

A record is an IMDbPY dump; `plot` is a list of strings, each possibly ending in `::author`, which is cut off. The text is
the longest plot (the first of equal ones), as in the GMU code; `plots` keeps all. Genres outside the 23 are ignored.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

from .conversion import Converter, Entry, Layout, LayoutError, Option, RowBuilder, SkipRecord
from .images import UnsafeImageError, resolve_inside
from .raw_files import RawFileError, load_json


MAX_RECORD_BYTES = 8 << 20

_SPLIT_KEYS = {"train": "train", "validation": "dev", "test": "test"}
# layout -> folder of the JSON files, folder of the posters
_FOLDERS = {
    "owner": ("dataset", "dataset"),
    "owner-split-beside": ("mmimdb/dataset", "mmimdb/dataset"),
    "repack": ("labels", "images"),
}


class MMIMDbConverter(Converter):
    """See the module's text."""

    LAYOUTS = (
        Layout("owner", ("dataset", "split.json"), "owner"),
        Layout("owner-split-beside", ("mmimdb/dataset", "split.json"), "owner"),
        Layout("repack", ("labels", "images", "split.json"), "owner"),
    )
    OPTIONS = {
        "plot": Option(
            "longest",
            ("longest", "first", "random"),
            "which plot becomes the text; random is drawn from `plots` in each epoch of training, the text is then the longest",
        )
    }

    def splits(self) -> Sequence[str]:
        return tuple(_SPLIT_KEYS)

    def entries(self, split: str) -> Iterator[Entry]:
        names = self._split_lists[_SPLIT_KEYS[split]]
        yield from (Entry(_seven_digits(name), None) for name in names)

    def build(self, entry: Entry, split: str, row: RowBuilder) -> dict[str, Any]:
        labels, posters = _FOLDERS[self.layout.name]
        record = self._record(f"{labels}/{entry.id}.json", row)
        plots = self._plots(record.get("plot"), row)
        if not plots:
            raise SkipRecord("plot_missing")
        row.raw_text, text = plots[0] if self.extra["plot"] == "first" else max(plots, key=lambda plot: len(plot[1]))
        source = f"{posters}/{entry.id}.jpeg"
        return {
            "image": row.image(source),
            "text": text,
            "plots": [cleaned for _, cleaned in plots],
            "genres": self._genres(record.get("genres"), row),
            "title": row.text(record.get("title")),
            "year": _year(record.get("year")),
            "source": source,
        }

    @functools.cached_property
    def _split_lists(self) -> dict[str, list]:
        """The ids of each split, from split.json."""
        content = load_json(self.file("split.json"), lambda key: self.warn("split.json repeats a key."))
        if not isinstance(content, dict) or any(
            not isinstance(content.get(key), list) for key in _SPLIT_KEYS.values()
        ):
            raise LayoutError(f"{self.spec.name}: split.json must hold lists of ids under train, dev and test.")
        return content

    def _record(self, relative: str, row: RowBuilder) -> dict[str, Any]:
        try:
            path = resolve_inside(self.base, relative)
        except UnsafeImageError as error:
            raise SkipRecord("unsafe_path") from error
        if not path.is_file():
            raise SkipRecord("record_missing")
        try:
            record = load_json(
                path,
                lambda key: row.warnings.append("A record repeats a key; its last value holds."),
                MAX_RECORD_BYTES,
            )
        except (RawFileError, OSError) as error:
            raise SkipRecord("record_unreadable") from error
        if not isinstance(record, dict):
            raise SkipRecord("record_unreadable")
        return record

    def _plots(self, raw: object, row: RowBuilder) -> list[tuple[str, str]]:
        """(raw, cleaned) plots without authors, empty ones left out."""
        plots = []
        for plot in [raw] if isinstance(raw, str) else raw if isinstance(raw, list) else []:
            if not isinstance(plot, str):
                continue
            body, separator, _ = plot.rpartition("::")
            if separator:
                row.repairs.append("plot_author")
            cleaned = row.text(body if separator else plot, main=True)
            if cleaned:
                plots.append((row.raw_text or "", cleaned))
        return plots

    def _genres(self, raw: object, row: RowBuilder) -> list[int]:
        names = [str(name).strip() for name in raw] if isinstance(raw, list) else []
        known = sorted({self.label_ids[name] for name in names if name in self.label_ids})
        if any(name not in self.label_ids for name in names):
            row.repairs.append("genre_ignored")
        if not known:
            row.repairs.append("no_known_genre")
        return known


def _seven_digits(name: object) -> str:
    """IMDb ids are seven digits with leading zeros, which tables and numbers lose."""
    text = str(name)
    return text.zfill(7) if text.isdigit() else text


def _year(value: object) -> int | None:
    try:
        year = int(str(value))
    except ValueError:
        return None
    return year if 0 < year < 10000 else None
