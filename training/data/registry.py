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
"""What the package knows about each named data set, before a single record is read.

A [`DatasetSpec`] holds the columns, the label names, the metrics, the terms and the place to get the raw distribution.
Converters, loaders, collators, metrics and cards all read it; the record-by-record work is in `<data set>.py`.
"""

import dataclasses
import difflib
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from .label_names import (
    DEMO_FOOD_CLASSES,
    FOOD101_CLASSES,
    HATEFUL_MEMES_LABELS,
    MMIMDB_GENRES,
    MUSTARD_LABELS,
    RUS_INTERACTIONS,
    RUS_LABELS,
    SNLI_VE_LABELS,
)


if TYPE_CHECKING:
    from datasets import Features

SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"
REGRESSION = "regression"


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """One data set as the rest of the package sees it.

    Args:
        name: the name a user types, e.g. `"food101"` or `"demo:food"`.
        title: the name in full, for cards.
        image_column: the column with the picture (`Image()`), or with a list of pictures if `image_is_list`.
        text_column: the column with the text that a model may read.
        label_column: `ClassLabel`, a list of `ClassLabel` (multi-label) or a float (regression).
        problem_type: as in `PretrainedConfig.problem_type`.
        metrics: the metrics to report, of `accuracy`, `f1_macro`, `f1_micro`, `f1_weighted`, `f1_samples`, `auroc`.
        main_metric: the one of `metrics` that picks the best checkpoint.
        licence: a short statement of the terms.
        redistributable: whether a prepared copy may be published.
        where: where the owner gives the raw distribution, its terms, and the files expected; printed when they are missing.
        build_features: makes the `datasets.Features` of the prepared set.
        label_names: names in the order of the ids; empty for regression.
        converter: `module:class` of the converter in this folder; empty for the user's own data.
        train_split, validation_split, test_split: the split names that training and evaluation use by default.
        image_is_list: whether `image_column` holds a list of pictures (key frames) in place of one.
        rows_per_shard: records per Parquet shard unless the user says otherwise.
        default_max_side: longer pictures are scaled down to this many pixels by default.
        citation: a BibTeX key or a short reference.
        known_defects: sentences for the data card.
    """

    name: str
    title: str
    image_column: str
    text_column: str
    label_column: str
    problem_type: str
    metrics: tuple[str, ...]
    main_metric: str
    licence: str
    redistributable: bool
    where: str
    build_features: "Callable[[], Features]"
    label_names: tuple[str, ...] = ()
    converter: str = ""
    train_split: str = "train"
    validation_split: str = "validation"
    test_split: str = "test"
    image_is_list: bool = False
    rows_per_shard: int = 8192
    default_max_side: int = 512
    citation: str = ""
    known_defects: tuple[str, ...] = ()

    @functools.cached_property
    def features(self) -> "Features":
        """The columns and types of the prepared set."""
        return self.build_features()

    @property
    def num_labels(self) -> int:
        """Number of classes; 1 for regression."""
        return len(self.label_names) or 1

    @property
    def is_demo(self) -> bool:
        return self.name.startswith("demo:")

    @property
    def config_name(self) -> str:
        """`name` in a form that can be a folder and a Hub configuration."""
        return self.name.replace(":", "_")


def list_datasets() -> list[str]:
    """All names that [`get_dataset_spec`] knows, the real sets first."""
    return list(_SPECS)


def get_dataset_spec(name: str) -> DatasetSpec:
    """The spec of a data set by name; `"demo:food"` is a small drawn set with its own label names.

    Raises:
        ValueError: unknown name; the message has the nearest known ones.
    """
    spec = _SPECS.get(name)
    if spec is None:
        close = difflib.get_close_matches(str(name), _SPECS, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(repr(match) for match in close)}? " if close else ""
        raise ValueError(f"Unknown data set {name!r}. {hint}Known: {', '.join(_SPECS)}.")
    return spec


def check_push_allowed(spec: DatasetSpec, private: bool) -> None:
    """Refuses to publish a copy of a set whose terms forbid it.

    Raises:
        PermissionError: the set is not redistributable and `private` is not set.
    """
    if not spec.redistributable and not private:
        raise PermissionError(
            f"{spec.title} may not be redistributed ({spec.licence}). Push it to a private repository (private=True) that "
            "only people who accepted the owner's terms can read, or publish the command that prepares it instead."
        )


