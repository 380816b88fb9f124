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
"""Which samples lack a modality, in training and evaluation: one definition for all data sets.

With rate eta and N samples, exactly floor(eta * N) are incomplete, as in the published code of missing-modality work;
there the choice was made once, unseeded, and saved as a file. Here the ids are ordered by a keyed hash of
(seed, epoch, id), and the first floor(eta * N) are incomplete. So the choice depends on nothing else: not on the order
of the rows, the number of workers, or where a run was interrupted; and what is missing at a low rate is missing at every
higher rate. The published files can be used instead (`MissingTable.from_official`).

A dropped modality is None in the row. The codes are those of `MissingType`: 0 complete, 1 text absent, 2 image absent.
"""

import functools
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ...modeling.missing_modality import MissingType


__all__ = ["MISSING_KINDS", "MissingModality", "MissingTable", "apply_missing"]

MISSING_KINDS = ("image", "text", "both")


@dataclass(frozen=True)
class MissingModality:
    """Drops a modality for a share of the samples.

    Args:
        rate: share of incomplete samples, 0 to 1.
        kind: what they lack: "image", "text", or "both" (some lack the image, the others the text; never both at once).
        both_ratio: for "both": the share of the incomplete samples that lack the image.
        seed: another seed, another choice.
        per_epoch: choose anew in each epoch; otherwise the choice is the same in all epochs.

    Raises:
        ValueError: a value out of range; the message names it and what is allowed.

    Example:
        >>> missing = MissingModality(rate=0.5, kind="image")
        >>> missing.table(["a", "b", "c", "d"]).tolist()
        [0, 2, 2, 0]
    """

    rate: float
    kind: str
    both_ratio: float = 0.5
    seed: int = 0
    per_epoch: bool = False

    def __post_init__(self) -> None:
        for name in ("rate", "both_ratio"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"`{name}` is {getattr(self, name)}; give a share from 0 to 1.")
        if self.kind not in MISSING_KINDS:
            raise ValueError(f"`kind` is {self.kind!r}; allowed: {', '.join(MISSING_KINDS)}.")

    def table(self, ids: Sequence[str], epoch: int = 0) -> np.ndarray:
        """The code of each id, int8 of shape (N,), aligned with `ids`.

        Args:
            ids: all ids of the split, unique strings, in any order.
            epoch: counts only with `per_epoch`.

        Raises:
            TypeError: an id is no string.
            ValueError: an id occurs twice.
        """
        _check_ids(ids)
        ranks = sorted(range(len(ids)), key=lambda i: (self._hash(ids[i], epoch, b"whether"), ids[i]))
        incomplete = ranks[: _share_of(self.rate, len(ids))]
        codes = np.zeros(len(ids), dtype=np.int8)
        if self.kind == "both":
            # An order of its own, so that lacking the image is independent of being among the first.
            incomplete = sorted(incomplete, key=lambda i: (self._hash(ids[i], epoch, b"which"), ids[i]))
        images = {"image": len(incomplete), "text": 0, "both": _share_of(self.both_ratio, len(incomplete))}[self.kind]
        codes[incomplete[:images]] = MissingType.IMAGE
        codes[incomplete[images:]] = MissingType.TEXT
        return codes

    def missing_type_of(self, sample_id: str, epoch: int = 0) -> MissingType:
        """The code of one sample of a stream whose length is not known: incomplete if hash / 2^64 < rate.

        The number of incomplete samples is then right only on average, and differs from `table`'s.
        """
        _check_ids([sample_id])
        if self._hash(sample_id, epoch, b"whether") >= Fraction(str(self.rate)) * 2**64:
            return MissingType.COMPLETE
        image_share = {"image": 1.0, "text": 0.0, "both": self.both_ratio}[self.kind]
        lacks_image = self._hash(sample_id, epoch, b"which") < Fraction(str(image_share)) * 2**64
        return MissingType.IMAGE if lacks_image else MissingType.TEXT

    def apply(self, row: dict[str, Any], missing_type: int, **columns: str) -> dict[str, Any]:
        """See [`apply_missing`]."""
        return apply_missing(row, missing_type, **columns)

    def _hash(self, sample_id: str, epoch: int, question: bytes) -> int:
        return _keyed_hash(self.seed, epoch if self.per_epoch else 0, question)(sample_id)


