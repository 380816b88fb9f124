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
"""The output folder of a build: one builder at a time, whole files only, and a journal that lets a killed build go on.

A shard is written to `<name>.tmp`, flushed to the disk and renamed; only then a line with its hash goes to the journal
(`.build.jsonl`). What the journal does not confirm is written again. The statistics of finished shards wait in
`.build-parts/` for the end of the build.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from .conversion import OutputFolderError
from .prepare_report import REPORT_FILE, ShardStatistics


if TYPE_CHECKING:
    from datasets import Features

JOURNAL_FILE = ".build.jsonl"
LOCK_FILE = ".build.lock"
PARTS_FOLDER = ".build-parts"
CARD_FILE = "README.md"

ROWS_PER_GROUP = 100
BYTES_PER_GROUP = 64 << 20


class BuildFolder:
    """An output folder while it is being built; a context manager that holds its lock.

    Args:
        path: the folder; made if absent.
        header: what identifies the build (data set, options, tool version, records). Work of a build with another header
            is thrown away, and [`BuildFolder.restart_reason`] says so.
        resume: whether finished shards of an equal build are kept.

    Raises:
        OutputFolderError: another process holds the lock, or the folder has files that no build made.
    """

    def __init__(self, path: str | os.PathLike, header: dict[str, Any], resume: bool = True):
        self.path = Path(path)
        self.header = header
        self.resume = resume
        self.restart_reason = ""
        self.is_complete = False
        self._finished: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> "BuildFolder":
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.path / LOCK_FILE)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise OutputFolderError(
                f"Another process is building in {str(self.path)!r}. Wait for it, or give another output folder."
            ) from error
        try:
            self._read_journal()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.release()

    def statistics(self, name: str) -> ShardStatistics | None:
        """What a finished and unchanged shard adds to the report; None if it must be written."""
        line = self._finished.get(name)
        part = self._part(name)
        if line is None or sha256_of_file(self.path / name) != line["sha256"] or sha256_of_file(part) != line["part"]:
            return None
        return ShardStatistics.from_json(part.read_text(encoding="utf-8"))

    def finish_shard(self, name: str, statistics: ShardStatistics) -> None:
        """Confirms a shard that [`write_shard`] has put in place."""
        part = self._part(name)
        part.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(part, statistics.to_json())
        line = {
            "file": name,
            "sha256": sha256_of_file(self.path / name),
            "part": sha256_of_file(part),
            "rows": statistics.written,
            "seen": statistics.seen,
        }
        self._append(line)
        self._finished[name] = line

    def finish(self, report: str, card: str) -> None:
        """Writes the report and the card, and marks the build as complete."""
        write_atomically(self.path / REPORT_FILE, report)
        write_atomically(self.path / CARD_FILE, card)
        self._append({"complete": True, "report": hashlib.sha256(report.encode("utf-8")).hexdigest()})
        shutil.rmtree(self.path / PARTS_FOLDER, ignore_errors=True)

    def _part(self, name: str) -> Path:
        return self.path / PARTS_FOLDER / (name + ".json")

    def _read_journal(self) -> None:
        journal = self.path / JOURNAL_FILE
        strangers = sorted({entry.name for entry in os.scandir(self.path)} - {LOCK_FILE})
        if not journal.exists():
            if strangers:
                raise OutputFolderError(
                    f"{str(self.path)!r} holds other files ({', '.join(strangers[:5])}). Give an empty or a new folder."
                )
            self._append(self.header)
            return
        lines, damaged = read_journal(journal)
        if not lines or lines[0] != self.header:
            self._start_over(lines, "the options, the program version or the raw data have changed")
        elif not self.resume:
            self._start_over(lines, "a new start was asked for")
        elif "complete" in lines[-1]:
            shards = lines[1:-1]
            intact = sha256_of_file(self.path / REPORT_FILE) == lines[-1]["report"]
            if intact and all(sha256_of_file(self.path / line["file"]) == line["sha256"] for line in shards):
                self.is_complete = True
            else:
                self._start_over(lines, "a file of the finished build is missing or was changed")
        else:
            self._finished = {line["file"]: line for line in lines[1:] if "file" in line}
            if damaged:  # the process ended within the last line
                write_atomically(journal, "".join(json.dumps(line) + "\n" for line in lines))

    def _start_over(self, lines: list[dict[str, Any]], reason: str) -> None:
        self.restart_reason = reason
        folders = {Path(line["file"]).parts[0] for line in lines if "file" in line}
        folders |= {str(line["config"]) for line in (*lines[:1], self.header) if "config" in line}
        for folder in sorted(folders):
            for pattern in ("*-of-*.parquet", "*.parquet.tmp"):
                for file in sorted((self.path / folder).glob(pattern)):
                    file.unlink()
        for name in (REPORT_FILE, CARD_FILE, JOURNAL_FILE):
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.path / PARTS_FOLDER, ignore_errors=True)
        self._append(self.header)

    def _append(self, line: dict[str, Any]) -> None:
        with (self.path / JOURNAL_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())


def write_shard(path: Path, features: "Features", rows: Iterable[dict[str, Any]]) -> int:
    """Writes rows in storage form as one Parquet file, all or nothing; returns their uncompressed size in bytes.

    At most [`ROWS_PER_GROUP`] rows or about [`BYTES_PER_GROUP`] bytes are held at a time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    schema = features.arrow_schema
    plain = [field.name for field in schema if not pa.types.is_nested(field.type)]
    num_bytes = 0
    with temporary.open("wb") as file:
        with pq.ParquetWriter(
            file, schema, compression="zstd", use_dictionary=plain, write_statistics=plain, write_page_index=True
        ) as writer:
            for group in _groups(rows):
                table = pa.Table.from_pylist(group, schema=schema)
                num_bytes += table.nbytes
                writer.write_table(table)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync_folder(path.parent)
    return num_bytes


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file by one with this content, all or nothing."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync_folder(path.parent)


def read_journal(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """The lines of a journal, and whether it ends in a broken one."""
    lines: list[dict[str, Any]] = []
    for text in path.read_bytes().split(b"\n"):
        if not text:
            continue
        try:
            line = json.loads(text)
        except ValueError:
            return lines, True
        if not isinstance(line, dict):
            return lines, True
        lines.append(line)
    return lines, False


def sha256_of_file(path: Path) -> str:
    """Hex digest; empty if there is no such file."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except FileNotFoundError:
        return ""
    return digest.hexdigest()


def _groups(rows: Iterable[dict[str, Any]]) -> Iterable[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        group.append(row)
        size += _image_bytes(row)
        if len(group) == ROWS_PER_GROUP or size >= BYTES_PER_GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


def _image_bytes(row: dict[str, Any]) -> int:
    values = [item for value in row.values() for item in (value if isinstance(value, list) else (value,))]
    return sum(len(value["bytes"]) for value in values if isinstance(value, dict) and value.get("bytes"))


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
