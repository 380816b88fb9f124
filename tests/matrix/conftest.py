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
"""Every test that takes a `row` runs on every row of the matrix."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures_tiny import tiny_image_processor, tiny_text_config, tiny_tokenizer, tiny_vision_config
from rows import ROWS
from transformers import AutoConfig, AutoModel


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "row" not in metafunc.fixturenames:
        return
    chosen, quick = ROWS, None
    for mark in metafunc.definition.iter_markers():
        if mark.name == "rows":
            chosen = [row for row in ROWS if row.name in mark.args]
            assert len(chosen) == len(mark.args), f"unknown rows among {mark.args}"
        if mark.name == "quick_rows":
            quick = mark.args
    if "slim" in metafunc.fixturenames:  # trained towers are always part of the file
        chosen = [row for row in chosen if row.frozen]
    if {"slim", "tower_folders"} & set(metafunc.fixturenames):
        chosen = [row for row in chosen if row.towers is not None]
    slow = [row for row in chosen if quick is not None and row.name not in quick]
    metafunc.parametrize(
        "row", [pytest.param(row, id=row.name, marks=[pytest.mark.slow] if row in slow else []) for row in chosen]
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "rows(*names): run a check of the matrix on these rows only")
    config.addinivalue_line("markers", "quick_rows(*names): the other rows of this check are slow")


@pytest.fixture(scope="session")
def tower_folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`tower_folders(row)` gives the folders of the row's pretrained towers, each written once."""
    written: dict[tuple[str, str], Path] = {}

    def write(part: str, kind: str) -> Path:
        if (part, kind) not in written:
            torch.manual_seed(7)
            folder = written[part, kind] = tmp_path_factory.mktemp(f"{part}-{kind}")
            config = tiny_vision_config(kind) if part == "vision" else tiny_text_config(kind)
            AutoModel.from_config(AutoConfig.for_model(**config)).save_pretrained(folder)
            (tiny_image_processor() if part == "vision" else tiny_tokenizer(kind)).save_pretrained(folder)
        return written[part, kind]

    return lambda row: {
        part: write(part, kind)
        for part, kind, modality in zip(("vision", "text"), row.towers, ("image", "text"))
        if modality in row.modalities
    }


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
