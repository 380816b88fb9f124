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
"""SNLI-VE: does a picture entail, contradict or leave open a sentence? From the necla JSON-lines or the ALBEF JSON files.

The hypothesis is `sentence2`. The premise (`sentence1`, the caption of the picture) is stored but never given to a model.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from .conversion import Converter, Entry, Layout, Option, RowBuilder, SkipRecord
from .label_names import SNLI_VE_LABELS, SNLI_VE_LABELS_LAVIS
from .raw_files import iter_json_array, iter_json_lines


_SPLIT_FILES = {"train": "train", "validation": "dev", "test": "test"}
_NECLA_IMAGES = "Flickr30K/flickr30k_images"
_LABEL_ORDERS = {"ours": SNLI_VE_LABELS, "lavis": SNLI_VE_LABELS_LAVIS}


class SnliVeConverter(Converter):
    """See the module's text."""

    LAYOUTS = (
        Layout("necla", ("snli_ve_train.jsonl", "snli_ve_dev.jsonl", "snli_ve_test.jsonl", _NECLA_IMAGES), "necla"),
        Layout("albef", ("ve_train.json", "ve_dev.json", "ve_test.json", "flickr30k-images"), "albef"),
    )
    OPTIONS = {
        "label_order": Option(
            None, (None, *_LABEL_ORDERS), "what numeric labels mean; without it only label names are accepted"
        )
    }

    def splits(self) -> Sequence[str]:
        return tuple(_SPLIT_FILES)

    def entries(self, split: str) -> Iterator[Entry]:
        """Entries with data [image path, hypothesis, premise, label, annotator labels]; repeated ids get `#1`, `#2`, ..."""
        seen: Counter[str] = Counter()
        for entry in self._necla(split) if self.layout.name == "necla" else self._albef(split):
            count = seen[entry.id]
            seen[entry.id] += 1
            yield entry._replace(id=f"{entry.id}#{count}") if count else entry

    def build(self, entry: Entry, split: str, row: RowBuilder) -> dict[str, Any]:
        path, hypothesis, premise, raw_label, annotators = entry.data
        if raw_label in (None, "", "-"):
            raise SkipRecord("gold_missing")
        label = self._label(raw_label)
        cleaned = row.text(hypothesis, main=True)
        raw_text = row.raw_text
        if not cleaned:
            raise SkipRecord("text_empty")
        labels = [row.text(name) for name in annotators] if isinstance(annotators, list) else []
        image = row.image(path)
        built = {
            "image": image,
            "hypothesis": cleaned,
            "premise": row.text(premise),
            "label": label,
            "annotator_labels": labels,
            "image_id": path.rpartition("/")[2].rpartition(".")[0],
            "source": path,
        }
        row.raw_text = raw_text
        return built

    def _necla(self, split: str) -> Iterator[Entry]:
        file = f"snli_ve_{_SPLIT_FILES[split]}.jsonl"
        for line in iter_json_lines(self.file(file)):
            record = line.value
            if record is None:
                yield Entry(f"{file}:{line.number}", None, "line_malformed")
                continue
            pair = str(record.get("pairID") or f"{file}:{line.number}")
            picture = str(record.get("Flickr30K_ID") or pair.partition(".jpg")[0])
            picture = picture.removesuffix(".jpg")
            yield Entry(
                pair,
                [
                    f"{_NECLA_IMAGES}/{picture}.jpg",
                    record.get("sentence2"),
                    record.get("sentence1"),
                    record.get("gold_label"),
                    record.get("annotator_labels"),
                ],
            )

    def _albef(self, split: str) -> Iterator[Entry]:
        file = f"ve_{_SPLIT_FILES[split]}.json"
        for number, record in enumerate(iter_json_array(self.file(file))):
            image = record.get("image") if isinstance(record, dict) else None
            if not isinstance(image, str):
                yield Entry(f"{file}:{number}", None, "line_malformed")
                continue
            name = image.rpartition("/")[2].rpartition(".")[0]
            yield Entry(f"{split}-{number}-{name}", [image, record.get("sentence"), None, record.get("label"), None])

    def _label(self, raw: object) -> int:
        order = self.extra["label_order"]
        if order is not None and isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw < 3:
            raw = _LABEL_ORDERS[order][raw]
        label = self.label_ids.get(raw.strip().lower()) if isinstance(raw, str) else None
        if label is None:
            raise SkipRecord("label_unknown")
        return label
