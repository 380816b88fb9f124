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
"""Raw distribution -> checked Parquet shards, a card and a report: [`prepare_dataset`].

    OUT/README.md                                   the card: features, splits, origin, terms
    OUT/report.json                                 what was written, skipped, repaired
    OUT/<config>/<split>-00000-of-0000N.parquet     the rows, pictures embedded

`datasets.load_dataset(OUT)` reads it, streaming included. The same raw tree and options give the same bytes; a build that
was killed goes on where it stopped and ends equal.
"""

import hashlib
import importlib
import itertools
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .conversion import (
    ConversionOptions,
    Converter,
    Entry,
    LayoutError,
    OutputFolderError,
    RowBuilder,
    SkipRecord,
)
from .dataset_card import render_dataset_card
from .expected_counts import expected_rows
from .prepare_report import EXIT_USAGE, Report, ShardStatistics, SplitReport, merge_statistics
from .raw_files import RawFileError
from .registry import DatasetSpec, get_dataset_spec
from .shard_writer import BuildFolder, write_shard
from .text_cleaning import TEXT_CLEAN_MODES
from .verify_prepared import verify_dataset


if TYPE_CHECKING:
    from datasets import Features

__all__ = ["prepare_command", "prepare_dataset", "verify_dataset"]

FORMAT_VERSION = 1  # of the prepared folder; raise it whenever the same raw data would give other bytes

Progress = Callable[[dict[str, Any]], None]


def prepare_dataset(
    name: str,
    raw_dir: str | os.PathLike,
    out_dir: str | os.PathLike,
    *,
    variant: str | None = None,
    splits: Sequence[str] | None = None,
    limit: int | None = None,
    max_side: int | None = None,
    rows_per_shard: int | None = None,
    workers: int = 1,
    text_clean: str = "standard",
    keep_raw_text: bool = False,
    allow_truncated: bool = False,
    max_skip: float = 0.01,
    strict: bool = False,
    resume: bool = True,
    dry_run: bool = False,
    progress: Progress | None = None,
    **dataset_options: Any,
) -> Report:
    """Converts the owners' raw download of a data set.

    Args:
        name: a name of [`registry.list_datasets`].
        raw_dir: the unpacked raw distribution; never written to, never left through a link or a `..`.
        out_dir: an empty or new folder, or one with an earlier or broken-off build.
        variant: the layout of the raw tree, where it should not be recognised.
        splits: only these; default all.
        limit: only the first so many records of each split.
        max_side: pictures with a longer side are scaled down (default: the data set's own, mostly 512; 0 for never).
        rows_per_shard: records per Parquet file (default: the data set's own).
        workers: threads that decode pictures.
        text_clean: `"standard"`, `"none"` or `"mmbt"`; see [`text_cleaning.clean_text`].
        keep_raw_text: adds a column `text_raw` with the untouched text.
        allow_truncated: fills truncated pictures with grey where they would be skipped.
        max_skip: share of records that may be skipped before the exit code says failure.
        strict: any skip is a failure.
        resume: keep the finished shards of an equal build.
        dry_run: check every record, write nothing.
        progress: called with a dict for each finished shard.
        dataset_options: what only this data set has, e.g. `plot=` of mmimdb, `split_scheme=` of mustard.

    Returns:
        [`Report`]; its `exit_code` is 0 (complete), 3 (skips within `max_skip`) or 4 (too many).

    Raises:
        LayoutError: the raw tree is missing or incomplete; the message says where to get it.
        OutputFolderError: the output folder is in use or holds something else.
        ValueError: an option that is unknown or out of range.
    """
    spec = get_dataset_spec(name)
    _check_options(limit, max_side, rows_per_shard, workers, text_clean, max_skip)
    _check_folders(raw_dir, out_dir)
    options = ConversionOptions(
        max_side=spec.default_max_side if max_side is None else max_side,
        text_clean=text_clean,
        keep_raw_text=keep_raw_text,
        allow_truncated=allow_truncated,
    )
    rows_per_shard = rows_per_shard or spec.rows_per_shard
    try:
        converter = converter_class(spec)(spec, raw_dir, options, variant, dataset_options)
        chosen = _chosen_splits(converter, splits)
        index = {split: _read_index(converter, split, limit) for split in chosen}
    except RawFileError as error:
        raise LayoutError(f"{spec.name}: {error}") from error
    header = _header(converter, index, limit, rows_per_shard)
    report = _empty_report(converter, index, header, limit)
    report.max_skip, report.strict = max_skip, strict
    job = _Job(converter, limit, rows_per_shard, workers, progress or _silent)

    if dry_run:
        parts = list(job.statistics_only(index))
        merge_statistics(report, parts, spec.label_names)
        return report
    with BuildFolder(out_dir, header, resume) as folder:
        if folder.is_complete:
            job.progress({"event": "unchanged", "folder": os.fspath(out_dir)})
            return Report.load(out_dir, max_skip=max_skip, strict=strict)
        if folder.restart_reason:
            job.progress({"event": "restart", "reason": folder.restart_reason})
        shards = list(job.write(folder, index))
        merge_statistics(report, [statistics for _, statistics in shards], spec.label_names)
        card = render_dataset_card(
            spec, report, job.features, shards, converter.split_aliases(), header["options"], limit
        )
        folder.finish(report.to_json(), card)
    return report


