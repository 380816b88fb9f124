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
"""Predictions of a saved model for single examples and for files of them."""

import csv
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoProcessor, PreTrainedModel, ProcessorMixin

from .data.images import IMAGE_EXTENSIONS, open_image_safely, resolve_inside
from .metrics.compute_metrics import THRESHOLD, probabilities


MAX_TEXT_CHARACTERS = 1 << 20


def predict_saved_model(
    model_path: str, examples: Iterable[dict[str, Any]], *, batch_size: int = 32, top_k: int | None = None
) -> Iterator[dict[str, Any]]:
    """Loads a model folder or repo and yields `predict`'s result for each example."""
    model = AutoModelForSequenceClassification.from_pretrained(model_path)
    processor = AutoProcessor.from_pretrained(model_path)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    return predict(model.to(device), processor, examples, batch_size=batch_size, top_k=top_k)


def predict(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    examples: Iterable[dict[str, Any]],
    *,
    batch_size: int = 32,
    top_k: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Yields one result per example, in order.

    Args:
        examples: dicts with `image` (PIL image, path or `None`), `text` (`str` or `None`) and `id`. A missing modality is
            `None`; at least one must be there.
        top_k: keep the probabilities of this many classes, most probable first.

    Single-label results have `label` and `probabilities` that sum to 1; multi-label ones have `labels` (every class above
    0.5) and independent probabilities; regression has `value`. An example that cannot be read gives `error` instead,
    and does not disturb the others.
    """
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}.")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    model.eval()
    pending = iter(examples)
    while rows := list(islice(pending, batch_size)):
        loaded = [_load(row) for row in rows]
        good = [row for row in loaded if "error" not in row]
        results = iter(_predict_batch(model, processor, good, top_k) if good else [])
        for row in loaded:
            yield {"id": row["id"], "error": row["error"]} if "error" in row else next(results)


def read_examples(source: str | Path) -> Iterator[dict[str, Any]]:
    """Examples from a `.jsonl` or `.csv` file (columns `image`, `text`, optional `id`) or from a folder of images.

    Image paths are relative to the file's folder and may not leave it. In a folder, `metadata.jsonl` or `metadata.csv`
    (columns `file_name`, `text`) gives the texts. An empty CSV cell means absent.
    """
    source = Path(source)
    if source.is_dir():
        return _read_folder(source)
    if not source.is_file():
        raise ValueError(f"There is no file or folder {source}.")
    if source.suffix.lower() not in (".jsonl", ".csv"):
        raise ValueError(f"{source}: expected a .jsonl or .csv file or a folder of images.")
    return (_example(record, number, source.parent) for number, record in enumerate(_records(source)))


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix.lower() == ".csv":
            for record in csv.DictReader(file):
                yield {key: value or None for key, value in record.items() if key is not None}
            return
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: not valid JSON ({error}).") from error
            if not isinstance(record, dict):
                raise ValueError(f"{path}, line {number}: expected an object with `image` and `text`, got {record!r}.")
            yield record


def _read_folder(folder: Path) -> Iterator[dict[str, Any]]:
    for name in ("metadata.jsonl", "metadata.csv"):
        if (folder / name).is_file():
            for number, record in enumerate(_records(folder / name)):
                yield _example(
                    {"id": record.get("file_name"), **record, "image": record.get("file_name")}, number, folder
                )
            return
    images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_EXTENSIONS)
    if not images:
        raise ValueError(f"{folder} holds no image ({', '.join(IMAGE_EXTENSIONS)}) and no metadata file.")
    for number, path in enumerate(images):
        relative = path.relative_to(folder).as_posix()
        yield _example({"id": relative, "image": relative, "text": None}, number, folder)


def _example(record: dict[str, Any], number: int, folder: Path) -> dict[str, Any]:
    identifier = record.get("id")
    example = {"id": str(number) if identifier is None else str(identifier), "text": record.get("text"), "image": None}
    if record.get("image") is not None:
        try:
            example["image"] = resolve_inside(folder, str(record["image"]))
        except ValueError as error:
            example["error"] = str(error)
    return example


def _load(row: dict[str, Any]) -> dict[str, Any]:
    """The example with its picture opened, or with `error`."""
    row = {"id": row.get("id"), "image": row.get("image"), "text": row.get("text"), **row}
    if "error" in row:
        return row
    try:
        if row["text"] is not None and not isinstance(row["text"], str):
            raise ValueError(f"text must be a string or null, got {type(row['text']).__name__}.")
        if row["text"] is not None and len(row["text"]) > MAX_TEXT_CHARACTERS:
            raise ValueError(f"text has {len(row['text'])} characters; at most {MAX_TEXT_CHARACTERS} are read.")
        if isinstance(row["image"], (str, Path)):
            row["image"] = open_image_safely(row["image"])
        if row["image"] is None and row["text"] is None:
            raise ValueError("both image and text are absent; at least one is needed.")
    except ValueError as error:
        return {"id": row["id"], "error": str(error)}
    return row


@torch.no_grad()
def _predict_batch(
    model: PreTrainedModel, processor: ProcessorMixin, rows: list[dict[str, Any]], top_k: int | None
) -> list[dict[str, Any]]:
    batch = processor(images=[row["image"] for row in rows], text=[row["text"] for row in rows], return_tensors="pt")
    logits = model(**{name: value.to(model.device) for name, value in batch.items()}).logits.float().cpu().numpy()
    problem_type = model.config.problem_type or "single_label_classification"
    if problem_type == "regression":
        return [{"id": row["id"], "value": float(values[0])} for row, values in zip(rows, logits)]
    names = [model.config.id2label[number] for number in range(model.config.num_labels)]
    results = []
    for row, shares in zip(rows, probabilities(logits, problem_type)):
        ranked = sorted(zip(names, shares.tolist()), key=lambda pair: -pair[1])
        result: dict[str, Any] = {"id": row["id"]}
        if problem_type == "multi_label_classification":
            result["labels"] = [name for name, share in ranked if share > THRESHOLD]
        else:
            result["label"] = ranked[0][0]
        results.append({**result, "probabilities": dict(ranked[:top_k])})
    return results
