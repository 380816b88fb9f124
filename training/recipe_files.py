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
"""Recipes: a YAML file plus command-line overrides become the three argument dataclasses.

A recipe has the top-level keys `method`, `model`, `data` and `training`. In the model section the fields of the
method's config stand beside `vision` and `text`. Overrides are a list of command-line words:

    --learning_rate 1e-4              a key that one section knows (training first, then data or model)
    --model.fuse_method late_concat   section.key, also deeper: --data.options.sizes.train 200
    --bf16                            true
    --lr_milestones 3 6               a list

A key that no section knows is an error with the closest names, in the file as on the command line. Values are YAML
1.2: `1e-4` is a number, `no` is a word.
"""

import dataclasses
import difflib
import re
import types
import typing
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from ..auto import get_method
from .arguments import DataArguments, FusionTrainingArguments, ModelArguments


RECIPES_DIR = Path(__file__).resolve().parent / "recipes"
SECTIONS = ("model", "data", "training")
TOP_LEVEL_KEYS = ("method", *SECTIONS)
# Config fields that follow from the towers or the data set; setting them in a recipe would contradict those.
DERIVED_CONFIG_FIELDS = frozenset(
    {"vision_config", "text_config", "architectures", "transformers_version", "id2label", "label2id", "problem_type"}
)


class RecipeError(ValueError):
    """A recipe or an override that cannot be used; the message names the key, the value and the remedy."""


