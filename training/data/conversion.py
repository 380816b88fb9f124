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
"""The contract between the data engine and the converters, and the probing of raw trees.

A converter knows one data set: which layouts its raw tree may have ([`Converter.LAYOUTS`]), which records a split has and
in which order ([`Converter.entries`]), and how one record becomes a row ([`Converter.build`]). The engine (`prepare.py`)
does the rest. `entries` is cheap and deterministic, so that a broken-off build can find its place again; `build` does the
work that may fail, and may run in several threads.
"""

import dataclasses
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from .images import ImageFinder, UnsafeImageError, resolve_inside, store_image
from .registry import DatasetSpec
from .text_cleaning import clean_text


class PrepareError(ValueError):
    """A raw tree cannot be prepared. `exit_code` is what a command should exit with."""

    exit_code = 2


class LayoutError(PrepareError):
    """The raw tree is missing, incomplete, or of another data set; the message says what was looked for."""


class OutputFolderError(PrepareError):
    """The output folder holds something else, or another process is writing to it."""


class SkipRecord(Exception):
    """Raised by [`Converter.build`]: the record is left out, and counted under `reason`."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class Entry(NamedTuple):
    """One record before any work is done on it.

    Args:
        id: its id in the prepared set.
        data: whatever [`Converter.build`] needs, of JSON types.
        skip: the reason to leave it out, where that is known already; `build` is not called then.
    """

    id: str
    data: Any
    skip: str = ""


class Layout(NamedTuple):
    """One form of a raw tree.

    Args:
        name: the variant's name, as in reports and for `variant=`.
        required: paths that must exist; alternatives are separated by `|`.
        edition: the key into the table of expected counts, if it does not depend on more than the layout.
    """

    name: str
    required: tuple[str, ...]
    edition: str = ""


class Option(NamedTuple):
    """An option that only some data sets have."""

    default: Any
    allowed: tuple[Any, ...] = ()
    help: str = ""


@dataclasses.dataclass(frozen=True)
class ConversionOptions:
    """What all converters obey; see [`prepare.prepare_dataset`] for the meaning."""

    max_side: int = 512
    text_clean: str = "standard"
    keep_raw_text: bool = False
    allow_truncated: bool = False
    max_pixels: int = 89_000_000
    max_bytes: int = 64 << 20
    quality: int = 95


class RowBuilder:
    """Cleans the texts and checks the pictures of one row, and remembers what it repaired."""

    def __init__(self, finder: ImageFinder, options: ConversionOptions):
        self.repairs: list[str] = []
        self.warnings: list[str] = []
        self.digests: list[bytes] = []
        self.raw_text: str | None = None
        self._finder = finder
        self._options = options

    def text(self, raw: object, *, main: bool = False, clean=clean_text) -> str:
        """`raw` cleaned; numbers become strings, None an empty one. `main` marks the text that a model reads."""
        raw = "" if raw is None else raw if isinstance(raw, str) else str(raw)
        cleaned = clean(raw, self._options.text_clean)
        self.repairs += cleaned.repairs
        if main:
            self.raw_text = clean_text(raw, "none").text
        return cleaned.text

    def image(self, relative: str) -> dict[str, Any]:
        """The stored form of the picture at `relative` below the raw tree; skips the record if it is not usable."""
        try:
            path = self._finder.find(relative)
            stored = store_image(
                path,
                max_side=self._options.max_side,
                quality=self._options.quality,
                max_pixels=self._options.max_pixels,
                max_bytes=self._options.max_bytes,
                allow_truncated=self._options.allow_truncated,
            )
        except UnsafeImageError as error:
            raise SkipRecord(error.reason) from error
        self.repairs += stored.repairs
        self.digests.append(stored.digest)
        return {"bytes": stored.data, "path": path.stem + stored.extension}


class Converter(ABC):
    """Base of the converters; see the module's text for who does what.

    Args:
        spec: the data set, with the label names to use.
        raw_dir: the raw tree.
        options: common options.
        variant: the name of a layout, to force it.
        extra: values for the names in [`Converter.OPTIONS`].
    """

    LAYOUTS: ClassVar[tuple[Layout, ...]] = ()
    OPTIONS: ClassVar[dict[str, Option]] = {}
    IDS_ARE_UNIQUE: ClassVar[bool] = True  # across splits; where they are not, it is by the owners' design

    def __init__(
        self,
        spec: DatasetSpec,
        raw_dir: str | os.PathLike,
        options: ConversionOptions,
        variant: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ):
        self.spec = spec
        self.options = options
        self.extra = check_options(spec.name, self.OPTIONS, extra or {})
        self.warnings: list[str] = []
        self.layout, self.base, notes = recognise_layout(spec, raw_dir, self.LAYOUTS, variant)
        self.warnings += notes
        self.finder = ImageFinder(self.base)
        self.label_ids = {name: index for index, name in enumerate(spec.label_names)}
        self.scan()

    @property
    def edition(self) -> str:
        """The key into the table of expected counts."""
        return self.layout.edition

    def scan(self) -> None:
        """Looks further into the recognised tree; raises [`LayoutError`] for what is missing."""
        return

    @abstractmethod
    def splits(self) -> Sequence[str]:
        """The splits of this tree, in a fixed order."""

    @abstractmethod
    def entries(self, split: str) -> Iterator[Entry]:
        """The records of a split in the official order, else by id; always the same."""

    @abstractmethod
    def build(self, entry: Entry, split: str, row: RowBuilder) -> dict[str, Any]:
        """The row of an entry in storage form (labels as ids); raises [`SkipRecord`]."""

    def split_aliases(self) -> dict[str, str]:
        """Loaded split name -> stored split name, where they differ."""
        return {}

    def file(self, relative: str) -> Path:
        """The real path of an annotation file; [`LayoutError`] if it is absent or leaves the tree."""
        try:
            path = resolve_inside(self.base, relative)
        except UnsafeImageError as error:
            raise LayoutError(str(error)) from error
        if not path.is_file():
            raise LayoutError(f"{self.spec.name}: the file {relative} is missing.\n\n{self.spec.where}")
        return path

    def has(self, relative: str) -> bool:
        """Whether a file or folder exists inside the tree."""
        return _exists(self.base, relative)

    def warn(self, text: str) -> None:
        """Adds a sentence to the report, once."""
        if text not in self.warnings:
            self.warnings.append(text)


def check_options(name: str, known: Mapping[str, Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults of `known` updated by `given`.

    Raises:
        ValueError: an option that this data set does not have, or a value that is not allowed.
    """
    for key, value in given.items():
        if key not in known:
            raise ValueError(
                f"{name} has no option {key!r}. Its own options: {', '.join(known) or 'none'}; for the others see prepare_dataset."
            )
        if known[key].allowed and value not in known[key].allowed:
            raise ValueError(
                f"{name}: {key}={value!r} is not allowed; choose one of {', '.join(map(repr, known[key].allowed))}."
            )
    return {key: given.get(key, option.default) for key, option in known.items()}


