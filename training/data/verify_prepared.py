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
"""Checks a prepared folder as it lies on disk: [`verify_dataset`]."""

import hashlib
import os
from collections import Counter
from pathlib import Path
from typing import Any

from .images import UnsafeImageError, store_image
from .prepare_report import Report, SplitReport, duplicates_across_splits
from .registry import DatasetSpec, get_dataset_spec
from .shard_writer import JOURNAL_FILE, read_journal, sha256_of_file


def verify_dataset(out_dir: str | os.PathLike, sample: int | None = None) -> Report:
    """Reads every shard of a prepared folder again.

    Checked are the hashes of the shards, their columns and types, the row counts, that ids are unique within a split, and
    that pictures decode: all of them, or with `sample` so many per split, spread evenly.

    Returns:
        [`Report`] with what was counted; `errors` holds what is wrong, and its `exit_code` is then 4, else 0 or 3.

    Raises:
        ValueError: the folder does not hold a finished build.
    """
    out = Path(out_dir)
    lines = finished_build(out)
    built = Report.load(out)
    spec = get_dataset_spec(built.dataset)
    report = Report(built.dataset, built.variant, built.tool, built.config_hash, max_skip=1.0)
    report.splits = {
        name: SplitReport(split.expected, split.seen, 0, split.skipped) for name, split in built.splits.items()
    }
    images: list[tuple[str, list[list[str]]]] = []
    ids: dict[str, Counter[str]] = {name: Counter() for name in report.splits}
    histogram: dict[str, Counter[str]] = {name: Counter() for name in report.splits}
    for line in lines[1:-1]:
        split = Path(line["file"]).name.rpartition("-of-")[0].rpartition("-")[0]
        if sha256_of_file(out / line["file"]) != line["sha256"]:
            report.errors.append(f"{line['file']}: the file is missing or was changed after the build.")
            continue
        found, digests = _verify_shard(out / line["file"], spec, sample, report, ids[split], histogram[split])
        if found != line["rows"]:
            report.errors.append(f"{line['file']}: {found:,} rows, but the build wrote {line['rows']:,}.")
        report.splits[split].written += found
        images.append((split, digests))
    for split, counts in ids.items():
        repeated = [record_id for record_id, count in counts.items() if count > 1]
        if repeated:
            report.errors.append(f"{split}: {len(repeated):,} ids occur more than once, first {repeated[0]!r}.")
        if report.splits[split].written != built.splits[split].written:
            report.errors.append(
                f"{split}: {report.splits[split].written:,} rows, the report says {built.splits[split].written:,}."
            )
    report.label_histogram = {
        split: {name: counts[name] for name in (*spec.label_names, "(hidden)") if counts[name]}
        for split, counts in histogram.items()
    }
    if not report.errors and report.label_histogram != built.label_histogram:
        report.errors.append("The labels are not those of the report.")
    report.duplicate_images_across_splits = duplicates_across_splits(images)[:1000]
    return report


def finished_build(out: Path) -> list[dict[str, Any]]:
    """The journal of a finished build.

    Raises:
        ValueError: no build, or one that was broken off.
    """
    journal = out / JOURNAL_FILE
    if not journal.is_file():
        raise ValueError(f"{os.fspath(out)!r} was not made by `fusionzoo prepare`: it has no {JOURNAL_FILE}.")
    lines, _ = read_journal(journal)
    if not lines or "complete" not in lines[-1]:
        raise ValueError(
            f"The build in {os.fspath(out)!r} is not finished; run the same `fusionzoo prepare` again to go on."
        )
    return lines


def _verify_shard(
    path: Path, spec: DatasetSpec, sample: int | None, report: Report, ids: Counter, histogram: Counter
) -> tuple[int, list[list[str]]]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    expected = spec.features.arrow_schema
    present = {field.name: field.type for field in file.schema_arrow}
    for field in expected:
        if present.get(field.name) != field.type:
            report.errors.append(
                f"{path.name}: column {field.name!r} should be {field.type}, found {present.get(field.name)}."
            )
            return file.metadata.num_rows, []
    digests: list[list[str]] = []
    rows = file.metadata.num_rows
    step = 1 if not sample or sample >= rows else rows / sample
    chosen = set(range(rows)) if step == 1 else {int((i + 0.5) * step) for i in range(sample or 0)}
    number = 0
    for batch in file.iter_batches(batch_size=64, columns=["id", spec.image_column, spec.label_column]):
        for row in batch.to_pylist():
            ids[row["id"]] += 1
            label = row[spec.label_column]
            labels = label if isinstance(label, list) else [label]
            histogram.update(spec.label_names[value] if value >= 0 else "(hidden)" for value in labels)
            if number in chosen:
                digest = _picture_digest(row, spec, report)
                if digest:
                    digests.append([row["id"], digest])
            number += 1
    return rows, digests


def _picture_digest(row: dict[str, Any], spec: DatasetSpec, report: Report) -> str:
    value = row[spec.image_column]
    pictures = [picture for picture in (value if isinstance(value, list) else [value]) if picture is not None]
    try:
        digests = [store_image(picture["bytes"] or b"", max_side=0).digest for picture in pictures]
    except UnsafeImageError as error:
        report.errors.append(f"{row['id']}: {error.reason}.")
        return ""
    return hashlib.sha256(b"".join(digests)).hexdigest()[:32] if digests else ""
