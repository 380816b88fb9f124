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
"""The R/U/S set: JSON lines `{"id", "img", "text", "label", "interaction"}` with pictures beside them.

It is drawn, so its owner is this package; the raw tree exists so that the set goes the same way as all others.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from .conversion import Converter, Entry, Layout, RowBuilder, SkipRecord
from .label_names import RUS_INTERACTIONS
from .raw_files import iter_json_lines


class RusConverter(Converter):
    """See the module's text."""

    LAYOUTS = (Layout("rus", ("train.jsonl", "validation.jsonl", "test.jsonl", "img")),)

    def splits(self) -> Sequence[str]:
        return ("train", "validation", "test")

    def entries(self, split: str) -> Iterator[Entry]:
        file = f"{split}.jsonl"
        for line in iter_json_lines(self.file(file)):
            record = line.value
            if record is None:
                yield Entry(f"{file}:{line.number}", None, "line_malformed")
                continue
            data = [record.get("img"), record.get("text"), record.get("label"), record.get("interaction")]
            yield Entry(str(record.get("id", f"{file}:{line.number}")), data)

    def build(self, entry: Entry, split: str, row: RowBuilder) -> dict[str, Any]:
        image, text, label, interaction = entry.data
        if isinstance(label, (bool, float)) or label not in (0, 1) or interaction not in RUS_INTERACTIONS:
            raise SkipRecord("label_unknown")
        if not isinstance(image, str):
            raise SkipRecord("image_missing")
        stored = row.image(image)
        cleaned = row.text(text, main=True)
        if not cleaned:
            raise SkipRecord("text_empty")
        return {
            "image": stored,
            "text": cleaned,
            "label": label,
            "interaction": RUS_INTERACTIONS.index(interaction),
            "source": image,
        }