class _RecipeLoader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2 numbers and booleans, refusing a key that stands twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise RecipeError(f"Key {key!r} stands twice in one section (line {key_node.start_mark.line + 1}).")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_RecipeLoader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith((":bool", ":float", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:\.\d+|\d+\.\d*)(?:[eE][-+]?\d+)?|[-+]?\d+[eE][-+]?\d+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def list_recipes() -> list[str]:
    """Names of the shipped recipes, e.g. `mope/food101`."""
    return sorted(path.relative_to(RECIPES_DIR).with_suffix("").as_posix() for path in RECIPES_DIR.glob("*/*.yaml"))


def find_recipe(path_or_name: str | Path) -> Path:
    """The file of a recipe given by path or by the name of a shipped one. Raises `RecipeError` with close matches."""
    path = Path(path_or_name)
    if path.is_file():
        return path
    name = str(path_or_name).removesuffix(".yaml")
    if name in list_recipes():
        return RECIPES_DIR / f"{name}.yaml"
    raise RecipeError(
        f"No recipe {str(path_or_name)!r}: it is neither a file nor a shipped recipe."
        f"{_did_you_mean(name, list_recipes())} Shipped recipes: {', '.join(list_recipes())}."
    )


def load_recipe(
    path_or_name: str | Path, overrides: list[str] | tuple[str, ...] = ()
) -> tuple[ModelArguments, DataArguments, FusionTrainingArguments]:
    """Reads a recipe, applies `overrides` (command-line words) and returns the three argument objects.

    Raises `RecipeError` for an unknown key, a value of the wrong type or a contradiction.
    """
    return build_arguments(resolve_recipe(path_or_name, overrides))


def resolve_recipe(path_or_name: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> dict[str, Any]:
    """The recipe as one checked dict with the keys method, model, data, training, overrides applied."""
    path = find_recipe(path_or_name)
    try:
        recipe = yaml.load(path.read_text(encoding="utf-8"), Loader=_RecipeLoader)
    except (yaml.YAMLError, RecipeError) as error:
        raise RecipeError(f"{path}: {error}") from error
    if not isinstance(recipe, dict):
        raise RecipeError(f"{path}: a recipe is a mapping with the keys {', '.join(TOP_LEVEL_KEYS)}.")
    for key in recipe:
        if key not in TOP_LEVEL_KEYS:
            raise RecipeError(_unknown(key, "the recipe's top level", TOP_LEVEL_KEYS, str(path)))
    for section in SECTIONS:
        content = recipe.setdefault(section, {}) or {}
        if not isinstance(content, dict):
            raise RecipeError(f"{path}: section {section!r} must be a mapping, got {content!r}.")
        recipe[section] = content
    words = _parse_words(list(overrides))
    for key, value in words:
        if key == "method":
            recipe["method"] = value
    if not isinstance(recipe.get("method"), str):
        raise RecipeError(f"{path}: the key `method` is missing (e.g. `method: mope`; see `fusionzoo list`).")

    hints = _section_hints(recipe["method"])
    for section in SECTIONS:
        for key, value in recipe[section].items():
            if key not in hints[section]:
                raise RecipeError(_unknown(key, f"section {section!r}", hints[section], str(path)))
            recipe[section][key] = _coerce(value, hints[section][key], f"{section}.{key}")
    for key, value in words:
        if key != "method":
            _apply_override(recipe, key, value, hints)
    return recipe


def build_arguments(recipe: dict[str, Any]) -> tuple[ModelArguments, DataArguments, FusionTrainingArguments]:
    """The three argument objects of a resolved recipe. Raises `RecipeError` when fields contradict each other."""
    own_fields = {f.name for f in dataclasses.fields(ModelArguments)}
    model = {key: value for key, value in recipe["model"].items() if key in own_fields}
    model["method"] = recipe["method"]
    model["config"] = {key: value for key, value in recipe["model"].items() if key not in own_fields}
    training = dict(recipe["training"])
    training.setdefault("output_dir", f"runs/{recipe['method']}-{_slug(recipe['data'].get('name', 'data'))}")
    for section, values, required in (("data", recipe["data"], "name"),):
        if required not in values:
            raise RecipeError(f"The {section} section needs {required!r} (see `fusionzoo list`).")
    try:
        return (
            *HfArgumentParser(ModelArguments).parse_dict(model),
            *HfArgumentParser(DataArguments).parse_dict(recipe["data"]),
            *HfArgumentParser(FusionTrainingArguments).parse_dict(training),
        )
    except RecipeError:
        raise
    except ValueError as error:
        raise RecipeError(str(error)) from error


def write_recipe(recipe: dict[str, Any], path: Path) -> None:
    """Writes a resolved recipe, so that the run can be repeated with `fusionzoo train <path>`."""
    text = yaml.safe_dump({key: recipe[key] for key in TOP_LEVEL_KEYS}, sort_keys=False, allow_unicode=True)
    # Every plain scalar that YAML 1.1 and 1.2 read differently is quoted or dotted by safe_dump, so it reads back equal.
    path.write_text(text, encoding="utf-8")


def _section_hints(method: str) -> dict[str, dict[str, Any]]:
    """Per section, the allowed keys and their type annotations."""
    try:
        config_class = get_method(method).config_class
    except ValueError as error:
        raise RecipeError(str(error)) from error
    # Not typing.get_type_hints: configs name types that are imported for the type checker only.
    declared = {
        f.name: Any if isinstance(f.type, str) else f.type
        for f in dataclasses.fields(config_class)
        if not f.name.startswith("_") and f.name not in DERIVED_CONFIG_FIELDS
    }
    model_hints = _dataclass_hints(ModelArguments)
    for name in ("method", "config"):
        model_hints.pop(name)
    return {
        "model": {**declared, **model_hints},
        "data": _dataclass_hints(DataArguments),
        "training": _dataclass_hints(FusionTrainingArguments),
    }


def _dataclass_hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init and not f.name.startswith("_")}


def _parse_words(words: list[str]) -> list[tuple[str, Any]]:
    """Command-line words to (key, value) pairs; see the module docstring for the grammar."""
    pairs: list[tuple[str, Any]] = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if not word.startswith("--") or len(word) < 3:
            raise RecipeError(f"Unexpected {word!r} on the command line: an override is written --key value.")
        key, equals, value = word[2:].partition("=")
        values = [value] if equals else []
        while not equals and position < len(words) and not words[position].startswith("--"):
            values.append(words[position])
            position += 1
        try:
            parsed = [yaml.load(value, Loader=_RecipeLoader) for value in values]
        except yaml.YAMLError:
            parsed = list(values)
        pairs.append((key.replace("-", "_"), True if not parsed else parsed[0] if len(parsed) == 1 else parsed))
    return pairs


def _apply_override(recipe: dict[str, Any], key: str, value: Any, hints: dict[str, dict[str, Any]]) -> None:
    first, dot, rest = key.partition(".")
    if dot and first in SECTIONS:
        section, path = first, rest.split(".")
        if path[0] not in hints[section]:
            raise RecipeError(_unknown(path[0], f"section {section!r}", hints[section], "command line"))
    else:
        path = key.split(".")
        homes = [section for section in ("training", "data", "model") if path[0] in hints[section]]
        if not homes:
            everywhere = {name: f"{section}.{name}" for section in SECTIONS for name in hints[section]}
            close = [everywhere[name] for name in difflib.get_close_matches(path[0], everywhere, n=3)]
            hint = f" Did you mean {' or '.join('--' + name for name in close)}?" if close else ""
            raise RecipeError(
                f"Unknown key {path[0]!r} on the command line: no section of the recipe has it.{hint} Data keys: "
                f"{', '.join(hints['data'])}. Model keys: {', '.join(hints['model'])}. Training keys: every field of "
                "transformers.TrainingArguments and "
                f"{', '.join(_own_training_fields())}."
            )
        if "training" not in homes and len(homes) > 1:
            raise RecipeError(
                f"Key {path[0]!r} is in two sections: write {' or '.join(f'--{s}.{key}' for s in homes)}."
            )
        section = homes[0]
    target = recipe[section]
    for depth, name in enumerate(path[:-1]):
        inner = target.get(name)
        if inner is None:
            inner = {}
        if not isinstance(inner, dict):
            raise RecipeError(f"--{key}: {'.'.join([section, *path[: depth + 1]])} is {inner!r}, not a mapping.")
        target[name] = inner
        target = inner
    target[path[-1]] = value
    recipe[section][path[0]] = _coerce(recipe[section][path[0]], hints[section][path[0]], f"{section}.{path[0]}")


def _own_training_fields() -> list[str]:
    inherited = {f.name for f in dataclasses.fields(FusionTrainingArguments.__base__)}
    return [f.name for f in dataclasses.fields(FusionTrainingArguments) if f.name not in inherited]


def _did_you_mean(name: str, allowed) -> str:
    close = difflib.get_close_matches(str(name), list(allowed), n=3)
    return f" Did you mean {' or '.join(close)}?" if close else ""


def _unknown(key: Any, section: str, allowed, where: str) -> str:
    names = list(allowed)
    if section == "section 'training'":
        listing = f"every field of transformers.TrainingArguments and {', '.join(_own_training_fields())}"
    else:
        listing = ", ".join(sorted(names) if len(names) > 6 else names)
    return f"{where}: unknown key {key!r} in {section}.{_did_you_mean(key, names)} Allowed there: {listing}."


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(str(name)).name or "data").strip("-")