# Columns ------------------------------------------------------------------------------------------------------------


def _food101_features(label_names: tuple[str, ...]) -> "Features":
    from datasets import ClassLabel, Features, Image, Value

    return Features(
        {
            "id": Value("string"),
            "image": Image(),
            "text": Value("string"),
            "label": ClassLabel(names=list(label_names)),
            "source": Value("string"),
        }
    )


def _mmimdb_features() -> "Features":
    from datasets import ClassLabel, Features, Image, List, Value

    return Features(
        {
            "id": Value("string"),
            "image": Image(),
            "text": Value("string"),
            "plots": List(Value("string")),
            "genres": List(ClassLabel(names=list(MMIMDB_GENRES))),
            "title": Value("string"),
            "year": Value("int32"),
            "source": Value("string"),
        }
    )


def _snli_ve_features() -> "Features":
    from datasets import ClassLabel, Features, Image, List, Value

    return Features(
        {
            "id": Value("string"),
            "image": Image(),
            "hypothesis": Value("string"),
            "premise": Value("string"),
            "label": ClassLabel(names=list(SNLI_VE_LABELS)),
            "annotator_labels": List(Value("string")),
            "image_id": Value("string"),
            "source": Value("string"),
        }
    )


def _hateful_memes_features() -> "Features":
    return _food101_features(HATEFUL_MEMES_LABELS)


def _mustard_features() -> "Features":
    from datasets import Audio, ClassLabel, Features, Image, List, Value

    return Features(
        {
            "id": Value("string"),
            "utterance": Value("string"),
            "speaker": Value("string"),
            "context": List(Value("string")),
            "context_speakers": List(Value("string")),
            "show": Value("string"),
            "label": ClassLabel(names=list(MUSTARD_LABELS)),
            "frames": List(Image()),
            "audio": Audio(sampling_rate=16000),
            "fold": Value("int8"),
            "source": Value("string"),
        }
    )


def _rus_features() -> "Features":
    from datasets import ClassLabel, Features, Image, Value

    return Features(
        {
            "id": Value("string"),
            "image": Image(),
            "text": Value("string"),
            "label": ClassLabel(names=list(RUS_LABELS)),
            "interaction": ClassLabel(names=list(RUS_INTERACTIONS)),
            "source": Value("string"),
        }
    )


# The sets -----------------------------------------------------------------------------------------------------------

_FOOD101 = DatasetSpec(
    name="food101",
    title="UPMC Food-101",
    image_column="image",
    text_column="text",
    label_column="label",
    problem_type=SINGLE_LABEL,
    metrics=("accuracy", "f1_macro"),
    main_metric="accuracy",
    licence="research use; pictures and titles come from the web, no right to redistribute is stated",
    redistributable=False,
    where="""\
UPMC Food-101: about 90,000 web pictures of 101 dishes with the titles of their pages. This is not ETH Food-101
(Hub id ethz/food101: 101,000 other pictures, no text).
Owner: the VISIIR project of UPMC/LIP6. The usual copy today is the Kaggle data set gianmarco96/upmcfood101.
Terms: research use only; the pictures belong to their authors.
Unpack it, and give the folder that holds one of:
  images/{train,test}/<class>/*.jpg + texts/train_titles.csv + texts/test_titles.csv     (Kaggle; split.json may lie beside)
  images/{train,test}/<class>/*.jpg + class_idx.json + split.json + text.json            (missing-modality work)
  images/{train,test}/<class>/*.jpg + texts_txt/<class>/<id>.txt                         (owner; the text of whole pages)""",
    build_features=functools.partial(_food101_features, FOOD101_CLASSES),
    label_names=FOOD101_CLASSES,
    converter="food101:Food101Converter",
    citation="Wang et al., Recipe recognition with large multimodal food dataset, ICME Workshops 2015",
    known_defects=(
        "Labels come from a web search and are noisy.",
        "Many titles name the class: text alone is strong.",
        "Of the 22,716 test titles 912 are the printed form of a nested list, 3,213 hold HTML entities, 867 byte escapes.",
    ),
)

