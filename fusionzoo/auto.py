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
"""Registration with transformers' Auto classes and with PEFT: one row per method.

transformers offers no plug-in entry point, so `import fusionzoo` calls `register()` (as soon as transformers' Auto
classes are loaded). After that `AutoConfig`, `AutoModel`, `AutoModelForSequenceClassification` and `AutoProcessor`
resolve our `model_type`s from folders and from the Hub. `register_tuners()` does the like for PEFT.
"""

import importlib
import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Method:
    """Where a method's classes live. `title` and `paper` (arXiv id) are shown by `fusionzoo list`."""

    name: str
    title: str
    paper: str
    prefix: str
    tasks: tuple[str, ...] = ("SequenceClassification",)

    def _load(self, part: str, class_name: str) -> Any:
        module = importlib.import_module(f".{part}.{part}_{self.name}", "fusionzoo")
        return getattr(module, class_name)

    @property
    def config_class(self) -> Any:
        return self._load("configuration", f"{self.prefix}Config")

    @property
    def model_class(self) -> Any:
        return self._load("modeling", f"{self.prefix}Model")

    def task_class(self, task: str = "SequenceClassification") -> Any:
        return self._load("modeling", f"{self.prefix}For{task}")

    @property
    def processor_class(self) -> Any:
        return self._load("processing", f"{self.prefix}Processor")


@dataclass(frozen=True)
class Tuner:
    """A method that adapts any model through PEFT.

    `configuration_<name>` puts its configuration into PEFT's tables when it is imported, `tuner_<name>` its tuner.
    """

    name: str
    title: str
    paper: str

    def register(self) -> None:
        """Imports both, unless one of the method's modules is just being imported (and pulled PEFT in): then the
        configuration registers itself, and the tuner when a configuration is first made."""
        own = [name for name in sys.modules if name.startswith("fusionzoo.") and self.name in name]
        if not any(getattr(sys.modules[name].__spec__, "_initializing", False) for name in own):
            importlib.import_module(f".modeling.tuner_{self.name}", "fusionzoo")


TUNERS: dict[str, Tuner] = {
    "mixlora": Tuner("mixlora", "Conditional Mixture of LoRA", "2402.15896"),
}
METHODS: dict[str, Method] = {
    "dcp": Method("dcp", "Deep Correlated Prompting", "2410.06558", "Dcp"),
    "mmp": Method("mmp", "Missing-aware Prompts", "2303.03369", "Mmp"),
    "mope": Method("mope", "Mixture of Prompt Experts", "2403.10568", "Mope"),
}


def get_method(name: str) -> Method:
    """The method called `name`. Raises `ValueError` naming the known ones."""
    if name not in METHODS:
        raise ValueError(f"Unknown method {name!r}; the zoo has: {', '.join(sorted(METHODS))}.")
    return METHODS[name]


def register() -> None:
    """Registers every method with the Auto classes. Calling it again changes nothing."""
    from transformers import AutoConfig, AutoModel, AutoProcessor
    from transformers.models.auto import modeling_auto

    for method in METHODS.values():
        config_class = method.config_class
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
        AutoModel.register(config_class, method.model_class, exist_ok=True)
        for task in method.tasks:
            auto_class = getattr(modeling_auto, f"AutoModelFor{task}")
            auto_class.register(config_class, method.task_class(task), exist_ok=True)
        AutoProcessor.register(config_class, method.processor_class, exist_ok=True)


def register_tuners() -> None:
    """Makes every tuner known to PEFT. Calling it again changes nothing."""
    for tuner in TUNERS.values():
        tuner.register()
