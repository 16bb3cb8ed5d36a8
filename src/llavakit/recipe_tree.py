"""From text to a plain tree of dicts and lists: the YAML of a recipe, and the dotted overrides laid over it.

Knows nothing of which keys a recipe has. Its YAML differs from PyYAML's in two points: a number such as 1e-3 is a
number (PyYAML, following YAML 1.1, reads it as text), and a key written twice is a mistake.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from llavakit.recipe_errors import RecipeError, shown

_FLOAT = re.compile(
    r"""^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
         |[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
         |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
         |[-+]?\.(?:inf|Inf|INF)
         |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's floats and without silent duplicates."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key_node.value!r} is written twice", key_node.start_mark
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:float"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def read_tree(path: Path, where: str) -> dict[str, Any]:
    """Reads a YAML file that must hold a mapping. `where` is how errors call the file. Raises RecipeError."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{where}: not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise RecipeError(f"{where}: cannot be read ({error.strerror})") from error
    try:
        tree = _parse(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{where}: {_yaml_problem(error)}") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"{where}: expected keys such as name, model and stages, found {shown(tree)}")
    return tree


def apply_overrides(tree: dict[str, Any], overrides: Sequence[str], where: str) -> dict[str, Any]:
    """A copy of the tree with each `a.b.0.c=VALUE` set, in order; the value is read as YAML.

    A key that is not there is made (whether a recipe knows it is checked later); an item of a list must exist.
    Raises RecipeError naming the override.
    """
    tree = _unshared(tree, where)
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip()
        if not equals or not key or "" in key.split("."):
            raise RecipeError(
                f"override {override!r}: expected KEY=VALUE, e.g. stages.1.learning_rate.projector=1e-3"
            )
        if not text.strip():
            raise RecipeError(
                f"override {override!r}: no value after =; write null for none, '\"\"' for empty text"
            )
        try:
            value = _parse(text)
        except yaml.YAMLError as error:
            raise RecipeError(f"override {override!r}: the value is {_yaml_problem(error)}") from error
        _set(tree, key.split("."), value, f"{where}: override {override!r}")
    return tree


def _unshared(value: Any, where: str, depth: int = 0) -> Any:
    """A deep copy in which what YAML anchors share is no longer shared, so that an override changes one place."""
    if depth > 50:
        raise RecipeError(f"{where}: nested more than 50 deep; does a YAML anchor hold itself?")
    if isinstance(value, dict):
        return {key: _unshared(item, where, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_unshared(item, where, depth + 1) for item in value]
    return value


def _set(tree: dict[str, Any], steps: list[str], value: Any, what: str) -> None:
    here: Any = tree
    for depth, step in enumerate(steps):
        last = depth == len(steps) - 1
        above = ".".join(steps[:depth])
        if isinstance(here, list):
            index = _index(here, step, above, what)
            if last:
                here[index] = value
            elif here[index] is None:
                here[index] = {}
            here = here[index]
        elif isinstance(here, dict):
            if last:
                here[step] = value
            elif here.get(step) is None:
                here[step] = {}
            here = here[step]
        else:
            raise RecipeError(f"{what}: {above} is {shown(here)}, which has no keys to set")


def _index(items: list[Any], step: str, above: str, what: str) -> int:
    if not re.fullmatch(r"[0-9]+", step):
        raise RecipeError(
            f"{what}: {above} is a list, expected a number after it (0 is the first), found {step!r}"
        )
    index = int(step)
    if index >= len(items):
        has = "is empty" if not items else f"has {len(items)} items (0 to {len(items) - 1})"
        has = "has 1 item (0)" if len(items) == 1 else has
        raise RecipeError(f"{what}: {above} {has}, so there is no {above}.{index}")
    return index


def _parse(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader


def _yaml_problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    reason = " ".join(str(getattr(error, "problem", None) or error).split())
    if mark is None:
        return f"not valid YAML: {reason}"
    return f"not valid YAML at line {mark.line + 1}, column {mark.column + 1}: {reason}"