_MMIMDB = DatasetSpec(
    name="mmimdb",
    title="MM-IMDb",
    image_column="image",
    text_column="text",
    label_column="genres",
    problem_type=MULTI_LABEL,
    metrics=("f1_macro", "f1_micro", "f1_weighted", "f1_samples"),
    main_metric="f1_macro",
    licence="research use; posters are copyrighted and may not be redistributed",
    redistributable=False,
    where="""\
MM-IMDb: 25,959 films with poster, plot and genres. Owner: Arevalo et al. (Gated Multimodal Units); the archive
mmimdb.tar.gz (about 9 GB) is kept as the item "mmimdb" of archive.org.
Terms: research use; the posters are copyrighted.
Unpack it, and give the folder that holds one of:
  mmimdb/split.json + mmimdb/dataset/<seven digits>.json + mmimdb/dataset/<seven digits>.jpeg   (owner)
  split.json + labels/<seven digits>.json + images/<seven digits>.jpeg                          (missing-modality work)
The ready-made multimodal_imdb.hdf5 and metadata.npy are not read: they hold features, not pictures and texts.""",
    build_features=_mmimdb_features,
    label_names=MMIMDB_GENRES,
    converter="mmimdb:MMIMDbConverter",
    citation="Arevalo et al., Gated Multimodal Units for Information Fusion, ICLR Workshops 2017",
    known_defects=(
        "Genres outside the 23 (Adult, News, Talk-Show, Reality-TV) are ignored; a film left with none has no positive label.",
        "The classes are unbalanced by about 40 to 1.",
    ),
)

_SNLI_VE = DatasetSpec(
    name="snli_ve",
    title="SNLI-VE",
    image_column="image",
    text_column="hypothesis",
    label_column="label",
    problem_type=SINGLE_LABEL,
    metrics=("accuracy", "f1_macro"),
    main_metric="accuracy",
    licence="annotations BSD-2-Clause and CC BY-SA 4.0; Flickr30k pictures: non-commercial research, no redistribution",
    redistributable=False,
    where="""\
SNLI-VE: 565,286 pairs of a Flickr30k picture and a sentence. Owner of the pairs: the repository necla-ml/SNLI-VE
(BSD-2-Clause; the sentences are from SNLI, CC BY-SA 4.0). Pictures: Flickr30k, on request from its owners, for
non-commercial research, not to be redistributed.
Give the folder that holds one of:
  snli_ve_{train,dev,test}.jsonl + Flickr30K/flickr30k_images/<id>.jpg    (necla)
  ve_{train,dev,test}.json + flickr30k-images/<id>.jpg                    (ALBEF, LAVIS)""",
    build_features=_snli_ve_features,
    label_names=SNLI_VE_LABELS,
    converter="snli_ve:SnliVeConverter",
    rows_per_shard=4096,
    citation="Xie et al., Visual Entailment: A Novel Task for Fine-Grained Image Understanding, 2019",
    known_defects=(
        "About 9 % of the pairs are labelled wrongly, mostly neutral ones.",
        "The premise (the caption) must not be shown to a model; the hypothesis alone already gives about 67 %.",
    ),
)

_HATEFUL_MEMES = DatasetSpec(
    name="hateful_memes",
    title="Hateful Memes",
    image_column="image",
    text_column="text",
    label_column="label",
    problem_type=SINGLE_LABEL,
    metrics=("auroc", "accuracy"),
    main_metric="auroc",
    licence="Meta research licence (Getty pictures): no redistribution",
    redistributable=False,
    where="""\
Hateful Memes: 12,140 pictures with captions. Owner: Meta AI, by registration (the challenge was held by DrivenData);
a password-protected archive. Terms: research licence, no redistribution.
Unpack it, and give the folder that holds (possibly below data/) one of:
  img/<five digits>.png + train.jsonl dev_seen.jsonl dev_unseen.jsonl test_seen.jsonl test_unseen.jsonl   (phase 2)
  img/<five digits>.png + train.jsonl dev.jsonl test.jsonl                                                (phase 1)""",
    build_features=_hateful_memes_features,
    label_names=HATEFUL_MEMES_LABELS,
    converter="hateful_memes:HatefulMemesConverter",
    rows_per_shard=2048,
    citation="Kiela et al., The Hateful Memes Challenge, NeurIPS 2020",
    known_defects=(
        "By design the same caption occurs with other pictures and the same picture with other captions.",
        "dev_seen and dev_unseen overlap. Labels of the training part are noisy by the owners' account.",
    ),
)

