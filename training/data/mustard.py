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
"""MUStARD: utterances of television shows with their dialogue and key frames, sarcastic or not.

Records are keyed by id in `sarcasm_data.json`, whose order matters: the official folds are positions in it. All splits of
the literature are offered (option `split_scheme`):

    all                      one split of 690
    fold0 ... fold4          the official stratified folds, from split_indices.p or .json
    speaker_independent      test = the show FRIENDS (356), train = the rest (334)
    speaker_independent_val  the same test; a quarter of the rest, by hash of the id within each label, is the validation split
    mmoe                     the same test; the validation ids come from mustard_types.csv (columns id, split)
    mope_code                the first 334 records train, the last 356 test: not independent of speakers
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

from .conversion import Converter, Entry, Layout, LayoutError, Option, RowBuilder, SkipRecord
from .images import IMAGE_EXTENSIONS, UnsafeImageError, resolve_inside
from .raw_files import iter_csv, iter_json_object, load_json
from .restricted_pickle import load_fold_indices


TEST_SHOW = "FRIENDS"
VALIDATION_SHARE = 0.25
MOPE_TRAIN_ROWS = 334
FOLDS = tuple(f"fold{k}" for k in range(5))
SPLIT_SCHEMES = ("speaker_independent_val", "speaker_independent", "mmoe", *FOLDS, "all", "mope_code")


class MustardConverter(Converter):
    """See the module's text."""

    LAYOUTS = (
        Layout("frames", ("sarcasm_data.json", "frames")),
        Layout("text-only", ("sarcasm_data.json",)),
    )
    OPTIONS = {
        "split_scheme": Option("speaker_independent_val", SPLIT_SCHEMES, "which records train and which test"),
        "frames": Option(8, help="pictures per clip, spread evenly; 1 is the middle one"),
        "text_only": Option(False, (True, False), "keep records without frames, with an empty list"),
    }

    def scan(self) -> None:
        if not isinstance(self.extra["frames"], int) or self.extra["frames"] < 1:
            raise ValueError(f"frames={self.extra['frames']!r} must be a whole number of at least 1.")
        if self.layout.name == "text-only" and not self.extra["text_only"]:
            raise LayoutError(
                f"{self.spec.name}: sarcasm_data.json is there, but the folder frames is missing. "
                f"Cut the frames, or use text_only=True for records without pictures.\n\n{self.spec.where}"
            )
        scheme = self.extra["split_scheme"]
        if scheme == "mope_code":
            self.warn(
                "The split mope_code is for reproduction only: both of its parts mix the same shows and speakers, and its "
                "test part also served as validation."
            )
        # [(id, record)] in file order: the file has 690 records
        self._records = list(iter_json_object(self.file("sarcasm_data.json")))
        self._fold_of = self._read_folds()
        self._split_of = self._assign(scheme)

    @property
    def edition(self) -> str:
        return self.extra["split_scheme"]

    def splits(self) -> Sequence[str]:
        return tuple(split for split in ("all", "train", "validation", "test") if split in set(self._split_of))

    def entries(self, split: str) -> Iterator[Entry]:
        for position, (record_id, record) in enumerate(self._records):
            if self._split_of[position] == split:
                yield Entry(record_id, [record, self._fold_of[position] if self._fold_of else None])

    def build(self, entry: Entry, split: str, row: RowBuilder) -> dict[str, Any]:
        record, fold = entry.data
        if not isinstance(record, dict):
            raise SkipRecord("record_unreadable")
        if not isinstance(record.get("sarcasm"), bool):
            raise SkipRecord("label_unknown")
        utterance = row.text(record.get("utterance"), main=True)
        raw_text = row.raw_text
        if not utterance:
            raise SkipRecord("text_empty")
        built = {
            "utterance": utterance,
            "speaker": row.text(record.get("speaker")),
            "context": [row.text(turn) for turn in _list(record.get("context"))],
            "context_speakers": [row.text(speaker) for speaker in _list(record.get("context_speakers"))],
            "show": row.text(record.get("show")),
            "label": int(record["sarcasm"]),
            "frames": [row.image(path) for path in self._frames(entry.id)],
            "audio": None,
            "fold": fold,
            "source": f"frames/{entry.id}",
        }
        row.raw_text = raw_text
        return built

    def _frames(self, record_id: str) -> list[str]:
        """Paths of the frames to store: at (i + 0.5) / k of the clip; fewer if the clip has fewer."""
        relative = f"frames/{record_id}"
        try:
            folder = resolve_inside(self.base, relative)
        except UnsafeImageError as error:
            raise SkipRecord("unsafe_path") from error
        names = []
        if folder.is_dir():
            names = sorted(n for n in os.listdir(folder) if os.path.splitext(n)[1].lower() in IMAGE_EXTENSIONS)
        if not names:
            if self.extra["text_only"]:
                return []
            raise SkipRecord("clip_missing")
        wanted = min(self.extra["frames"], len(names))
        return [f"{relative}/{names[int((i + 0.5) * len(names) / wanted)]}" for i in range(wanted)]

    # Splits --------------------------------------------------------------------------------------------------------

    def _assign(self, scheme: str) -> list[str]:
        """The split of each record, by position."""
        count = len(self._records)
        if scheme == "all":
            return ["all"] * count
        if scheme == "mope_code":
            return ["train" if position < MOPE_TRAIN_ROWS else "test" for position in range(count)]
        if scheme in FOLDS:
            if self._fold_of is None:
                raise LayoutError(
                    f"{self.spec.name}: split_scheme={scheme!r} needs split_indices.json or split_indices.p beside sarcasm_data.json."
                )
            fold = FOLDS.index(scheme)
            return ["test" if of == fold else "train" for of in self._fold_of]
        splits = ["test" if self._show(position) == TEST_SHOW else "train" for position in range(count)]
        if scheme == "mmoe":
            held_out = self._mmoe_validation()
        elif scheme == "speaker_independent_val":
            held_out = self._hashed_validation(splits)
        else:
            held_out = set()
        return [
            "validation" if split == "train" and self._records[position][0] in held_out else split
            for position, split in enumerate(splits)
        ]

    def _show(self, position: int) -> str:
        record = self._records[position][1]
        return str(record.get("show")) if isinstance(record, dict) else ""

    def _hashed_validation(self, splits: list[str]) -> set[str]:
        by_label: dict[bool, list[str]] = {}
        for split, (record_id, record) in zip(splits, self._records):
            if split == "train" and isinstance(record, dict):
                by_label.setdefault(bool(record.get("sarcasm")), []).append(record_id)
        held_out: set[str] = set()
        for ids in by_label.values():
            ids.sort(key=lambda i: hashlib.sha256(i.encode("utf-8", "surrogatepass")).digest())
            held_out.update(ids[: int(VALIDATION_SHARE * len(ids))])
        return held_out

    def _mmoe_validation(self) -> set[str]:
        if not self.has("mustard_types.csv"):
            raise LayoutError(
                f"{self.spec.name}: split_scheme='mmoe' needs mustard_types.csv (columns id, split) beside sarcasm_data.json."
            )
        rows = [cells for _, cells in iter_csv(self.file("mustard_types.csv"))]
        try:
            id_column, split_column = rows[0].index("id"), rows[0].index("split")
            return {row[id_column] for row in rows[1:] if row[split_column] in ("val", "valid", "validation", "dev")}
        except (ValueError, IndexError) as error:
            raise LayoutError(f"{self.spec.name}: mustard_types.csv must have the columns id and split.") from error

    def _read_folds(self) -> list[int | None] | None:
        """The fold in whose test part each record is; None if the tree has no fold file."""
        if self.has("split_indices.json"):
            content = load_json(self.file("split_indices.json"))
            try:
                tests = [list(fold["test"]) for fold in content["folds"]]
            except (TypeError, KeyError) as error:
                raise LayoutError(
                    f"{self.spec.name}: split_indices.json must hold folds with lists under test."
                ) from error
        elif self.has("split_indices.p"):
            tests = [test for _, test in load_fold_indices(self.file("split_indices.p"))]
        else:
            return None
        fold_of: list[int | None] = [None] * len(self._records)
        for fold, positions in enumerate(tests):
            for position in positions:
                if not isinstance(position, int) or not 0 <= position < len(fold_of) or fold_of[position] is not None:
                    raise LayoutError(
                        f"{self.spec.name}: the folds are not a partition of the {len(fold_of)} records of sarcasm_data.json "
                        f"(position {position!r} of fold {fold})."
                    )
                fold_of[position] = fold
        return fold_of


def _list(value: object) -> list:
    return value if isinstance(value, list) else []
