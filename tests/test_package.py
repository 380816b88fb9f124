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
"""The package as a whole: what the wheel holds, how quickly it imports, which module may import which."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[1]
# In import order: a part imports from itself and from those before it.
PARTS = ("configuration", "modeling", "processing", "training", "hub_cards", "fusionzoo")
SOURCES = sorted(path for part in PARTS for path in (ROOT / part).rglob("*.py") if "__pycache__" not in path.parts)
MODULES = [path for path in SOURCES if path.name not in ("__init__.py", "__main__.py")]
HEAVY = ("torch", "transformers", "datasets", "sklearn", "matplotlib", "peft", "timm", "accelerate", "PIL", "pandas")
# What every module may import from the top package although it comes last: names only, nothing heavy.
LIGHT_TOP_MODULES = ("auto",)
# Imports against the order, inside a function that runs long after both modules are complete.
LATE_IMPORTS = {("training/trainer.py", "fusionzoo.hub_cards.model_card")}  # a finished run writes its card


def in_package(path: Path) -> str:
    """The path of a source file below `fusionzoo/`, as the wheel has it."""
    relative = path.relative_to(ROOT)
    return relative.as_posix() if relative.parts[0] == "fusionzoo" else f"fusionzoo/{relative.as_posix()}"


def relative_id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# ---- the wheel ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy of the sources with setuptools alone: no network, nothing left behind in the checkout."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for part in PARTS:
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, source)
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return zipfile.ZipFile(folder / done.stdout.split()[-1])


def test_the_wheel_holds_fusionzoo_and_nothing_else(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert "fusionzoo" in tops
    assert len(tops) == 2
    assert (tops - {"fusionzoo"}).pop().endswith(".dist-info")


def test_every_source_and_data_file_is_in_the_wheel(wheel):
    names = set(wheel.namelist())
    files = [
        path
        for part in PARTS
        for path in (ROOT / part).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    ]
    assert len(files) > 40
    assert [in_package(path) for path in files if in_package(path) not in names] == []


@pytest.mark.parametrize(
    "pattern",
    [
        r"fusionzoo/py\.typed",
        r"fusionzoo/training/data/emoji/.+\.webp",
        r"fusionzoo/training/data/emoji/.+\.json",
        r"fusionzoo/training/data/emoji/NOTICE",
        r"fusionzoo/training/recipes/[\w-]+/[\w-]+\.yaml",
        r"fusionzoo/hub_cards/.+\.j2",
        r".+\.dist-info/licenses/LICENSE",
        r".+\.dist-info/licenses/NOTICE",
    ],
)
def test_data_files_by_kind(wheel, pattern):
    assert any(re.fullmatch(pattern, name) for name in wheel.namelist())


def test_the_wheel_has_a_command(wheel):
    entry_points = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "fusionzoo = fusionzoo.cli:main" in wheel.read(entry_points).decode()


# ---- importing it ---------------------------------------------------------------------------------------------

PROBE = """
import sys, time
start = time.perf_counter()
import fusionzoo
seconds = time.perf_counter() - start
print(seconds, fusionzoo.__file__, *sorted(set(sys.argv[1:]) & set(sys.modules)))
"""


def run_python(*arguments: str, path: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("installed", [False, True], ids=["checkout", "wheel"])
def test_import_is_quick_and_light(wheel, installed, tmp_path: Path):
    path = ROOT
    if installed:
        wheel.extractall(tmp_path)
        path = tmp_path
    runs = [run_python("-c", PROBE, *HEAVY, path=path).split() for _ in range(3)]
    for _, file, *heavy in runs:
        assert Path(file).parent.parent == path
        assert heavy == []
    assert min(float(seconds) for seconds, *_ in runs) < 1


def test_the_wheel_finds_its_parts(wheel, tmp_path: Path):
    """In a checkout the parts lie beside `fusionzoo/`, in a wheel inside it."""
    wheel.extractall(tmp_path)
    code = (
        "from importlib.util import find_spec; print(find_spec('fusionzoo.configuration.configuration_mope').origin)"
    )
    assert Path(run_python("-c", code, path=tmp_path).strip()).is_relative_to(tmp_path / "fusionzoo" / "configuration")


def test_help_imports_nothing_heavy():
    """`-X importtime` lists every module that was imported."""
    command = [sys.executable, "-X", "importtime", "-m", "fusionzoo", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Usage" in done.stdout
    imported = {
        line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")
    }
    assert imported & {"argparse", "typer", "click"}
    assert imported & set(HEAVY) == set()


# ---- rules for the sources ------------------------------------------------------------------------------------


def test_module_names_are_unique():
    """The remote-code exporter puts all modules of a model into one folder."""
    counts = Counter(path.stem for path in MODULES)
    assert len(counts) > 20
    assert [name for name, count in counts.items() if count > 1] == []


def test_no_module_is_named_like_a_dependency():
    """A file that is started as a script puts its folder first on the path, and shadows packages of its name."""
    requirements = re.findall(r'^\s+"([A-Za-z0-9_.-]+)', (ROOT / "setup.py").read_text(encoding="utf-8"), re.MULTILINE)
    taken = {name.lower().replace("-", "_") for name in requirements} | set(sys.stdlib_module_names)
    taken |= {"yaml", "sklearn", "PIL", "tokenizers", "evaluate"}
    taken -= {path.stem for path in MODULES if path.parent.name == "fusionzoo"}  # imported as fusionzoo.x only
    assert len(taken) > 200
    assert [relative_id(path) for path in MODULES if path.stem in taken] == []


@pytest.mark.parametrize("path", SOURCES, ids=relative_id)
def test_licence_header(path):
    text = path.read_text(encoding="utf-8")
    assert re.match(r"# Copyright \d{4} The fusionzoo authors", text)
    assert "Licensed under the Apache License, Version 2.0" in text[:300]


def imports_of(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Line, absolute module and names of every import that stays inside the package (functions included)."""
    package = ("fusionzoo", *in_package(path).split("/")[1:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "fusionzoo":
                    yield node.lineno, alias.name, []
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if node.level:
                base = package[: len(package) - node.level + 1]
                yield node.lineno, ".".join([*base, *([node.module] if node.module else [])]), names
            elif (node.module or "").split(".")[0] in PARTS:
                yield node.lineno, node.module or "", [f"absolute:{name}" for name in names]


def part_of(module: str) -> str:
    """`fusionzoo.modeling.routing` belongs to `modeling`, `fusionzoo.cli` to `fusionzoo`."""
    second = [*module.split("."), ""][1]
    return second if second in PARTS else "fusionzoo"


def faults(path: Path) -> Iterator[str]:
    own = PARTS.index(part_of(in_package(path).removesuffix(".py").replace("/", ".")))
    for line, module, names in imports_of(path):
        place = f"{relative_id(path)}:{line}: {module}"
        if not names:
            yield f"{place}: write `from .module import names`, not `import fusionzoo...`"
        elif any(name.startswith("absolute:") for name in names):
            yield f"{place}: imports inside the package are relative"
        elif "*" in names:
            yield f"{place}: star import"
        elif PARTS.index(part_of(module)) > own and not may_look_ahead(path, module):
            yield f"{place}: {PARTS[own]} must not import from {part_of(module)}"
        elif not any((ROOT / name).is_file() for name in candidates(module)):
            yield f"{place}: import names from a module, not from a package"


def may_look_ahead(path: Path, module: str) -> bool:
    return module.removeprefix("fusionzoo.") in LIGHT_TOP_MODULES or (relative_id(path), module) in LATE_IMPORTS


def candidates(module: str) -> list[str]:
    tail = module.split(".")[1:]
    return ["/".join(tail) + ".py", "/".join(["fusionzoo", *tail]) + ".py"] if tail else []


def test_imports_go_one_way_and_name_modules():
    assert [fault for path in SOURCES if path.parent != ROOT / "fusionzoo" for fault in faults(path)] == []


def test_the_import_rules_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wrong = {
        "from ..training.trainer import FusionTrainer": "modeling must not import from training",
        "from ..configuration import configuration_mope": "import names from a module",
        "from . import routing": "import names from a module",
        "from .routing import *": "star import",
        "import fusionzoo.auto": "not `import fusionzoo",
        "from fusionzoo.auto import METHODS": "are relative",
        "def f():\n    from ..cli import main": "modeling must not import from fusionzoo",
    }
    for part in ("modeling", "training"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "routing.py").touch()
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    for code, message in wrong.items():
        path = tmp_path / "modeling" / "modeling_x.py"
        path.write_text(code, encoding="utf-8")
        found = list(faults(path))
        assert len(found) == 1
        assert message in found[0]
    path.write_text("import torch\nfrom .routing import top_k\n", encoding="utf-8")
    assert list(faults(path)) == []