def prepare_command(
    name: str, raw_dir: str | os.PathLike, out_dir: str | os.PathLike, *, echo=print, **options
) -> int:
    """[`prepare_dataset`] for a command line: says through `echo` what happens, and returns the exit code.

    Errors of the user (2) and an interruption (130) become a code as well; an interrupted build can be resumed.
    """

    def show(event: dict[str, Any]) -> None:
        echo(" ".join(f"{key}={value}" for key, value in event.items()))

    try:
        report = prepare_dataset(name, raw_dir, out_dir, progress=show, **options)
    except ValueError as error:
        echo(f"error: {error}")
        return EXIT_USAGE
    except KeyboardInterrupt:
        echo("interrupted; run the same command again to go on")
        return 130
    echo(report.table())
    return report.exit_code


def converter_class(spec: DatasetSpec) -> type[Converter]:
    """The class that reads the raw tree of a data set."""
    module, _, name = spec.converter.partition(":")
    return getattr(importlib.import_module(f".{module}", __package__), name)


def tool_version() -> str:
    """`fusionzoo <version>`, as written into reports and cards."""
    package = __name__.split(".", 1)[0]
    return f"{package} {importlib.import_module(package).__version__}"


class _Index(NamedTuple):
    """One pass over the records of a split, before any picture is opened."""

    rows: int
    digest: str
    ids: frozenset[str]


class _Outcome(NamedTuple):
    entry: Entry
    row: dict[str, Any] | None
    skip: str
    builder: RowBuilder


