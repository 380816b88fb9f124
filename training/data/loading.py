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
"""One function for every data set: [`load_fusion_dataset`].

load_fusion_dataset("food101", root="prepared/food101")     a folder that `fusionzoo prepare` wrote
load_fusion_dataset("food101", root="me/my-private-copy")   the same, uploaded to the Hub
load_fusion_dataset("demo:food")                            drawn on the spot by the same converter, cached, offline
load_fusion_dataset("recipes.csv", columns={"image": "photo", "text": "title", "label": "dish"})   your own
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from .prepare import prepare_dataset, tool_version
from .prepare_report import EXIT_TOO_MANY_SKIPS, REPORT_FILE, Report
from .registry import DatasetSpec, get_dataset_spec, list_datasets
from .shard_writer import CARD_FILE, JOURNAL_FILE
from .tabular import is_tabular_source, load_tabular
from .verify_prepared import finished_build


if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, Features

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_CACHE_FOLDER = "fusionzoo-demos"


def load_fusion_dataset(
    name: str,
    root: str | os.PathLike | None = None,
    split: str | None = None,
    columns: dict[str, str] | None = None,
    **options: Any,
) -> "DatasetDict | Dataset":
    """Loads a data set whose rows are `{"id", <image column>: PIL or None, <text column>: str or None, <label column>: ids}`.

    Args:
        name: a name of [`registry.list_datasets`], or the path (or Hub id) of a prepared set or of your own data.
        root: for a named set, the prepared folder or the Hub id of its upload; for a demo, the folder to keep it in
            (default: the cache of `datasets`).
        split: one split, or all in a `DatasetDict`.
        columns: for your own data, which column is the `image`, the `text`, the `label` (and the `id`).
        options: of a demo: `seed`, `sizes`, `planted_defects` and what else [`demos.write_demo_raw`] takes, and
            `prepare_options`, a dict for [`prepare.prepare_dataset`]. Of your own data: see [`tabular.load_tabular`].

    Raises:
        ValueError: an unknown name (with the nearest ones), a set that has not been prepared (with where to get it), columns
            that differ from the set's (each difference is listed), an unknown split.
    """
    source = os.fspath(name) if root is None else os.fspath(root)
    if name.startswith("demo:"):
        spec = get_dataset_spec(name)
        data = _load_prepared(_demo_folder(spec, root, options), spec)
    elif columns is not None or (root is None and name not in list_datasets() and is_tabular_source(source)):
        data = load_tabular(source, columns, **options)
    else:
        if options:
            raise ValueError(f"{name}: the options {', '.join(options)} are for demos and for your own tables only.")
        data = _load_named(name, source, root is not None)
    if split is None:
        return data
    if split not in data:
        raise ValueError(f"{name} has no split {split!r}; it has {', '.join(data)}.")
    return data[split]


def check_features(features: "Features", spec: DatasetSpec, source: str) -> None:
    """Compares columns with those of a spec.

    Raises:
        ValueError: a column is missing or of another type; each is listed. More columns are welcome.
    """
    problems = []
    for column, expected in spec.features.items():
        if column not in features:
            problems.append(f"column {column!r} is missing (expected {_shown(expected)})")
        elif features[column] != expected:
            problems.append(f"column {column!r} is {_shown(features[column])}, expected {_shown(expected)}")
    if problems:
        extra = [column for column in features if column not in spec.features]
        hint = f" It has the other columns {', '.join(map(repr, extra))}." if extra else ""
        raise ValueError(f"{source} is not {spec.title} as this package prepares it: {'; '.join(problems)}.{hint}")


def _load_named(name: str, source: str, has_root: bool) -> "DatasetDict":
    folder = Path(source)
    if folder.is_dir():
        if not (folder / REPORT_FILE).is_file() and not (folder / JOURNAL_FILE).is_file():
            spec = get_dataset_spec(name) if has_root else None
            hint = f"\n\n{spec.where}" if spec else ""
            raise ValueError(
                f"{source!r} is neither a prepared folder (it has no {REPORT_FILE}) nor a table or image folder. "
                f"Run `fusionzoo prepare` first, or give columns= for your own data.{hint}"
            )
        spec = get_dataset_spec(name if has_root else Report.load(folder).dataset)
        return _load_prepared(folder, spec)
    if not has_root and name in list_datasets():
        spec = get_dataset_spec(name)
        raise ValueError(
            f"{spec.title} is not downloaded automatically. Prepare it once: `fusionzoo prepare {name} --raw DIR --out DIR`, "
            f"then load_fusion_dataset({name!r}, root=DIR).\n\n{spec.where}"
        )
    if _HUB_ID.fullmatch(source):
        return _load_from_hub(name, source, has_root)
    if has_root:
        get_dataset_spec(name)
        raise ValueError(f"There is no folder {source!r}, and it is not a Hub id (owner/name) either.")
    if os.sep in source or Path(source).suffix:
        raise ValueError(f"There is no file or folder {source!r}.")
    get_dataset_spec(name)  # unknown: says so, with the nearest names
    raise AssertionError(name)


def _load_prepared(folder: Path, spec: DatasetSpec) -> "DatasetDict":
    from datasets import load_dataset
    from huggingface_hub import DatasetCard

    finished_build(folder)
    built = Report.load(folder).dataset
    if built != spec.name:
        raise ValueError(f"{os.fspath(folder)!r} holds {built}, not {spec.name}.")
    card = DatasetCard.load(folder / CARD_FILE, ignore_metadata_errors=True)
    config = next(config for config in card.data.configs if config["config_name"] == spec.config_name)
    data_files = {
        entry["split"]: sorted(str(path) for path in folder.glob(entry["path"] + ".parquet"))
        for entry in config["data_files"]
    }
    data = load_dataset("parquet", data_files=data_files)
    for part in data.values():
        check_features(part.features, spec, repr(os.fspath(folder)))
    return data


def _load_from_hub(name: str, repo: str, has_root: bool) -> "DatasetDict":
    from datasets import load_dataset

    data = load_dataset(repo)
    if has_root:
        for part in data.values():
            check_features(part.features, get_dataset_spec(name), repo)
    return data


# Demos --------------------------------------------------------------------------------------------------------------


def _demo_folder(spec: DatasetSpec, root: str | os.PathLike | None, options: dict[str, Any]) -> Path:
    """The prepared folder of a demo, made if need be: all or nothing, by one process at a time."""
    from datasets import config as datasets_config

    from .demos import write_demo_raw

    options = {"planted_defects": False, **options}
    prepare_options = options.pop("prepare_options", {})
    key = json.dumps(
        [spec.name, options, prepare_options, tool_version(), _source_digest()], sort_keys=True, default=str
    )
    base = Path(root) if root is not None else Path(datasets_config.HF_DATASETS_CACHE) / _CACHE_FOLDER
    folder = base / f"{spec.config_name}-{hashlib.sha256(key.encode('utf-8')).hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    base.mkdir(parents=True, exist_ok=True)
    with FileLock(base / f".{folder.name}.lock"):
        if folder.is_dir():  # made by another process meanwhile
            return folder
        for stale in base.glob(f".{folder.name}-*"):  # of a process that was killed; the lock is ours
            shutil.rmtree(stale, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=base))
        try:
            planted = write_demo_raw(spec.name.removeprefix("demo:"), work / "raw", **options)
            if spec.name == "demo:food":
                prepare_options = {"validation_share": _food_validation_share(options), **prepare_options}
            report = prepare_dataset(spec.name, work / "raw", work / "out", **{"max_skip": 0.5, **prepare_options})
            if report.exit_code == EXIT_TOO_MANY_SKIPS:
                raise ValueError(f"{spec.name} could not be prepared from {planted}:\n{report.table()}")
            os.replace(work / "out", folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return folder


def _food_validation_share(options: dict[str, Any]) -> float:
    """The share that gives the wanted number of validation rows: the Kaggle layout keeps them among the train files."""
    from .demos import DEFAULT_SIZES

    sizes = {**DEFAULT_SIZES["food"], **(options.get("sizes") or {})}
    return sizes["validation"] / max(1, sizes["train"] + sizes["validation"])


def _source_digest() -> str:
    """Changes with the code that draws and converts, so that a cached demo is never older than it."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _shown(feature: object) -> str:
    text = repr(feature)
    return text if len(text) <= 160 else text[:157] + "..."
