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
"""The user's own pictures and texts: CSV, TSV, JSON lines, Parquet, or a folder of pictures with class folders.

    load_tabular("recipes.csv", {"image": "photo", "text": "title", "label": "dish"})
    load_tabular("folder/")     train.csv, validation.csv, test.csv in it; or <split>/<class>/*.jpg; or <class>/*.jpg

Columns become `id`, `image`, `text`, `label`. Paths of pictures are relative to the file's folder and stay in it. An absent
picture or text is an empty cell (CSV, TSV) or null (JSON lines, Parquet); one of the two must be there.
"""

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .images import IMAGE_EXTENSIONS, ImageFinder, UnsafeImageError, open_image_safely
from .raw_files import RawFileError, iter_csv, iter_json_lines
from .registry import MULTI_LABEL, REGRESSION, SINGLE_LABEL, DatasetSpec
from .text_cleaning import clean_text


if TYPE_CHECKING:
    from datasets import DatasetDict

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval"),
}
MAX_SHOWN_PROBLEMS = 5

_ROLES = ("image", "text", "label", "id")


class TableError(ValueError):
    """A table cannot be used as it is; the message names the file, the row, and what to change."""


def is_tabular_source(path: str) -> bool:
    """Whether a path is a table, or a folder with tables or pictures for [`load_tabular`]."""
    source = Path(path)
    if source.suffix.lower() in TABLE_SUFFIXES:
        return source.is_file()
    return source.is_dir() and bool(_split_tables(source) or _class_folders(source))


def load_tabular(
    path: str | os.PathLike,
    columns: Mapping[str, str] | None = None,
    *,
    label_names: Sequence[str] | None = None,
    label_separator: str | None = None,
    problem_type: str | None = None,
    skip_bad_rows: bool = False,
    decode_all: bool = False,
) -> "DatasetDict":
    """Loads the user's own data.

    Args:
        path: a table (it becomes the split `train`), or a folder with one table per split or with class folders.
        columns: role -> column, for the roles `image`, `text`, `label`, `id`. Default: the roles' own names.
        label_names: the labels in the order of their ids (default: the names found, sorted; whole numbers keep their value).
        label_separator: splits a cell into several labels (multi-label), e.g. `"|"`. Lists need none.
        problem_type: as in `PretrainedConfig`; default by the labels. `"regression"` makes them floats.
        skip_bad_rows: leave out rows with problems where an error would be raised; at least one row must remain.
        decode_all: decode every picture now (slow, certain) where otherwise only its presence is checked.

    Raises:
        TableError: unknown columns, bad labels, pictures that are missing or outside the folder, URLs, rows with neither
            picture nor text. The message has the first five problems, with file and row.
    """
    source = Path(path)
    if problem_type not in (None, SINGLE_LABEL, MULTI_LABEL, REGRESSION):
        raise TableError(
            f"problem_type={problem_type!r} is unknown; allowed: {SINGLE_LABEL}, {MULTI_LABEL}, {REGRESSION}."
        )
    if not source.exists():
        raise TableError(f"There is no file or folder {os.fspath(path)!r}.")
    reader = _Reader(columns, label_separator, decode_all)
    if source.is_file():
        tables = {"train": reader.table(source)}
    elif split_tables := _split_tables(source):
        tables = {split: reader.table(file) for split, file in split_tables.items()}
    else:
        tables = {split: reader.class_folders(folder, split) for split, folder in _class_folders(source).items()}
        if not tables:
            raise TableError(
                f"{os.fspath(path)!r} has neither tables (train.csv, test.jsonl, ...) nor folders of pictures (train/<class>/*.jpg)."
            )
    labels = _Labels(label_names, problem_type, [row["label"] for rows in tables.values() for row in rows])
    for rows in tables.values():
        for row in rows:
            labels.encode_row(row)
    problems = [row for rows in tables.values() for row in rows if row["problem"]]
    kept = {split: [row for row in rows if not row["problem"]] for split, rows in tables.items()}
    if (problems and not skip_bad_rows) or not any(kept.values()):
        shown = "".join(f"\n  {row['place']}: {row['problem']}" for row in problems[:MAX_SHOWN_PROBLEMS])
        more = f"\n  and {len(problems) - MAX_SHOWN_PROBLEMS:,} more" if len(problems) > MAX_SHOWN_PROBLEMS else ""
        total = sum(map(len, tables.values()))
        hint = "" if skip_bad_rows or not problems else "\nCorrect them, or leave them out with skip_bad_rows=True."
        raise TableError(
            f"{os.fspath(path)!r}: {len(problems):,} of {total:,} rows cannot be used.{shown}{more}{hint}"
        )
    return _as_datasets(kept, labels)