class MissingTable:
    """A fixed table {id: code}, made elsewhere: usable wherever a `MissingModality` is.

    Args:
        codes: id -> 0 complete, 1 text absent, 2 image absent.

    Example:
        >>> MissingTable({"a": 0, "b": 2}).table(["b", "a"]).tolist()
        [2, 0]
    """

    per_epoch = False

    def __init__(self, codes: Mapping[str, int]):
        wrong = {key: value for key, value in codes.items() if value not in (0, 1, 2)}
        if wrong:
            key, value = next(iter(wrong.items()))
            raise ValueError(
                f"{len(wrong)} codes are not allowed, e.g. {value!r} for the id {key!r}; "
                "allowed: 0 (complete), 1 (text absent), 2 (image absent)."
            )
        self.codes = {key: int(value) for key, value in codes.items()}

    def table(self, ids: Sequence[str], epoch: int = 0) -> np.ndarray:
        """The code of each id, int8 of shape (N,). Raises `KeyError` for ids the table doesn't have."""
        _check_ids(ids)
        unknown = [sample_id for sample_id in ids if sample_id not in self.codes]
        if unknown:
            raise KeyError(
                f"The missing-modality table ({len(self.codes)} ids) lacks {len(unknown)} of {len(ids)} ids, e.g. "
                f"{unknown[0]!r}; it was made for another data set or split."
            )
        return np.array([self.codes[sample_id] for sample_id in ids], dtype=np.int8)

    def apply(self, row: dict[str, Any], missing_type: int, **columns: str) -> dict[str, Any]:
        """See [`apply_missing`]."""
        return apply_missing(row, missing_type, **columns)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the table as JSON, ids sorted."""
        path = Path(path)
        scratch = path.with_name(path.name + ".tmp")
        scratch.write_text(json.dumps(self.codes, indent=0, sort_keys=True) + "\n", encoding="utf-8")
        scratch.replace(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "MissingTable":
        """Reads what `save` wrote. Raises `ValueError` for anything else."""
        try:
            codes = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not valid JSON: {error}") from error
        if not isinstance(codes, dict):
            raise ValueError(f"{path} holds a JSON {type(codes).__name__}; expected an object {{id: code}}.")
        return cls(codes)

    @classmethod
    def from_official(cls, path: str | os.PathLike[str], ids: Sequence[str]) -> "MissingTable":
        """Reads a published `<split>_missing_<type>_<rate>.pt`: a float vector of the codes in row order.

        Only tensors are read (`weights_only=True`); a file that holds anything else is refused.

        Args:
            path: the file.
            ids: the ids of the split in the order of the published rows.

        Raises:
            ValueError: the file is no vector of the codes, or its length differs from the number of ids.
        """
        import torch

        _check_ids(ids)
        try:
            vector = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise
        except Exception as error:  # what torch raises for a foreign file differs between its versions
            raise ValueError(f"{path} is not a file of tensors and is not read: {type(error).__name__}.") from error
        if not isinstance(vector, torch.Tensor) or vector.dim() != 1:
            shape = tuple(vector.shape) if isinstance(vector, torch.Tensor) else type(vector).__name__
            raise ValueError(f"{path} holds {shape}; expected a vector with one code per row.")
        if len(vector) != len(ids):
            raise ValueError(
                f"{path} has {len(vector)} codes for {len(ids)} ids; it belongs to another split or edition."
            )
        return cls(dict(zip(ids, vector.tolist())))


def apply_missing(
    row: dict[str, Any], missing_type: int, *, image_column: str = "image", text_column: str = "text"
) -> dict[str, Any]:
    """A copy of the row without the modality that `missing_type` names.

    A row that has lost its other modality already stays as it is: a sample without any input is an error everywhere.

    Raises:
        KeyError: the row lacks one of the columns.
        ValueError: `missing_type` is none of 0, 1, 2.
    """
    for column in (image_column, text_column):
        if column not in row:
            raise KeyError(f"The row has no column {column!r}; it has {', '.join(map(repr, row))}. Name the columns.")
    kind = MissingType(missing_type)
    if kind == MissingType.COMPLETE:
        return dict(row)
    dropped, other = (text_column, image_column) if kind == MissingType.TEXT else (image_column, text_column)
    if row[other] is None:
        return dict(row)
    return {**row, dropped: None}


def _share_of(share: float, count: int) -> int:
    """floor(share * count) of the decimal number the user wrote: 29 of 100 for 0.29, where floats give 28."""
    return math.floor(Fraction(str(share)) * count)


@functools.lru_cache(maxsize=64)
def _keyed_hash(seed: int, epoch: int, question: bytes) -> Any:
    start = hashlib.blake2b(digest_size=8, key=f"{seed}/{epoch}".encode(), person=question)

    def digest(sample_id: str) -> int:
        state = start.copy()
        state.update(sample_id.encode())
        return int.from_bytes(state.digest(), "big")

    return digest


def _check_ids(ids: Sequence[str]) -> None:
    for sample_id in ids:
        if not isinstance(sample_id, str):
            raise TypeError(
                f"Ids must be strings, not {type(sample_id).__name__} ({sample_id!r}); convert them with str()."
            )
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(sample_id for sample_id in ids if sample_id in seen or seen.add(sample_id))  # type: ignore[func-returns-value]
        raise ValueError(f"The id {twice!r} occurs more than once; ids must be unique within a split.")
