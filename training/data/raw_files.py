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
"""Reading the annotation files of a raw distribution: JSON, JSON lines and CSV, with limits, and one record at a time.

All readers take damaged UTF-8 as lone surrogates, which [`text_cleaning.clean_text`] then counts and replaces: one bad
byte in a file of a hundred thousand records is a repair, not a reason to stop.
"""

import csv
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple


MAX_JSON_BYTES = 200 << 20
MAX_RECORD_CHARS = 16 << 20
MAX_CSV_FIELD = 1 << 20

_CHUNK = 1 << 20
_BLANKS = " \t\r\n"


class RawFileError(ValueError):
    """An annotation file cannot be read; the message names the file and the place in it."""


class JsonLine(NamedTuple):
    """One line of a JSON-lines file; `error` is set, and `value` None, where the line is not a JSON object."""

    number: int
    value: dict[str, Any] | None
    error: str = ""


def load_json(path: Path, on_duplicate: Callable[[str], None] | None = None, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """The value of a whole JSON file of at most `max_bytes`; `on_duplicate` is told each repeated key (the last one holds)."""
    size = os.stat(path).st_size
    if size > max_bytes:
        raise RawFileError(f"{path.name} has {size:,} bytes; at most {max_bytes:,} are read at once.")
    with _open(path) as file:
        return parse_json(file.read(), path.name, on_duplicate)


def parse_json(text: str, name: str, on_duplicate: Callable[[str], None] | None = None) -> Any:
    """The value of a JSON text; errors are [`RawFileError`] and name `name`."""
    try:
        return _decoder(on_duplicate).decode(text)
    except (ValueError, RecursionError) as error:
        raise RawFileError(f"{name} is not valid JSON: {_reason(error)}.") from error


def iter_json_lines(path: Path) -> Iterator[JsonLine]:
    """The lines of a JSON-lines file, empty ones left out; each should hold one object."""
    decoder = _decoder(None)
    with _open(path) as file:
        number = 0
        while line := file.readline(MAX_RECORD_CHARS):
            number += 1
            if len(line) == MAX_RECORD_CHARS and not line.endswith("\n"):
                raise RawFileError(f"{path.name}, line {number}: longer than {MAX_RECORD_CHARS:,} characters.")
            if not line.strip():
                continue
            try:
                value = decoder.decode(line)
            except (ValueError, RecursionError) as error:
                yield JsonLine(number, None, _reason(error))
                continue
            if isinstance(value, dict):
                yield JsonLine(number, value)
            else:
                yield JsonLine(number, None, f"expected an object, found {type(value).__name__}")


def iter_json_array(path: Path) -> Iterator[Any]:
    """The items of a JSON file that is one array, without holding it in memory."""
    stream = _JsonStream(path)
    stream.expect("[")
    if stream.peek() == "]":
        return
    while True:
        yield stream.value()
        if stream.take(",]", "',' or ']'") == "]":
            return


def iter_json_object(path: Path) -> Iterator[tuple[str, Any]]:
    """The (key, value) pairs of a JSON file that is one object, in file order, repeated keys included."""
    stream = _JsonStream(path)
    stream.expect("{")
    if stream.peek() == "}":
        return
    while True:
        key = stream.value()
        if not isinstance(key, str):
            raise RawFileError(f"{path.name}: a key must be a string, found {type(key).__name__}.")
        stream.expect(":")
        yield key, stream.value()
        if stream.take(",}", "',' or '}'") == "}":
            return


def iter_csv(path: Path, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of a CSV file; cells hold at most 1 MiB."""
    csv.field_size_limit(MAX_CSV_FIELD)
    with _open(path, newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise RawFileError(
                    f"{path.name}, line {reader.line_num}: {error}. A quotation mark that is never closed looks like this."
                ) from error
            if cells:
                yield reader.line_num, cells


class _JsonStream:
    """A cursor over a JSON file that reads on only when a value is incomplete."""

    def __init__(self, path: Path):
        self.path = path
        self._chunks = _chunks(path)
        self._decoder = _decoder(None)
        self._buffer, self._position, self._ended = "", 0, False

    def peek(self) -> str:
        """The next character that is not blank; empty at the end."""
        while True:
            while self._position < len(self._buffer) and self._buffer[self._position] in _BLANKS:
                self._position += 1
            if self._position < len(self._buffer):
                return self._buffer[self._position]
            if not self._read():
                return ""

    def take(self, allowed: str, expected: str) -> str:
        found = self.peek()
        if not found or found not in allowed:
            raise RawFileError(
                f"{self.path.name} is not valid JSON: expected {expected}, found {found or 'the end'!r}."
            )
        self._position += 1
        return found

    def expect(self, character: str) -> None:
        self.take(character, repr(character))

    def value(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._position)
            except RecursionError as error:
                raise RawFileError(f"{self.path.name} is nested too deeply.") from error
            except ValueError as error:
                if len(self._buffer) - self._position > MAX_RECORD_CHARS:
                    raise RawFileError(
                        f"{self.path.name}: one record is longer than {MAX_RECORD_CHARS:,} characters."
                    ) from error
                if not self._read():
                    raise RawFileError(f"{self.path.name} is not valid JSON: {_reason(error)}.") from error
                continue
            # A number may go on in the next piece: "12" or "12." may be the beginning of "12.5e3".
            if not self._buffer[end:].strip("+-.eE0123456789") and self._read():
                continue
            self._position = end
            return value

    def _read(self) -> bool:
        # At least as much again as is waiting, so that a long record is not parsed anew for each small piece.
        pieces, wanted = [], max(_CHUNK, len(self._buffer) - self._position)
        while wanted > 0 and (piece := next(self._chunks, "")):
            pieces.append(piece)
            wanted -= len(piece)
        self._buffer = self._buffer[self._position :] + "".join(pieces)
        self._position = 0
        return bool(pieces)


def _chunks(path: Path) -> Iterator[str]:
    with _open(path) as file:
        while piece := file.read(_CHUNK):
            yield piece


def _open(path: Path, newline: str | None = None):
    return Path(path).open(encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def _decoder(on_duplicate: Callable[[str], None] | None) -> json.JSONDecoder:
    if on_duplicate is None:
        return json.JSONDecoder()

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in items:
            if key in result:
                on_duplicate(key)
            result[key] = value
        return result

    return json.JSONDecoder(object_pairs_hook=pairs)


def _reason(error: BaseException) -> str:
    """What is wrong and where, without the text around it (it may be private)."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]
