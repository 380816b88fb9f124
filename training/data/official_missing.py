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
"""The missing-modality tables of the DCP and MMP code, reproduced: same seed, same rows.

There, Python's generator is seeded once, and the three splits draw from it one after the other, each

    idx = random.sample(range(n), int(n * rate));  text: 1, image: 2
    both: 1, and 2 for random.sample(idx, int(len(idx) * both_ratio))

so a table depends on the settings of the splits before it, and on the order of the rows. The official code keeps each
table in a file whose name shows neither seed nor `both_ratio`, and takes the file wherever it exists. Here tables are
made anew (it takes milliseconds), and a saved one carries the fingerprint of all it depends on; one that does not fit
is refused. `MissingModality` of `missing_simulation` is the choice that depends on ids instead of on row order.
"""

import hashlib
import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...modeling.missing_modality import MissingType
from .missing_simulation import MISSING_KINDS, apply_missing


__all__ = ["SPLITS", "OfficialItems", "OfficialMissing", "official_file_name", "official_table", "official_tables"]

SPLITS = ("train", "validation", "test")  # the order in which they draw
_FILE_SPLITS = {
    "mmimdb": ("mmimdb_train", "mmimdb_dev", "mmimdb_test"),
    "food101": ("food101_train", "food101_val", "food101_test"),
    "hateful_memes": ("hatememes_train", "hatememes_dev", "hatememes_test"),
}


def official_table(rows: int, kind: str, rate: float, both_ratio: float, generator: random.Random) -> np.ndarray:
    """The codes of one split, int8 of shape (rows,); draws from `generator` unless `rate` is 0."""
    codes = np.zeros(rows, dtype=np.int8)
    if rate > 0:
        incomplete = generator.sample(range(rows), int(rows * rate))
        codes[incomplete] = MissingType.IMAGE if kind == "image" else MissingType.TEXT
        if kind == "both":
            codes[generator.sample(incomplete, int(len(incomplete) * both_ratio))] = MissingType.IMAGE
    return codes


