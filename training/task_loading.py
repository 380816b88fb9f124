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
"""Names in a recipe or on the command line -> data set, processor and model."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForSequenceClassification, AutoProcessor, PreTrainedModel, ProcessorMixin

from ..auto import get_method
from .arguments import DataArguments, ModelArguments
from .data.loading import load_fusion_dataset
from .data.missing_simulation import MissingModality
from .data.official_missing import SPLITS, OfficialMissing
from .data.prepare_report import REPORT_FILE, Report
from .data.registry import DatasetSpec, get_dataset_spec, list_datasets
from .data.tabular import tabular_spec
from .fusion_dataset import FusionDataset, RandAugmentById, subset_by_hash
from .pretrained_weights import WEIGHT_SOURCES, WeightsError, default_weights_dir, import_weights


@dataclass
class TaskData:
    """The splits of a run (absent ones are `None`) and what they mean."""

    spec: DatasetSpec
    train: FusionDataset | None
    validation: FusionDataset | None
    test: FusionDataset | None


def load_task_data(data: DataArguments, seed: int) -> TaskData:
    """Loads the data set of a recipe. Raises `ValueError` naming a split that does not exist."""
    loaded = load_fusion_dataset(data.name, root=data.root, columns=data.columns, **data.options)
    spec = spec_of_dataset(data.name, loaded, data.columns, problem_type=data.options.get("problem_type"))
    augment = None
    if data.randaugment_num_ops:
        augment = RandAugmentById(data.randaugment_num_ops, data.randaugment_magnitude)

    def build(wanted: str | None, default: str, *, training: bool) -> FusionDataset | None:
        name = wanted or default
        if name not in loaded:
            if wanted is None:
                return None
            raise ValueError(f"The data set {data.name!r} has no split {name!r}; it has {', '.join(loaded)}.")
        rate = data.missing_rate if training else data.missing_eval_rate
        missing: MissingModality | OfficialMissing | None = None
        if rate > 0 and data.missing_table == "official":
            missing = _official_missing(data, spec, loaded, name, seed)
        elif rate > 0:
            missing = MissingModality(
                rate=rate,
                kind=data.missing_kind,
                both_ratio=data.missing_both_ratio,
                seed=seed,
                per_epoch=data.missing_per_epoch and training,
            )
        rows = subset_by_hash(loaded[name], data.max_train_samples if training else data.max_eval_samples, seed)
        return FusionDataset(rows, spec, seed=seed, missing=missing, augment=augment if training else None)

    return TaskData(
        spec,
        build(data.train_split, spec.train_split, training=True),
        build(data.validation_split, spec.validation_split, training=False),
        build(data.test_split, spec.test_split, training=False),
    )


def _official_missing(
    data: DataArguments, spec: DatasetSpec, loaded: Mapping[str, Dataset], name: str, seed: int
) -> OfficialMissing:
    """The official table of the split `name`; all splits matter, as they draw one after the other."""
    wanted = (data.train_split, data.validation_split, data.test_split)
    defaults = (spec.train_split, spec.validation_split, spec.test_split)
    names = {official: mine or default for official, mine, default in zip(SPLITS, wanted, defaults)}
    sizes = {official: len(loaded[mine]) for official, mine in names.items() if mine in loaded}
    split = next(official for official, mine in names.items() if mine == name)
    return OfficialMissing(
        split,
        sizes,
        rate={each: data.missing_rate if each == "train" else data.missing_eval_rate for each in sizes},
        kind=dict.fromkeys(sizes, data.missing_kind),
        both_ratio=data.missing_both_ratio,
        seed=seed,
    )


def spec_of_dataset(
    name: str, loaded: Mapping[str, Dataset], columns: Mapping[str, str] | None = None, problem_type: str | None = None
) -> DatasetSpec:
    """The spec that belongs to what `load_fusion_dataset(name, ...)` returned.

    Raises `ValueError` for a Hub copy whose name does not say which data set it is and whose columns are not ours.
    """
    if columns is None and name in list_datasets():
        return get_dataset_spec(name)
    if columns is None and (Path(name) / REPORT_FILE).is_file():
        return get_dataset_spec(Report.load(Path(name)).dataset)
    features = next(iter(loaded.values())).features
    if {"image", "text", "label"} <= set(features):
        return tabular_spec(name, loaded, problem_type)
    raise ValueError(
        f"{name!r} has the columns {', '.join(features)}, not image, text and label. If it is a copy of a data set of the "
        "zoo, give that data set's name and this as root (data.root, --root)."
    )


def build_processor(model: ModelArguments) -> ProcessorMixin:
    """The method's processor for the towers (or the saved one) of a recipe."""
    if model.checkpoint is not None:
        return AutoProcessor.from_pretrained(model.checkpoint)
    build = get_method(model.method).processor_class.from_backbones
    allowed = [name for name in inspect.signature(build).parameters if name not in ("vision", "text", "kwargs")]
    for name in model.processor:
        if name not in allowed:
            raise ValueError(f"Unknown processor option {name!r}; model.processor takes: {', '.join(allowed)}.")
    return build(resolve_tower(model.vision), resolve_tower(model.text), **model.processor)


