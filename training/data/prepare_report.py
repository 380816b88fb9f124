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
"""What a build did: counts, skipped ids by reason, repairs, labels, warnings. `report.json` is its `to_dict()`."""

import dataclasses
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any


MAX_LISTED_IDS = 1000
REPORT_FILE = "report.json"

EXIT_COMPLETE, EXIT_USAGE, EXIT_SKIPS, EXIT_TOO_MANY_SKIPS = 0, 2, 3, 4


@dataclasses.dataclass
class SplitReport:
    """One split: how many records were expected (None: unknown), seen, written, and skipped for which reason."""

    expected: int | None = None
    seen: int = 0
    written: int = 0
    skipped: dict[str, list[str]] = dataclasses.field(default_factory=dict)  # reason -> at most MAX_LISTED_IDS ids


@dataclasses.dataclass
class Report:
    """The result of [`prepare.prepare_dataset`] and [`verify.verify_dataset`].

    Attributes:
        splits: by split name.
        repairs: how many written rows needed each repair.
        label_histogram: split -> label name -> rows.
        duplicate_images_across_splits: pairs of ids whose pictures are the same, in different splits.
        warnings: sentences for the reader.
        errors: what [`verify.verify_dataset`] found to be wrong; always empty after a build.
        max_skip, strict: the policy behind `exit_code`; not part of the file.
    """

    dataset: str
    variant: str
    tool: str
    config_hash: str
    splits: dict[str, SplitReport] = dataclasses.field(default_factory=dict)
    repairs: dict[str, int] = dataclasses.field(default_factory=dict)
    label_histogram: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    duplicate_images_across_splits: list[list[str]] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    errors: list[str] = dataclasses.field(default_factory=list)
    max_skip: float = 0.01
    strict: bool = False

    @property
    def seen(self) -> int:
        return sum(split.seen for split in self.splits.values())

    @property
    def written(self) -> int:
        return sum(split.written for split in self.splits.values())

    @property
    def exit_code(self) -> int:
        """0 complete; 3 complete but for skips within `max_skip`; 4 too many skips (or any, if `strict`), or errors."""
        skipped = self.seen - self.written
        if self.errors or self.seen == 0:
            return EXIT_TOO_MANY_SKIPS
        if skipped == 0:
            return EXIT_COMPLETE
        return EXIT_TOO_MANY_SKIPS if self.strict or skipped > self.max_skip * self.seen else EXIT_SKIPS

    def to_dict(self) -> dict[str, Any]:
        """The content of `report.json`."""
        content = dataclasses.asdict(self)
        del content["max_skip"], content["strict"]
        if not self.errors:
            del content["errors"]
        return content

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_dict(cls, content: dict[str, Any], **policy: Any) -> "Report":
        """The inverse of [`to_dict`]; `policy` sets `max_skip` and `strict`."""
        splits = {name: SplitReport(**split) for name, split in content["splits"].items()}
        return cls(**{**content, "splits": splits}, **policy)

    @classmethod
    def load(cls, out_dir: str | os.PathLike, **policy: Any) -> "Report":
        """Reads `report.json` of a prepared folder."""
        return cls.from_dict(json.loads((Path(out_dir) / REPORT_FILE).read_text(encoding="utf-8")), **policy)

    def table(self) -> str:
        """The report for a terminal: no picture, no text, ids only."""
        rows = [("split", "expected", "seen", "written", "skipped")]
        rows += [
            (
                name,
                "-" if split.expected is None else f"{split.expected:,}",
                f"{split.seen:,}",
                f"{split.written:,}",
                f"{split.seen - split.written:,}",
            )
            for name, split in self.splits.items()
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [f"{self.dataset}, read as {self.variant}"]
        lines += [
            "  ".join(
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths))
            )
            for row in rows
        ]
        for name, split in self.splits.items():
            for reason, ids in split.skipped.items():
                lines.append(f"skipped in {name}, {reason}: {_some(ids)}")
        if self.repairs:
            lines.append("repaired: " + ", ".join(f"{name} {count:,}" for name, count in self.repairs.items()))
        if self.duplicate_images_across_splits:
            pairs = ["=".join(pair) for pair in self.duplicate_images_across_splits]
            lines.append(f"same picture in two splits: {_some(pairs)}")
        lines += [f"warning: {text}" for text in self.warnings]
        lines += [f"error: {text}" for text in self.errors]
        return "\n".join(lines)