def tabular_spec(name: str, data: "DatasetDict", problem_type: str | None = None) -> DatasetSpec:
    """The spec of data in the columns `image`, `text`, `label`, so that collators and metrics treat it like a named set."""
    features = next(iter(data.values())).features
    label = features["label"]
    inner = getattr(label, "feature", label)
    names = tuple(getattr(inner, "names", None) or ())
    kind = problem_type or (MULTI_LABEL if inner is not label else SINGLE_LABEL if names else REGRESSION)
    metrics = {
        MULTI_LABEL: ("f1_macro", "f1_micro", "f1_weighted", "f1_samples"),
        SINGLE_LABEL: ("accuracy", "f1_macro"),
        REGRESSION: (),
    }[kind]
    return DatasetSpec(
        name=name,
        title=name,
        image_column="image",
        text_column="text",
        label_column="label",
        problem_type=kind,
        metrics=metrics,
        main_metric=metrics[0] if metrics else "loss",
        licence="the user's own data",
        redistributable=False,
        where="",
        build_features=_Constant(features),
        label_names=names,
    )


class _Constant:
    """A function without arguments that always returns the same value, and can be pickled."""

    def __init__(self, value: Any):
        self.value = value

    def __call__(self) -> Any:
        return self.value


class _Reader:
    """Turns tables and folders into rows `{"id", "image", "text", "label", "place", "problem"}`."""

    def __init__(self, columns: Mapping[str, str] | None, label_separator: str | None, decode_all: bool):
        self.columns = None if columns is None else dict(columns)
        self.label_separator = label_separator
        self.decode_all = decode_all
        for role in self.columns or ():
            if role not in _ROLES:
                raise TableError(f"columns= names the role {role!r}; the roles are {', '.join(_ROLES)}.")

    def table(self, path: Path) -> list[dict[str, Any]]:
        finder = ImageFinder(path.parent)
        rows, ids = [], set()
        mapping: dict[str, str] | None = None
        for place, record in _records(path):
            if record is None:
                rows.append({"id": "", "image": None, "text": None, "label": None, "place": place})
                rows[-1]["problem"] = "the line cannot be read as a record"
                continue
            mapping = mapping or self._mapping(path, list(record))
            row = {role: record.get(column) for role, column in mapping.items()}
            rows.append(self._row(row, place, f"{path.stem}-{len(rows)}", finder, "id" in mapping))
            if not rows[-1]["problem"] and rows[-1]["id"] in ids:
                rows[-1]["problem"] = f"the id {rows[-1]['id']!r} occurs a second time"
            ids.add(rows[-1]["id"])
        return rows

    def class_folders(self, folder: Path, split: str) -> list[dict[str, Any]]:
        finder = ImageFinder(folder)
        rows = []
        for class_name in _folders(folder):
            for file in _pictures(folder / class_name):
                place = f"{class_name}/{file}"
                row = {"image": place, "text": None, "label": class_name}
                rows.append(self._row(row, place, f"{split}-{class_name}-{Path(file).stem}", finder, False))
        return rows

    def _mapping(self, path: Path, present: list[str]) -> dict[str, str]:
        if self.columns is None:
            mapping = {role: role for role in _ROLES if role in present}
        else:
            mapping = {**({"id": "id"} if "id" in present else {}), **self.columns}
        for role, column in mapping.items():
            if column not in present:
                close = difflib.get_close_matches(column, present, n=1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise TableError(
                    f"{path.name} has no column {column!r} (for {role}).{hint} It has: {', '.join(present)}."
                )
        if "label" not in mapping or not ({"image", "text"} & set(mapping)):
            raise TableError(
                f"{path.name} needs a label and an image or a text. Its columns are {', '.join(present)}; "
                'say which is which: columns={"image": ..., "text": ..., "label": ...}.'
            )
        return mapping

    def _row(
        self, row: dict[str, Any], place: str, default_id: str, finder: ImageFinder, has_id: bool
    ) -> dict[str, Any]:
        built: dict[str, Any] = {
            "id": default_id,
            "image": None,
            "text": None,
            "label": None,
            "place": place,
            "problem": "",
        }
        if has_id and row.get("id") not in (None, ""):
            built["id"] = clean_text(str(row["id"]), "none").text
        text, image = row.get("text"), row.get("image")
        if text is not None:
            built["text"] = clean_text(str(text), "none").text
        try:
            built["image"] = None if image is None else self._image(image, finder)
        except UnsafeImageError as error:
            built["problem"] = str(error)
        if not built["problem"] and built["image"] is None and built["text"] is None:
            built["problem"] = "neither a picture nor a text"
        label = row.get("label")
        if isinstance(label, str) and self.label_separator:
            label = [part.strip() for part in label.split(self.label_separator) if part.strip()]
        built["label"] = label
        return built

    def _image(self, value: Any, finder: ImageFinder) -> dict[str, Any]:
        if isinstance(value, Mapping):  # a Parquet file with embedded pictures
            if value.get("bytes") is not None:
                open_image_safely(value["bytes"])
                return {"bytes": value["bytes"], "path": None}
            value = value.get("path")
        if isinstance(value, bytes):
            open_image_safely(value)
            return {"bytes": value, "path": None}
        if not isinstance(value, str):
            raise UnsafeImageError(f"{value!r} is not the path of a picture.", "unsafe_path")
        path = finder.find(value)
        if self.decode_all:
            open_image_safely(path)
        return {"bytes": None, "path": str(path)}


class _Labels:
    """How labels become ids: by name, by number, several of them, or floats."""

    def __init__(self, names: Sequence[str] | None, problem_type: str | None, values: list[Any]):
        self.is_multi = problem_type == MULTI_LABEL or (
            problem_type is None and any(isinstance(v, list) for v in values)
        )
        self.is_float = problem_type == REGRESSION
        self.names: list[str] = [] if names is None else [str(name) for name in names]
        if len(set(self.names)) != len(self.names):
            raise TableError("label_names holds a name twice.")
        if names is None and not self.is_float:
            self._find_names([item for value in values for item in (value if isinstance(value, list) else [value])])
        self.ids = {name: index for index, name in enumerate(self.names)}

    def _find_names(self, items: list[Any]) -> None:
        items = [item for item in items if item is not None and item != ""]
        whole = [_whole_number(item) for item in items]
        if items and all(number is not None and 0 <= number < 100_000 for number in whole):
            self.names = [str(number) for number in range(max(number or 0 for number in whole) + 1)]
        else:
            self.names = sorted({str(item).strip() for item in items})

    def encode_row(self, row: dict[str, Any]) -> None:
        """Replaces the label of a row by its id or ids, or says in `problem` why not."""
        try:
            row["label"] = self._encode(row["label"])
        except TableError as error:
            row["problem"] = row["problem"] or str(error)

    def _encode(self, value: Any) -> Any:
        if self.is_float:
            try:
                number = float(value)
            except (TypeError, ValueError):
                raise TableError(f"the label {value!r} is not a number") from None
            if number != number or number in (float("inf"), float("-inf")):
                raise TableError(f"the label {value!r} is not finite")
            return number
        if not self.is_multi:
            if isinstance(value, list):
                raise TableError("several labels where one is expected")
            return self._id(value)
        if value is None or value == "":
            return []
        return sorted({self._id(item) for item in (value if isinstance(value, list) else [value])})

    def _id(self, value: Any) -> int:
        if value is None or value == "":
            raise TableError("the label is empty")
        name = str(value).strip()
        if name in self.ids:
            return self.ids[name]
        number = _whole_number(value)
        if number is not None and 0 <= number < len(self.names):
            return number
        close = difflib.get_close_matches(name, self.names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(self.names[:10])}"
        raise TableError(f"the label {name[:60]!r} is unknown{hint}")

    def feature(self) -> Any:
        from datasets import ClassLabel, List, Value

        if self.is_float:
            return Value("float32")
        label = ClassLabel(names=self.names)
        return List(label) if self.is_multi else label


def _whole_number(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    text = str(value).strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 6 else None


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """(place for messages, record) of a table; empty cells of CSV and TSV are None."""
    suffix = path.suffix.lower()
    try:
        if suffix in (".csv", ".tsv"):
            header: list[str] | None = None
            for line, cells in iter_csv(path, "\t" if suffix == ".tsv" else ","):
                if header is None:
                    header = [cell.strip() for cell in cells]
                    continue
                fits = len(cells) == len(header)
                yield f"{path.name}, line {line}", dict(zip(header, (c or None for c in cells))) if fits else None
        elif suffix == ".jsonl":
            for entry in iter_json_lines(path):
                yield f"{path.name}, line {entry.number}", entry.value
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            number = 0
            try:
                for batch in pq.ParquetFile(path).iter_batches(batch_size=64):
                    for record in batch.to_pylist():
                        yield f"{path.name}, row {number}", record
                        number += 1
            except pa.ArrowException as error:
                raise RawFileError(f"{path.name} is not a readable Parquet file: {error}") from error
    except RawFileError as error:
        raise TableError(str(error)) from error


def _split_tables(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for split, names in SPLIT_NAMES.items():
        files = [folder / (n + s) for n in names for s in TABLE_SUFFIXES if (folder / (n + s)).is_file()]
        if len(files) > 1:
            raise TableError(f"Both {files[0].name} and {files[1].name} could be the split {split!r}; remove one.")
        if files:
            found[split] = files[0]
    return found


def _class_folders(folder: Path) -> dict[str, Path]:
    splits = {
        split: folder / name
        for split, names in SPLIT_NAMES.items()
        for name in names
        if (folder / name).is_dir() and any(_pictures(folder / name / c) for c in _folders(folder / name))
    }
    if splits:
        return splits
    return {"train": folder} if any(_pictures(folder / name) for name in _folders(folder)) else {}


def _folders(folder: Path) -> list[str]:
    names = (entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
    return sorted(name for name in names if not name.startswith("."))


def _pictures(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if Path(entry.name).suffix.lower() in IMAGE_EXTENSIONS)


def _as_datasets(tables: dict[str, list[dict[str, Any]]], labels: _Labels) -> "DatasetDict":
    from datasets import Dataset, DatasetDict, Features, Image, Value

    features = Features({"id": Value("string"), "image": Image(), "text": Value("string"), "label": labels.feature()})
    return DatasetDict(
        {
            split: Dataset.from_list([{column: row[column] for column in features} for row in rows], features=features)
            for split, rows in tables.items()
        }
    )
