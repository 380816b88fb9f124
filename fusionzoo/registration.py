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
"""Lets `import fusionzoo` register our models and our PEFT tuner without importing torch.

transformers has no plug-in entry point, and importing its Auto classes takes seconds. Its look-up tables keep
registered extras in a dict; we put in its place one that calls `fusionzoo.auto.register` when one of our names is
looked up for the first time. The tables are reached when transformers itself first imports them. PEFT's tables are
plain dicts that are filled as soon as PEFT has been imported.
"""

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


MODEL_TYPE_PREFIX = "fz_"
_TABLES = {
    "transformers.models.auto.configuration_auto": ("CONFIG_MAPPING",),
    "transformers.models.auto.modeling_auto": ("MODEL_MAPPING", "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING"),
    "transformers.models.auto.processing_auto": ("PROCESSOR_MAPPING",),
}
_TUNER_LIBRARY = "peft"


class _PendingEntries(dict):
    """The extras of one look-up table; fills every table when one of our entries may be asked for."""

    filled = False

    def _fill(self) -> None:
        if not _PendingEntries.filled:
            _PendingEntries.filled = True
            importlib.import_module("fusionzoo.auto").register()

    def __contains__(self, key: object) -> bool:
        model_type = key if isinstance(key, str) else getattr(key, "model_type", "")
        if model_type.startswith(MODEL_TYPE_PREFIX):
            self._fill()
        return super().__contains__(key)

    def keys(self) -> Any:
        self._fill()
        return super().keys()

    def values(self) -> Any:
        self._fill()
        return super().values()

    def items(self) -> Any:
        self._fill()
        return super().items()


def _attach(module: ModuleType) -> None:
    if module.__name__ == _TUNER_LIBRARY:
        importlib.import_module("fusionzoo.auto").register_tuners()
        return
    for table in _TABLES[module.__name__]:
        mapping = getattr(module, table)
        mapping._extra_content = _PendingEntries(mapping._extra_content)


class _AttachAfterImport:
    """A meta-path finder that finds nothing itself; it attaches the pending entries once a table's module has run."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname not in (*_TABLES, _TUNER_LIBRARY):
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            run_module = spec.loader.exec_module

            def run_and_attach(module: ModuleType) -> None:
                run_module(module)
                _attach(module)

            spec.loader.exec_module = run_and_attach  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Arranges the registration, whether or not transformers and PEFT are already imported."""
    if not any(isinstance(finder, _AttachAfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AttachAfterImport())
    for name in (*_TABLES, _TUNER_LIBRARY):
        if name in sys.modules:
            _attach(sys.modules[name])
