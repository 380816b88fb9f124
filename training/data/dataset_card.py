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
"""The data card (`README.md`) of a prepared folder: what it is, its terms, how it was made. It never shows a record."""

import json
from typing import TYPE_CHECKING, Any

from .prepare_report import Report, ShardStatistics
from .registry import MULTI_LABEL, DatasetSpec


if TYPE_CHECKING:
    from datasets import Features


def render_dataset_card(
    spec: DatasetSpec,
    report: Report,
    features: "Features",
    shards: list[tuple[str, ShardStatistics]],
    aliases: dict[str, str],
    options: dict[str, Any],
    limit: int | None,
) -> str:
    """The text of the card.

    Args:
        shards: (file below the output folder, statistics) in order.
        aliases: loaded split name -> stored split name, where they differ.
        options: the options of the build.
        limit: records per split, if the build is partial.
    """
    loaded_name = {stored: loaded for loaded, stored in aliases.items()}
    return "\n".join(
        [
            _front_matter(spec, features, shards, loaded_name),
            f"# {spec.title}",
            "",
            *([f"**Partial: only the first {limit:,} records of each split.**", ""] if limit is not None else []),
            "## Origin and terms",
            "",
            f"Licence: {spec.licence}.",
            "",
            *(f"    {line}" for line in spec.where.splitlines()),
            "",
            *([f"Reference: {spec.citation}.", ""] if spec.citation else []),
            "## How it was made",
            "",
            f"`{report.tool}` read the raw tree as `{report.variant}` (configuration {report.config_hash[:16]}) with",
            "",
            f"    {json.dumps(options, sort_keys=True)}",
            "",
            "## Rows",
            "",
            "| split | file prefix | records seen | rows written |",
            "|---|---|---|---|",
            *(
                f"| {loaded_name.get(name, name)} | {name} | {split.seen} | {split.written} |"
                for name, split in report.splits.items()
            ),
            "",
            *_list(
                "Skipped",
                [
                    f"{name}, {reason}: {len(ids)}{'+' if len(ids) == 1000 else ''}"
                    for name, split in report.splits.items()
                    for reason, ids in split.skipped.items()
                ],
            ),
            *_list("Repaired", [f"{name}: {count}" for name, count in report.repairs.items()]),
            *_list("Known defects", list(spec.known_defects)),
            *_list("Notes of the build", report.warnings),
            "## Labels",
            "",
            f"Column `{spec.label_column}`"
            + (", any number of" if spec.problem_type == MULTI_LABEL else ", one of")
            + ":",
            "",
            "| id | name |",
            "|---|---|",
            *(f"| {index} | {_escape(name)} |" for index, name in enumerate(spec.label_names)),
            "",
        ]
    )


def _front_matter(
    spec: DatasetSpec, features: "Features", shards: list[tuple[str, ShardStatistics]], loaded_name: dict[str, str]
) -> str:
    from datasets import DatasetInfo, SplitDict, SplitInfo
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    rows: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for _, statistics in shards:
        split = loaded_name.get(statistics.split, statistics.split)
        rows[split] = rows.get(split, 0) + statistics.written
        sizes[split] = sizes.get(split, 0) + statistics.num_bytes
    splits = SplitDict({s: SplitInfo(name=s, num_bytes=sizes[s], num_examples=rows[s]) for s in rows})
    card = DatasetCardData(
        license="other",
        license_name=f"{spec.config_name}-terms",
        pretty_name=spec.title,
        task_categories=["image-classification", "text-classification"],
        tags=["fusionzoo", "multimodal"],
        configs=[
            {
                "config_name": spec.config_name,
                "data_files": [
                    {"split": loaded_name.get(split, split), "path": f"{spec.config_name}/{split}-*"}
                    for split in dict.fromkeys(statistics.split for _, statistics in shards)
                ],
                "default": True,
            }
        ],
    )
    info = DatasetInfo(features=features, splits=splits, dataset_size=sum(sizes.values()))
    DatasetInfosDict({spec.config_name: info}).to_dataset_card_data(card)
    return f"---\n{card.to_yaml()}\n---\n"


def _list(title: str, lines: list[str]) -> list[str]:
    return [f"## {title}", "", *(f"- {_escape(line)}" for line in lines), ""] if lines else []


def _escape(text: str) -> str:
    """Text of the raw data as plain text in Markdown."""
    for character in "\\`*_[]<>|#":
        text = text.replace(character, "\\" + character)
    return text.replace("\n", " ")
