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
"""Hateful Memes: pictures with captions, from the JSON-lines files of phase 1 or phase 2.

`img` says where the picture is; the id is made five digits. Stored splits keep the owners' names (`dev_seen`, `dev_unseen`,
...); loaded, `validation` and `test` are the seen or the unseen ones, as the option `eval` said. Hidden labels are -1.
"""

import posixpath
from collections.abc import Iterator, Sequence
from typing import Any

from .conversion import Converter, Entry, Layout, Option, RowBuilder, SkipRecord
from .raw_files import iter_json_lines


_PHASE_2 = ("train", "dev_seen", "dev_unseen", "test_seen", "test_unseen")
_PHASE_1_FILES = {"train": "train", "dev_seen": "dev", "test_seen": "test"}


class HatefulMemesConverter(Converter):
    """See the module's text."""

    LAYOUTS = (
        Layout("phase2", ("img", "train.jsonl", "dev_seen.jsonl|dev_unseen.jsonl"), "phase2"),
        Layout("phase1", ("img", "train.jsonl", "dev.jsonl"), "phase1"),
    )
    OPTIONS = {"eval": Option("seen", ("seen", "unseen"), "which dev and test parts load as validation and test")}
    IDS_ARE_UNIQUE = False  # dev_seen and dev_unseen overlap

    def scan(self) -> None:
        self._files = {split: f"{file}.jsonl" for split, file in self._split_files() if self.has(f"{file}.jsonl")}
        absent = [split for split, _ in self._split_files() if split not in self._files]
        if absent:
            self.warn(f"The tree has no {', '.join(absent)}.")
        for wanted in self.split_aliases().values():
            if wanted not in self._files:
                self.warn(f"eval={self.extra['eval']!r} asks for {wanted}, which this tree does not have.")

    def splits(self) -> Sequence[str]:
        return tuple(self._files)

    def split_aliases(self) -> dict[str, str]:
        return {"validation": f"dev_{self.extra['eval']}", "test": f"test_{self.extra['eval']}"}

    def entries(self, split: str) -> Iterator[Entry]:
        file = self._files[split]
        for line in iter_json_lines(self.file(file)):
            record = line.value
            if record is None:
                yield Entry(f"{file}:{line.number}", None, "line_malformed")
                continue
            data = [record.get("img"), record.get("text"), record.get("label")]
            yield Entry(_five_digits(record.get("id", f"{file}:{line.number}")), data)

    def build(self, entry: Entry, split: str, row: RowBuilder) -> dict[str, Any]:
        image, text, label = entry.data
        if label is None:
            label = -1
        elif isinstance(label, (bool, float)) or label not in (0, 1, "0", "1"):
            raise SkipRecord("label_not_binary")
        if not isinstance(image, str):
            raise SkipRecord("image_missing")
        stored = row.image(image)
        if _five_digits(posixpath.splitext(posixpath.basename(image.replace("\\", "/")))[0]) != entry.id:
            row.warnings.append("The id of a record and the name of its picture disagree.")
        cleaned = row.text(text, main=True)
        if not cleaned:
            raise SkipRecord("text_empty")
        return {"image": stored, "text": cleaned, "label": int(label), "source": image.replace("\\", "/")}

    def _split_files(self) -> list[tuple[str, str]]:
        if self.layout.name == "phase1":
            return list(_PHASE_1_FILES.items())
        return [(split, split) for split in _PHASE_2]


def _five_digits(value: object) -> str:
    text = str(value)
    return text.zfill(5) if text.isdigit() else text
