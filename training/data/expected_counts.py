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
"""How many records each split of a data set should have.

`verified` says whether the number was counted or stands on the owner's page; a difference from an unverified number
is only mentioned, a difference from a verified one means that the raw tree is incomplete (or a new edition).
"""

from typing import NamedTuple


class Expected(NamedTuple):
    rows: int
    verified: bool


def _splits(verified: bool, **rows: int) -> dict[str, Expected]:
    return {split: Expected(count, verified) for split, count in rows.items()}


# (data set, edition) -> split -> count. An edition is what a converter's `edition` says about the recognised tree.
EXPECTED: dict[tuple[str, str], dict[str, Expected]] = {
    ("food101", "split.json"): _splits(True, train=61142, validation=6846, test=22716),
    ("food101", "titles"): _splits(True, train=67988, test=22716),  # no validation split made
    ("food101", "titles, validation by hash"): _splits(True, test=22716),
    ("mmimdb", "owner"): _splits(True, train=15552, validation=2608, test=7799),
    ("snli_ve", "necla"): _splits(True, train=529527, validation=17858, test=17901),
    ("snli_ve", "albef"): _splits(True, train=529527, validation=17858, test=17901),
    ("hateful_memes", "phase2"): _splits(
        True, train=8500, dev_seen=500, dev_unseen=540, test_seen=1000, test_unseen=2000
    ),
    ("hateful_memes", "phase1"): _splits(True, train=8500, dev_seen=500, test_seen=1000),
    ("mustard", "all"): _splits(True, all=690),
    ("mustard", "speaker_independent"): _splits(True, train=334, test=356),
    ("mustard", "speaker_independent_val"): _splits(True, test=356),
    ("mustard", "mmoe"): _splits(True, train=251, validation=83, test=356),
    ("mustard", "mope_code"): _splits(True, train=334, test=356),
    **{("mustard", f"fold{k}"): _splits(True, train=552, test=138) for k in range(5)},
}


def expected_rows(dataset: str, edition: str) -> dict[str, Expected]:
    """The table of one edition; empty where nothing is known (the demos, the user's own data)."""
    return EXPECTED.get((dataset, edition), {})
