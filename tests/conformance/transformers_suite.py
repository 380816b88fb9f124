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
"""transformers' own test mixins, taken from the sdist of the installed version.

The wheel leaves the tests out, so `load_suite()` asks pip for the sdist once (a few seconds), puts the `test_*.py` files
of its `tests` folder into a package in a cache folder, adds empty stand-ins for the few modules that the sdist lacks,
and imports it from there. Nothing of transformers' code is kept in this repository.

The cache is `~/.cache/fusionzoo/conformance` or what the environment variable `FUSIONZOO_CONFORMANCE_CACHE` says.
Without a network, put `transformers-<version>.tar.gz` there yourself.
"""

import importlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import transformers


# What the sdist's modules import although the sdist does not hold it.
STAND_INS = {
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
    "distributed_testing_utils.py": "def run_distributed(*args, **kwargs):\n    raise NotImplementedError\n",
    "fetch_hub_objects_for_ci.py": "def url_to_local_path(url, return_url_if_not_found=True):\n    return url\n",
}
NEEDED = ("test_modeling_common", "test_configuration_common", "test_processing_common")
COMPLETE = ".complete"


@dataclass(frozen=True)
class Suite:
    """The modules of the installed version that hold the mixins."""

    modeling: ModuleType
    configuration: ModuleType
    processing: ModuleType


@dataclass(frozen=True)
class Exclusion:
    """A test of the suite that is not run.

    Attributes:
        test: its name, or a prefix that ends in `*`.
        reason: why it cannot apply.
    """

    test: str
    reason: str

    def matches(self, name: str) -> bool:
        return name.startswith(self.test[:-1]) if self.test.endswith("*") else name == self.test


def load_suite() -> Suite:
    """Imports the suite of the installed transformers, downloading its sdist if it is not in the cache."""
    version = transformers.__version__
    cache = Path(os.environ.get("FUSIONZOO_CONFORMANCE_CACHE") or Path.home() / ".cache" / "fusionzoo" / "conformance")
    package = "hf_suite_" + "".join(letter if letter.isalnum() else "_" for letter in version)
    if not (cache / package / COMPLETE).is_file():
        unpack_suite(_sdist(version, cache), cache / package)
    for folder in (cache, cache / package):  # the second for `fetch_hub_objects_for_ci`, a top-level module there
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    return Suite(*(importlib.import_module(f"{package}.{name}") for name in NEEDED))


def unpack_suite(sdist: Path, target: Path) -> None:
    """Writes the `tests/*.py` of `sdist` and the stand-ins to `target` as a package; complete or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    try:
        with tarfile.open(sdist) as archive:
            for member in archive.getmembers():
                parts = PurePosixPath(member.name).parts
                if member.isfile() and len(parts) == 3 and parts[1] == "tests" and parts[2].endswith(".py"):
                    stream = archive.extractfile(member)
                    if stream is not None:
                        (work / parts[2]).write_bytes(stream.read())
        for name in NEEDED:
            if not (work / f"{name}.py").is_file():
                raise RuntimeError(f"{sdist} holds no tests/{name}.py; is it an sdist of transformers?")
        for name, content in STAND_INS.items():
            path = work / name
            path.parent.mkdir(exist_ok=True)
            if not path.exists():
                path.write_text(content, encoding="utf-8")
        for folder in (work, *(path for path in work.iterdir() if path.is_dir())):
            (folder / "__init__.py").touch()
        (work / COMPLETE).touch()
        shutil.rmtree(target, ignore_errors=True)
        work.replace(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _sdist(version: str, cache: Path) -> Path:
    name = f"transformers-{version}.tar.gz"
    if (cache / name).is_file():
        return cache / name
    cache.mkdir(parents=True, exist_ok=True)
    errors = []
    for pip in _pips():
        command = [*pip, "download", "--no-deps", "--no-binary", "transformers", f"transformers=={version}"]
        done = subprocess.run([*command, "--dest", str(cache)], capture_output=True, text=True, check=False)
        if done.returncode == 0 and (cache / name).is_file():
            return cache / name
        errors.append(f"{' '.join(command)}\n{done.stderr.strip()[-800:]}")
    raise RuntimeError(
        f"The sdist of transformers {version} could not be downloaded; put {name} into {cache}, or name a folder that "
        "holds it in FUSIONZOO_CONFORMANCE_CACHE.\n" + ("\n".join(errors) or "No pip was found.")
    )


def _pips() -> list[list[str]]:
    """Ways to call pip: this interpreter's, its base interpreter's, the one on the PATH."""
    pips = []
    for python in dict.fromkeys([sys.executable, getattr(sys, "_base_executable", None)]):
        probe = [python, "-c", "import pip"]
        if python and subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            pips.append([python, "-m", "pip"])
    return pips + [[path] for path in (shutil.which("pip"), shutil.which("pip3")) if path]


def know_model(suite: Suite, model_type: str, base: type, classifier: type) -> None:
    """Makes the suite give our classifier labels and train it.

    It looks class names up in transformers' static tables, which `register()` does not touch; they are replaced by
    extended copies in the suite's own namespace only.
    """
    tables = {"MODEL_MAPPING_NAMES": base, "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES": classifier}
    for table, model_class in tables.items():
        setattr(suite.modeling, table, {**getattr(suite.modeling, table), model_type: model_class.__name__})


def exclude(*exclusions: Exclusion) -> Callable[[type], type]:
    """Class decorator: the tests that match are skipped with their reason. An exclusion that matches nothing is an error
    at run time (`test_every_exclusion_is_needed`), so that the table cannot go stale."""

    def decorate(test_class: type) -> type:
        names = [name for name in dir(test_class) if name.startswith("test_")]
        stale = [item.test for item in exclusions if not any(item.matches(name) for name in names)]
        for name in names:
            for item in exclusions:
                if item.matches(name):
                    setattr(test_class, name, unittest.skip(f"excluded: {item.reason}")(_empty_test))

        def test_every_exclusion_is_needed(self: unittest.TestCase) -> None:
            assert not stale, f"these exclusions match no test of the installed suite: {stale}"

        test_class.test_every_exclusion_is_needed = test_every_exclusion_is_needed  # type: ignore[attr-defined]
        return test_class

    return decorate


def keep_only(prefix: str) -> Callable[[type], type]:
    """Class decorator: of the inherited tests, those with this prefix stay; the others run in another class."""

    def decorate(test_class: type) -> type:
        names = [name for name in dir(test_class) if name.startswith("test_")]
        if not any(name.startswith(prefix) for name in names):
            raise ValueError(f"{test_class.__name__} has no test {prefix}*")
        for name in names:
            if not name.startswith(prefix):
                setattr(test_class, name, None)
        return test_class

    return decorate


def _empty_test(self: Any) -> None:
    pass
