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
"""A zoo of multimodal fusion methods on the Hugging Face stack.

`import fusionzoo` is cheap: every public name is imported when it is first used. Importing the package also
arranges that transformers' Auto classes know our models (see `fusionzoo.auto`), as soon as transformers is loaded.
"""

import importlib
import importlib.util
import sys
from pathlib import Path as _Path
from typing import TYPE_CHECKING, Any


__version__ = "0.1.0"

# In a checkout (or an unpacked sdist) the parts lie beside this folder; in a wheel they lie inside it.
_root = _Path(__file__).resolve().parent.parent
if (_root / "setup.py").is_file() and (_root / "modeling").is_dir():
    __path__.append(str(_root))

_PUBLIC_NAMES = {
    "configuration.configuration_mope": ("MopeConfig",),
    "modeling.modeling_mope": ("MopeForSequenceClassification", "MopeModel"),
    "modeling.missing_modality": ("MissingType",),
    "processing.processing_mope": ("MopeProcessor",),
    "training.data.loading": ("load_fusion_dataset",),
    "training.data.missing_simulation": ("MissingModality",),
    "training.trainer": ("FusionTrainer",),
    "training.collation": ("FusionCollator",),
}
_MODULE_OF = {name: module for module, names in _PUBLIC_NAMES.items() for name in names}

__all__ = ["__version__", *sorted(_MODULE_OF)]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'fusionzoo' has no attribute {name!r}; public names: {', '.join(__all__)}.")
    value = getattr(importlib.import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _RegisterAfterTransformers:
    """Registers our classes once transformers' Auto classes are imported, so that `import fusionzoo` needs no torch.

    A meta-path finder that finds nothing itself: it lets the normal machinery load `modeling_auto` and appends the
    registration to that module's execution.
    """

    _target = "transformers.models.auto.modeling_auto"

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname != self._target:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        run_module = spec.loader.exec_module

        def run_and_register(module: Any) -> None:
            run_module(module)
            importlib.import_module(".auto", __name__).register()

        spec.loader.exec_module = run_and_register  # type: ignore[method-assign]
        return spec


if _RegisterAfterTransformers._target in sys.modules:
    importlib.import_module(".auto", __name__).register()
else:
    sys.meta_path.insert(0, _RegisterAfterTransformers())

if TYPE_CHECKING:
    from .configuration.configuration_mope import MopeConfig as MopeConfig
    from .modeling.missing_modality import MissingType as MissingType
    from .modeling.modeling_mope import MopeForSequenceClassification as MopeForSequenceClassification
    from .modeling.modeling_mope import MopeModel as MopeModel
    from .processing.processing_mope import MopeProcessor as MopeProcessor
    from .training.collation import FusionCollator as FusionCollator
    from .training.data.loading import load_fusion_dataset as load_fusion_dataset
    from .training.data.missing_simulation import MissingModality as MissingModality
    from .training.trainer import FusionTrainer as FusionTrainer