def build_model(model: ModelArguments, spec: DatasetSpec) -> PreTrainedModel:
    """The model of a recipe with a head for the data set's labels.

    Raises `ValueError` when the config fields contradict each other, or a saved model has other labels.
    """
    if model.checkpoint is not None:
        built = AutoModelForSequenceClassification.from_pretrained(model.checkpoint, **model.config)
        check_labels(built, spec)
        return built
    fields = {"num_labels": spec.num_labels, "problem_type": spec.problem_type}
    if spec.label_names:
        fields["id2label"] = dict(enumerate(spec.label_names))
        fields["label2id"] = {name: number for number, name in enumerate(spec.label_names)}
        del fields["num_labels"]
    if model.attn_implementation is not None:
        fields["attn_implementation"] = model.attn_implementation
    try:
        return (
            get_method(model.method)
            .task_class()
            .from_backbones(resolve_tower(model.vision), resolve_tower(model.text), **fields, **model.config)
        )
    except StrictDataclassError as error:
        raise ValueError(f"The model section cannot be used: {error}") from error


def resolve_tower(name: str | None) -> str | None:
    """A folder for a tower of `fusionzoo weights` (`dinov2-small`, `dinov2-small@84`, `minilm`), else `name` itself.

    `@84` sets the side of the pictures that the tower's image processor makes. A local folder of that name wins.
    """
    if name is None:
        return None
    short, at, side = name.partition("@")
    if short not in WEIGHT_SOURCES or Path(name).is_dir():
        return name
    if at and not side.isdigit():
        raise ValueError(f"Tower {name!r}: after @ comes the side of the pictures in pixels, e.g. {short}@84.")
    folder = default_weights_dir().with_name(f"weights-{side}") if at else None
    try:
        return str(import_weights([short], folder, image_size=int(side) if at else None)[short])
    except WeightsError as error:
        raise ValueError(f"Tower {name!r}: {error}") from error


def check_labels(model: PreTrainedModel, spec: DatasetSpec) -> None:
    """Raises `ValueError` when a saved model was made for other labels than the data set has."""
    if model.config.num_labels != spec.num_labels:
        raise ValueError(f"The model has {model.config.num_labels} labels, the data set {spec.num_labels}.")
    names = [model.config.id2label[number] for number in range(model.config.num_labels)]
    if spec.label_names and names != list(spec.label_names) and names[0] != "LABEL_0":
        first = next(number for number, (a, b) in enumerate(zip(names, spec.label_names)) if a != b)
        raise ValueError(
            f"The model's labels are not the data set's: label {first} is {names[first]!r} in the model and "
            f"{spec.label_names[first]!r} in the data set."
        )