class _Job:
    """The work on all shards of a build."""

    def __init__(self, converter: Converter, limit: int | None, rows_per_shard: int, workers: int, progress: Progress):
        self.converter = converter
        self.limit = limit
        self.rows_per_shard = rows_per_shard
        self.workers = workers
        self.progress = progress
        self.features = stored_features(converter.spec, converter.options.keep_raw_text)

    def write(self, folder: BuildFolder, index: dict[str, _Index]) -> Iterator[tuple[str, ShardStatistics]]:
        """(file, statistics) of each shard, written now or found finished."""
        for split, shard_count, shard, entries in self._shards(index):
            name = f"{self.converter.spec.config_name}/{split}-{shard:05d}-of-{shard_count:05d}.parquet"
            statistics = folder.statistics(name)
            if statistics is None:
                statistics = ShardStatistics(split)
                rows = self._rows(entries, statistics)
                statistics.num_bytes = write_shard(folder.path / name, self.features, rows)
                folder.finish_shard(name, statistics)
                event = "written"
            else:
                deque(entries, maxlen=0)
                event = "kept"
            self.progress(
                {"event": event, "file": name, "of": shard_count, "seen": statistics.seen, "rows": statistics.written}
            )
            yield name, statistics

    def statistics_only(self, index: dict[str, _Index]) -> Iterator[ShardStatistics]:
        """As [`write`] without writing."""
        for split, _, _, entries in self._shards(index):
            statistics = ShardStatistics(split)
            deque(self._rows(entries, statistics), maxlen=0)
            yield statistics

    def _shards(self, index: dict[str, _Index]) -> Iterator[tuple[str, int, int, Iterator[Entry]]]:
        for split, facts in index.items():
            shard_count = max(1, -(-facts.rows // self.rows_per_shard))
            entries = _unique(_limited(self.converter.entries(split), self.limit))
            for shard in range(shard_count):
                yield split, shard_count, shard, itertools.islice(entries, self.rows_per_shard)

    def _rows(self, entries: Iterator[Entry], statistics: ShardStatistics) -> Iterator[dict[str, Any]]:
        spec = self.converter.spec
        repairs: Counter[str] = Counter()
        warnings: Counter[str] = Counter()
        histogram: Counter[str] = Counter()
        for outcome in self._outcomes(entries, statistics.split):
            statistics.seen += 1
            warnings.update(outcome.builder.warnings)
            if outcome.row is None:
                statistics.skip(outcome.skip, outcome.entry.id)
                continue
            statistics.written += 1
            repairs.update(set(outcome.builder.repairs))
            histogram.update(_label_names(outcome.row[spec.label_column], spec.label_names))
            if outcome.builder.digests:
                digest = hashlib.sha256(b"".join(outcome.builder.digests)).hexdigest()[:32]
                statistics.images.append([outcome.entry.id, digest])
            yield outcome.row
        statistics.repairs, statistics.warnings = dict(repairs), dict(warnings)
        statistics.histogram = dict(histogram)

    def _outcomes(self, entries: Iterator[Entry], split: str) -> Iterator[_Outcome]:
        """The outcome of each entry, in order, whatever the number of threads."""
        if self.workers == 1:
            yield from (self._outcome(entry, split) for entry in entries)
            return
        with ThreadPoolExecutor(self.workers) as pool:
            waiting: deque = deque()
            try:
                for entry in entries:
                    waiting.append(pool.submit(self._outcome, entry, split))
                    if len(waiting) >= 4 * self.workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _outcome(self, entry: Entry, split: str) -> _Outcome:
        builder = RowBuilder(self.converter.finder, self.converter.options)
        if entry.skip:
            return _Outcome(entry, None, entry.skip, builder)
        try:
            row = {"id": entry.id, **self.converter.build(entry, split, builder)}
        except SkipRecord as skip:
            return _Outcome(entry, None, skip.reason, builder)
        if self.converter.options.keep_raw_text:
            row["text_raw"] = builder.raw_text
        return _Outcome(entry, row, "", builder)


def stored_features(spec: DatasetSpec, keep_raw_text: bool) -> "Features":
    """The columns of the Parquet files: those of the spec, and `text_raw` if asked for."""
    from datasets import Features, Value

    features = dict(spec.features)
    if keep_raw_text:
        features["text_raw"] = Value("string")
    return Features(features)


def _unique(entries: Iterable[Entry]) -> Iterator[Entry]:
    """The entries with ids that UTF-8 can hold; the second and later ones of an id are marked to be skipped."""
    seen: set[str] = set()
    for entry in entries:
        record_id = entry.id.encode("utf-8", errors="replace").decode("utf-8")
        entry = entry._replace(id=record_id)
        if record_id in seen and not entry.skip:
            entry = entry._replace(skip="duplicate_id")
        seen.add(record_id)
        yield entry


def _limited(entries: Iterator[Entry], limit: int | None) -> Iterator[Entry]:
    return entries if limit is None else itertools.islice(entries, limit)


def _read_index(converter: Converter, split: str, limit: int | None) -> _Index:
    digest = hashlib.sha256()
    ids: set[str] = set()
    count = 0
    for entry in _unique(_limited(converter.entries(split), limit)):
        count += 1
        ids.add(entry.id)
        digest.update(json.dumps(entry, sort_keys=True).encode("ascii") + b"\n")
    return _Index(count, digest.hexdigest(), frozenset(ids))


def _header(converter: Converter, index: dict[str, _Index], limit: int | None, rows_per_shard: int) -> dict[str, Any]:
    options = converter.options
    shown = {
        "max_side": options.max_side,
        "text_clean": options.text_clean,
        "keep_raw_text": options.keep_raw_text,
        "allow_truncated": options.allow_truncated,
        "rows_per_shard": rows_per_shard,
        "limit": limit,
        "splits": list(index),
        **converter.extra,
    }
    config = {
        "format": FORMAT_VERSION,
        "dataset": converter.spec.name,
        "variant": converter.layout.name,
        "tool": tool_version(),
        "features": stored_features(converter.spec, options.keep_raw_text).to_dict(),
        "options": shown,
    }
    return {
        "config": converter.spec.config_name,
        "dataset": converter.spec.name,
        "variant": converter.layout.name,
        "tool": config["tool"],
        "config_hash": _hash(config),
        "index_hash": _hash({split: facts.digest for split, facts in index.items()}),
        "options": shown,
    }


def _empty_report(converter: Converter, index: dict[str, _Index], header: dict[str, Any], limit: int | None) -> Report:
    expected = expected_rows(converter.spec.name, converter.edition) if limit is None else {}
    report = Report(converter.spec.name, header["variant"], header["tool"], header["config_hash"])
    for split, facts in index.items():
        known = expected.get(split)
        report.splits[split] = SplitReport(expected=known.rows if known else None)
        if known and known.rows != facts.rows:
            certainty = "" if known.verified else " (a number from the literature, not checked)"
            report.warnings.append(
                f"{split}: {known.rows:,} records expected{certainty}, {facts.rows:,} found in the raw tree."
            )
    report.warnings += converter.warnings
    if converter.IDS_ARE_UNIQUE:
        for (one, first), (other, second) in itertools.combinations(index.items(), 2):
            shared = len(first.ids & second.ids)
            if shared:
                report.warnings.append(f"{shared:,} ids of {one} occur in {other} as well.")
    return report


def _chosen_splits(converter: Converter, splits: Sequence[str] | None) -> list[str]:
    available = list(converter.splits())
    if splits is None:
        return available
    unknown = [split for split in splits if split not in available]
    if unknown or not splits:
        raise ValueError(
            f"{converter.spec.name} has no split {', '.join(map(repr, unknown))}; this raw tree has {', '.join(available)}."
        )
    return [split for split in available if split in splits]


def _check_options(limit, max_side, rows_per_shard, workers, text_clean, max_skip) -> None:
    for option, value, lowest in (
        ("limit", limit, 1),
        ("max_side", max_side, 0),
        ("rows_per_shard", rows_per_shard, 1),
        ("workers", workers, 1),
    ):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < lowest):
            raise ValueError(f"{option}={value!r} must be a whole number of at least {lowest}.")
    if text_clean not in TEXT_CLEAN_MODES:
        raise ValueError(f"text_clean={text_clean!r} is unknown; allowed: {', '.join(TEXT_CLEAN_MODES)}.")
    if not 0 <= max_skip <= 1:
        raise ValueError(f"max_skip={max_skip!r} is a share and must lie between 0 and 1.")


def _check_folders(raw_dir: str | os.PathLike, out_dir: str | os.PathLike) -> None:
    raw, out = Path(os.path.realpath(raw_dir)), Path(os.path.realpath(out_dir))
    if raw == out or raw in out.parents or out in raw.parents:
        raise OutputFolderError(
            f"The output folder {os.fspath(out_dir)!r} and the raw folder {os.fspath(raw_dir)!r} must not contain each other."
        )
    if out.exists() and not out.is_dir():
        raise OutputFolderError(f"{os.fspath(out_dir)!r} is a file; give a folder.")


def _label_names(label: Any, names: Sequence[str]) -> list[str]:
    labels = label if isinstance(label, list) else [label]
    return [names[value] if value is not None and value >= 0 else "(hidden)" for value in labels]


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8")).hexdigest()


def _silent(event: dict[str, Any]) -> None:
    return
