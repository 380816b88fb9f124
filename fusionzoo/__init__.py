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

`import fusionzoo` is cheap: every public name is imported when it is first used. Importing the package also makes
our models known to transformers' Auto classes and our tuner to PEFT (see `fusionzoo.registration`).
"""

import importlib
from pathlib import Path as _Path
from typing import TYPE_CHECKING, Any

from .registration import install as _install_registration


__version__ = "0.1.0"

# In a checkout (or an unpacked sdist) the parts lie beside this folder; in a wheel they lie inside it.
_root = _Path(__file__).resolve().parent.parent
if (_root / "setup.py").is_file() and (_root / "modeling").is_dir():
    __path__.append(str(_root))

_PUBLIC_NAMES = {
    "configuration.configuration_dcp": ("DcpConfig",),
    "configuration.configuration_mixlora": ("MixLoraConfig",),
    "configuration.configuration_mmp": ("MmpConfig",),
    "configuration.configuration_mope": ("MopeConfig",),
    "modeling.modeling_dcp": ("DcpForSequenceClassification", "DcpModel"),
    "modeling.modeling_mmp": ("MmpForSequenceClassification", "MmpModel"),
    "modeling.modeling_mope": ("MopeForSequenceClassification", "MopeModel"),
    "modeling.missing_modality": ("MissingType",),
    "processing.processing_dcp": ("DcpProcessor",),
    "processing.processing_mmp": ("MmpProcessor",),
    "processing.processing_mope": ("MopeProcessor",),
    "training.data.loading": ("load_fusion_dataset",),
    "training.data.registry": ("get_dataset_spec",),
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


_install_registration()

if TYPE_CHECKING:
    from .configuration.configuration_dcp import DcpConfig as DcpConfig
    from .configuration.configuration_mixlora import MixLoraConfig as MixLoraConfig
    from .configuration.configuration_mmp import MmpConfig as MmpConfig
    from .configuration.configuration_mope import MopeConfig as MopeConfig
    from .modeling.missing_modality import MissingType as MissingType
    from .modeling.modeling_dcp import DcpForSequenceClassification as DcpForSequenceClassification
    from .modeling.modeling_dcp import DcpModel as DcpModel
    from .modeling.modeling_mmp import MmpForSequenceClassification as MmpForSequenceClassification
    from .modeling.modeling_mmp import MmpModel as MmpModel
    from .modeling.modeling_mope import MopeForSequenceClassification as MopeForSequenceClassification
    from .modeling.modeling_mope import MopeModel as MopeModel
    from .processing.processing_dcp import DcpProcessor as DcpProcessor
    from .processing.processing_mmp import MmpProcessor as MmpProcessor
    from .processing.processing_mope import MopeProcessor as MopeProcessor
    from .training.collation import FusionCollator as FusionCollator
    from .training.data.loading import load_fusion_dataset as load_fusion_dataset
    from .training.data.missing_simulation import MissingModality as MissingModality
    from .training.data.registry import get_dataset_spec as get_dataset_spec
    from .training.trainer import FusionTrainer as FusionTrainer