def official_tables(
    sizes: Mapping[str, int],
    kind: str | Mapping[str, str],
    rate: float | Mapping[str, float],
    both_ratio: float = 0.5,
    seed: int = 0,
    kept: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """The tables of the splits as the official code makes them in one run.

    Args:
        sizes: rows per split, under the names of `SPLITS`.
        kind, rate: for all splits, or per split.
        both_ratio: for the kind "both": share of the incomplete rows that lack the image.
        seed: the official default is 0.
        kept: tables that an official run would find in files and not draw, which shifts those after them.

    Raises:
        ValueError: a setting out of range; the message names it and what is allowed.

    Example:
        >>> official_tables({"train": 4, "validation": 2, "test": 2}, "text", 0.5)["train"].tolist()
        [0, 1, 0, 1]
    """
    generator = random.Random(seed)
    tables = {}
    for split in SPLITS:
        if split not in sizes:
            continue
        split_kind = kind if isinstance(kind, str) else kind[split]
        split_rate = rate[split] if isinstance(rate, Mapping) else rate
        _check({"kind": split_kind, "rate": split_rate, "both_ratio": both_ratio})
        if kept is not None and split in kept and split_rate > 0:
            tables[split] = np.asarray(kept[split], dtype=np.int8)
        else:
            tables[split] = official_table(sizes[split], split_kind, split_rate, both_ratio, generator)
    return tables


def official_file_name(dataset: str, split: str, kind: str, rate: float) -> str:
    """The name under which the official code saves a table, e.g. `mmimdb_dev_missing_both_07.pt`.

    Raises `ValueError` for a data set that the official code does not have.
    """
    if dataset not in _FILE_SPLITS:
        raise ValueError(f"dataset={dataset!r} has no official tables; those with are {', '.join(_FILE_SPLITS)}.")
    name = _FILE_SPLITS[dataset][SPLITS.index(split)]
    return f"{name}_missing_{kind}_{str(rate).replace('.', '')}.pt"


@dataclass(frozen=True)
class OfficialMissing:
    """The official table of one split, usable wherever a `MissingModality` is.

    Args:
        split: which split it is for, a name of `SPLITS`.
        sizes: rows of the splits that the official run has, as they draw one after the other.
        rate, kind: per split, under the names in `sizes`.
        both_ratio: for the kind "both": share of the incomplete rows that lack the image.
        seed: of the official run.

    Raises:
        ValueError: a setting out of range, or a split without a size.

    Example:
        >>> missing = OfficialMissing("train", {"train": 4}, {"train": 0.5}, {"train": "text"})
        >>> missing.table(["a", "b", "c", "d"]).tolist()
        [0, 1, 0, 1]
    """

    split: str
    sizes: Mapping[str, int]
    rate: Mapping[str, float]
    kind: Mapping[str, str]
    both_ratio: float = 0.5
    seed: int = 0

    per_epoch = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.sizes if name not in SPLITS]
        if unknown or self.split not in self.sizes:
            raise ValueError(
                f"split={self.split!r} and sizes={dict(self.sizes)} do not fit: sizes names splits of "
                f"{', '.join(SPLITS)}, and the wanted one among them."
            )
        for name in self.sizes:
            for setting in ("rate", "kind"):
                if name not in getattr(self, setting):
                    raise ValueError(f"`{setting}` has no entry for the split {name!r}.")
            _check({"rate": self.rate[name], "kind": self.kind[name], "both_ratio": self.both_ratio})

    def table(self, ids: Sequence[str], epoch: int = 0) -> np.ndarray:
        """The code of each row, int8 of shape (N,).

        Args:
            ids: the ids of the split in the official order of rows.
            epoch: has no influence.

        Raises:
            ValueError: the split has another number of rows than `sizes` says.
        """
        if len(ids) != self.sizes[self.split]:
            raise ValueError(
                f"The official table of {self.split!r} is for {self.sizes[self.split]} rows, but there are {len(ids)}; it "
                "needs the whole split in its original order (no max_*_samples). MissingModality takes any rows."
            )
        return official_tables(self.sizes, self.kind, self.rate, self.both_ratio, self.seed)[self.split]

    def apply(self, row: dict[str, Any], missing_type: int, **columns: str) -> dict[str, Any]:
        """See [`apply_missing`]."""
        return apply_missing(row, missing_type, **columns)

    def fingerprint(self, ids: Sequence[str]) -> str:
        """sha256 over every setting and the ids in their order."""
        digest = hashlib.sha256(json.dumps(_plain(self), sort_keys=True).encode())
        for sample_id in ids:
            digest.update(f"\x1f{sample_id}".encode())
        return digest.hexdigest()

    def save(self, path: str | os.PathLike[str], ids: Sequence[str]) -> None:
        """Writes table, settings and fingerprint as JSON."""
        content = {
            "settings": _plain(self),
            "fingerprint": self.fingerprint(ids),
            "codes": dict(zip(ids, self.table(ids).tolist())),
        }
        path = Path(path)
        scratch = path.with_name(path.name + ".tmp")
        scratch.write_text(json.dumps(content, indent=0) + "\n", encoding="utf-8")
        scratch.replace(path)

    def load(self, path: str | os.PathLike[str], ids: Sequence[str]) -> np.ndarray:
        """The codes that `save` wrote for these settings and ids, int8 of shape (N,).

        Raises:
            ValueError: the file was made for other settings or ids, or its codes were changed.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            stored, settings = content["fingerprint"], content["settings"]
            codes = np.array([content["codes"][sample_id] for sample_id in ids], dtype=np.int8)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no table of these ids: {error!r}; delete it and save it anew.") from error
        if stored != self.fingerprint(ids) or not np.array_equal(codes, self.table(ids)):
            wanted = _plain(self)
            differing = [name for name in wanted if settings.get(name) != wanted[name]]
            what = "; ".join(f"{name} is {settings.get(name)!r}, wanted {wanted[name]!r}" for name in differing)
            raise ValueError(
                f"{path} is stale: {what or 'its ids or codes are not those of this data set'}. Delete it and save it "
                "anew."
            )
        return codes


def _plain(missing: OfficialMissing) -> dict[str, Any]:
    settings = asdict(missing)
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in settings.items()}


def _check(settings: Mapping[str, Any]) -> None:
    for name in ("rate", "both_ratio"):
        if not 0.0 <= settings[name] <= 1.0:
            raise ValueError(f"`{name}` is {settings[name]}; give a share from 0 to 1.")
    if settings["kind"] not in MISSING_KINDS:
        raise ValueError(f"`kind` is {settings['kind']!r}; allowed: {', '.join(MISSING_KINDS)}.")


class OfficialItems:
    """Rows with several texts as the official data set shows them: one item per text, also in testing.

    So a movie of MM-IMDb with k plots counts k times. The table is per row. With `simulate_missing`, the official
    setting for training on complete data, every access to a complete row draws again what is absent; the result then
    depends on the order of the accesses, so use it to compare with the official code, and `MissingModality(
    per_epoch=True)` to train.

    Args:
        rows: mappings with an image column and a column with a list of texts.
        table: (rows,) codes, see `official_table`.
        image_column, texts_column: their names.
        simulate_missing: see above; needs `generator`.
        generator: the generator that drew the table.

    *Returns* from `items[i]`: the row with `text` (str or `None`) and the image (or `None`), `row` and `plot` (which row
    and which of its texts), and `missing_type`.

    Example:
        >>> items = OfficialItems([{"image": "a.jpg", "plots": ["one", "two"]}], [1])
        >>> len(items), items[1]["text"], items[1]["missing_type"]
        (2, None, 1)
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        table: Sequence[int],
        *,
        image_column: str = "image",
        texts_column: str = "plots",
        simulate_missing: bool = False,
        generator: random.Random | None = None,
    ):
        if len(rows) != len(table):
            raise ValueError(f"The table has {len(table)} codes for {len(rows)} rows.")
        if simulate_missing and generator is None:
            raise ValueError("simulate_missing=True draws from a generator; give the one that drew the table.")
        self._rows, self._table, self._generator = rows, [int(code) for code in table], generator
        self._image_column, self._texts_column = image_column, texts_column
        self._simulate = simulate_missing
        self.index = [(row, plot) for row, each in enumerate(rows) for plot in range(len(each[texts_column]))]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row, plot = self.index[index]
        kind = self._table[row]
        if self._simulate and self._generator is not None and kind == MissingType.COMPLETE:
            kind = self._generator.choice([0, 1, 2])
        item = dict(self._rows[row])
        item |= {"text": item[self._texts_column][plot], "row": row, "plot": plot}
        return {**apply_missing(item, kind, image_column=self._image_column), "missing_type": kind}