def recognise_layout(
    spec: DatasetSpec, raw_dir: str | os.PathLike, layouts: Sequence[Layout], variant: str | None
) -> tuple[Layout, Path, list[str]]:
    """The layout of a raw tree, the folder it begins in (the tree or one folder below), and notes for the report.

    Raises:
        LayoutError: no such folder, an unknown `variant`, or no layout is complete; the message has the nearest one.
    """
    root = Path(raw_dir)
    if not root.is_dir():
        raise LayoutError(f"{spec.name}: there is no folder {os.fspath(raw_dir)!r}.\n\n{spec.where}")
    if variant is not None:
        names = [layout.name for layout in layouts]
        if variant not in names:
            raise LayoutError(f"{spec.name} has no variant {variant!r}; known: {', '.join(names)}.")
        layouts = [layouts[names.index(variant)]]
    root = Path(os.path.realpath(root))
    below = sorted(entry.name for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False))
    bases = [root, *(root / name for name in below if not name.startswith("."))]
    candidates = [
        (base, layout, [path for path in layout.required if not any(_exists(base, p) for p in path.split("|"))])
        for base in bases
        for layout in layouts
    ]
    complete = [(base, layout) for base, layout, missing in candidates if not missing]
    if complete:
        first_base = complete[0][0]
        fitting = sorted(
            (layout for base, layout in complete if base == first_base), key=lambda layout: -len(layout.required)
        )
        notes = []
        if len(fitting) > 1:
            others = ", ".join(layout.name for layout in fitting[1:])
            notes.append(f"The tree also looks like {others}; read as {fitting[0].name}, which asks for more.")
        return fitting[0], first_base, notes
    _, layout, missing = min(
        candidates, key=lambda c: (len(c[2]) == len(c[1].required), len(c[2]) / len(c[1].required), bases.index(c[0]))
    )
    if len(missing) == len(layout.required):
        found = f"{spec.name}: nothing of its raw distribution was found in {os.fspath(raw_dir)!r}."
    else:
        found = (
            f"{spec.name}: {os.fspath(raw_dir)!r} looks like the layout {layout.name!r}, but these are missing: "
            f"{', '.join(path.replace('|', ' or ') for path in missing)}."
        )
    raise LayoutError(f"{found}\n\n{spec.where}")


def _exists(base: Path, relative: str) -> bool:
    try:
        return resolve_inside(base, relative).exists()
    except (UnsafeImageError, OSError):
        return False