@dataclasses.dataclass
class ShardStatistics:
    """What one shard adds to the report; kept beside the build until it is finished, so that a resumed build ends equal.

    Attributes:
        skipped: reason -> [count, first ids].
        images: [id, digest of its pictures] of each row that has any.
        num_bytes: uncompressed size of the rows.
    """

    split: str
    seen: int = 0
    written: int = 0
    skipped: dict[str, list] = dataclasses.field(default_factory=dict)
    repairs: dict[str, int] = dataclasses.field(default_factory=dict)
    histogram: dict[str, int] = dataclasses.field(default_factory=dict)
    warnings: dict[str, int] = dataclasses.field(default_factory=dict)
    images: list[list[str]] = dataclasses.field(default_factory=list)
    num_bytes: int = 0

    def skip(self, reason: str, record_id: str) -> None:
        entry = self.skipped.setdefault(reason, [0, []])
        entry[0] += 1
        if len(entry[1]) < MAX_LISTED_IDS:
            entry[1].append(record_id)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "ShardStatistics":
        return cls(**json.loads(text))


def merge_statistics(report: Report, parts: list[ShardStatistics], label_order: tuple[str, ...]) -> None:
    """Fills counts, repairs, histogram, duplicates and counted warnings of `report` from its shards, in their order."""
    repairs: Counter[str] = Counter()
    warnings: Counter[str] = Counter()
    histograms: dict[str, Counter[str]] = {}
    skip_counts: dict[tuple[str, str], int] = Counter()
    for part in parts:
        split = report.splits[part.split]
        split.seen += part.seen
        split.written += part.written
        for reason, (count, ids) in part.skipped.items():
            listed = split.skipped.setdefault(reason, [])
            listed += ids[: MAX_LISTED_IDS - len(listed)]
            skip_counts[part.split, reason] += count
        repairs.update(part.repairs)
        warnings.update(part.warnings)
        histograms.setdefault(part.split, Counter()).update(part.histogram)
    for split in report.splits.values():
        split.skipped = dict(sorted(split.skipped.items()))
    report.repairs = dict(sorted(repairs.items()))
    report.label_histogram = {
        split: {name: counts[name] for name in dict.fromkeys((*label_order, *sorted(counts))) if counts[name]}
        for split, counts in histograms.items()
    }
    for (split_name, reason), count in sorted(skip_counts.items()):
        if count > MAX_LISTED_IDS:
            report.warnings.append(
                f"{split_name}: {count:,} records skipped as {reason}; the first {MAX_LISTED_IDS:,} are listed."
            )
    report.warnings += [
        text if count == 1 else f"{text} ({count:,} times)" for text, count in sorted(warnings.items())
    ]
    pairs = duplicates_across_splits((part.split, part.images) for part in parts)
    if len(pairs) > MAX_LISTED_IDS:
        report.warnings.append(
            f"{len(pairs):,} pictures of one split occur in an earlier one; the first {MAX_LISTED_IDS:,} are listed."
        )
    report.duplicate_images_across_splits = pairs[:MAX_LISTED_IDS]


def duplicates_across_splits(parts) -> list[list[str]]:
    """Pairs [id in an earlier split, id] of equal pictures, from (split, [[id, digest], ...]) in order."""
    first: dict[str, tuple[str, str]] = {}
    pairs = []
    for split, images in parts:
        for record_id, digest in images:
            earlier = first.setdefault(digest, (split, record_id))
            if earlier[0] != split:
                pairs.append([earlier[1], record_id])
    return pairs


def _some(items: list[str], shown: int = 5) -> str:
    return ", ".join(items[:shown]) + (f" and {len(items) - shown:,} more" if len(items) > shown else "")