_MUSTARD = DatasetSpec(
    name="mustard",
    title="MUStARD",
    image_column="frames",
    text_column="utterance",
    label_column="label",
    problem_type=SINGLE_LABEL,
    metrics=("f1_weighted", "accuracy", "f1_macro"),
    main_metric="f1_weighted",
    licence="MIT (annotations); the clips are excerpts of television shows",
    redistributable=False,
    where="""\
MUStARD: 690 utterances of television shows with their dialogue, sarcastic or not. Owner: github.com/soujanyaporia/MUStARD
(annotations, MIT) and the Hub data set MichiganNLP/MUStARD (mmsd_raw_data.zip, 1.4 GB of clips).
Give the folder that holds
  sarcasm_data.json + frames/<id>/00001.jpg ...    (frames cut from utterances_final/<id>.mp4)
and, for the splits fold0 .. fold4, split_indices.p or split_indices.json; for the split mmoe, mustard_types.csv.
To cut frames: ffmpeg -i utterances_final/1_60.mp4 -vf fps=2,scale=256:-2 frames/1_60/%05d.jpg (for each clip).""",
    build_features=_mustard_features,
    label_names=MUSTARD_LABELS,
    converter="mustard:MustardConverter",
    image_is_list=True,
    rows_per_shard=512,
    default_max_side=256,
    citation="Castro et al., Towards Multimodal Sarcasm Detection (An _Obviously_ Perfect Paper), ACL 2019",
    known_defects=(
        "Speaker names leak the label: report results with and without them.",
        "The split mope_code is not independent of speakers.",
    ),
)

_RUS = DatasetSpec(
    name="rus",
    title="R/U/S: drawn data with known redundancy, uniqueness and synergy",
    image_column="image",
    text_column="text",
    label_column="label",
    problem_type=SINGLE_LABEL,
    metrics=("accuracy", "f1_macro"),
    main_metric="accuracy",
    licence="emoji drawings: Apache-2.0 (Noto) and CC-BY 4.0 (Twemoji)",
    redistributable=True,
    where="""\
RUS is drawn by this package: load_fusion_dataset("demo:rus"). A tree on disk looks like
  rus/train.jsonl rus/validation.jsonl rus/test.jsonl + rus/img/*.png
with records {"id", "img", "text", "label", "interaction"}.""",
    build_features=_rus_features,
    label_names=RUS_LABELS,
    converter="rus:RusConverter",
    known_defects=("Drawn, not observed: it shows what a method can do, not how it does on real data.",),
)


def _demo(spec: DatasetSpec, short: str, subject: str, **changes) -> DatasetSpec:
    return dataclasses.replace(
        spec,
        name=f"demo:{short}",
        title=f"{spec.title}, drawn stand-in",
        licence="emoji drawings: Apache-2.0 (Noto) and CC-BY 4.0 (Twemoji)",
        redistributable=True,
        where=f'This set is drawn by the package itself: load_fusion_dataset("demo:{short}").',
        rows_per_shard=2048,
        citation="",
        known_defects=(f"Drawn from emoji, {subject}: results on it say nothing about {spec.title} itself.",),
        **changes,
    )


_SPECS: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        _FOOD101,
        _MMIMDB,
        _SNLI_VE,
        _HATEFUL_MEMES,
        _MUSTARD,
        _RUS,
        _demo(
            _FOOD101,
            "food",
            "one emoji and a page title per sample, 20 classes",
            build_features=functools.partial(_food101_features, DEMO_FOOD_CLASSES),
            label_names=DEMO_FOOD_CLASSES,
        ),
        _demo(_MMIMDB, "imdb", "a poster of two emoji and a plot per sample, 23 genres"),
        _demo(_SNLI_VE, "ve", "two emoji and a statement about them per sample"),
        _demo(_HATEFUL_MEMES, "memes", "a face and a caption whose moods agree or not"),
        _demo(_MUSTARD, "mustard", "synthetic clips of drawn faces beside the real utterances and labels"),
        _demo(_RUS, "rus", "an animal or fruit and a word per sample"),
    )
}
