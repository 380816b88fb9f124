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
"""Fidelity: our models, built by the public converters, against numbers produced by the official code.

One test per case folder `<root>/<method>/<case>/`. The kinds of cases are dispatched to `golden_<method>.KINDS`; a
kind that is not known there fails. A baseline's cases may lie with those of the method it is compared with.
"""

import importlib
import json

import pytest
from case_files import SHARED, Case, roots

from fusionzoo.auto import METHODS, TUNERS


CASES_LIE_WITH = {"mmp": "dcp"}
FOLDERS = sorted({CASES_LIE_WITH.get(method, method) for method in (*METHODS, *TUNERS)})


def _case_folders() -> list:
    found = []
    for root in roots():
        for method in FOLDERS:
            for folder in sorted((root / method).glob("*/config.json")):
                where = "own" if root.name == "cases" else "shared"
                found.append(pytest.param(method, folder.parent, id=f"{method}-{folder.parent.name}-{where}"))
    return found


@pytest.mark.parametrize(("method", "folder"), _case_folders())
def test_golden(method, folder, record_property):
    case = Case(folder)
    kinds = importlib.import_module(f"golden_{method}").KINDS
    kind = case.config["kind"]
    assert kind in kinds, f"{folder}: no comparison for kind {kind!r}; known kinds of {method}: {sorted(kinds)}"
    kinds[kind](case)
    case.finish()
    worst = max(case.worst, key=case.worst.get)
    record_property("largest difference", f"{case.worst[worst]:.1e} ({worst})")
    print(
        f"{method}/{folder.name}: {len(case.worst)} quantities, largest difference {case.worst[worst]:.1e} ({worst})"
    )


def test_every_method_has_cases():
    """Where the shared cases stand beside the checkout, each method must have some: none is a failure, not a skip."""
    for method in (*METHODS, *TUNERS):
        for root in roots():
            folder = root / CASES_LIE_WITH.get(method, method)
            cases = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*/config.json")]
            if method in CASES_LIE_WITH:
                cases = [case for case in cases if case["kind"].startswith(method)]
            assert cases, f"{folder} holds no golden case of {method}"
    if SHARED.parent.is_dir():
        assert SHARED.is_dir()