def _coerce(value: Any, hint: Any, where: str) -> Any:
    """`value` if it fits the annotation, or its obvious conversion (3 -> 3.0, 3 -> [3], 101 -> "101")."""
    if _fits(value, hint):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and _fits(float(value), hint):
        return float(value)
    if isinstance(value, list) and any(type(item) is int for item in value):
        floats = [float(item) if type(item) is int else item for item in value]
        if _fits(floats, hint):
            return floats
    if _fits([value], hint) and not isinstance(value, dict):
        return [value]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and _fits(str(value), hint):
        return str(value)
    raise RecipeError(f"{where} must be {_describe(hint)}, got {value!r} ({type(value).__name__}).")


def _fits(value: Any, hint: Any) -> bool:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _fits(value, args[0])
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, arg) for arg in args)
    if origin is typing.Literal:
        return value in args
    if origin in (list, tuple, set):
        return isinstance(value, list) and (not args or all(_fits(item, args[0]) for item in value))
    if origin is dict:
        return isinstance(value, dict)
    if hint is None or hint is type(None):
        return value is None
    if hint in (int, float, str, bool):
        return type(value) is hint
    if isinstance(hint, type) and hint in (list, dict):
        return isinstance(value, hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return isinstance(value, (str, hint))
    # Anything else (Any, forward references, third-party classes) is checked by the class that declares the field.
    return not isinstance(hint, type) or isinstance(value, hint)


def _describe(hint: Any) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(arg) for arg in args)
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(arg) for arg in args)
    if hint is type(None):
        return "null"
    return getattr(hint, "__name__", str(hint)) if origin is None else str(hint)
