"""From pydantic's findings to sentences that name the key, the file, what was found and what was expected.

Works on any pydantic model; knows nothing of what a recipe is for.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from llavakit.errors import LlavakitError


class RecipeError(LlavakitError):
    """A recipe, or an override of it, that cannot be used."""


_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
    "dict_type": "keys and values",
}


def explain_validation(
    error: ValidationError, model: type[BaseModel], where: str, overrides: Sequence[str]
) -> str:
    """Every mistake of a validation: one on the line of the file's name, several on a line each below it."""
    lines = []
    for item in error.errors():
        key = ".".join(str(step) for step in item["loc"]) or "the recipe"
        line = f"{key}: {_reason(item, model)}"
        source = _override_of(key, overrides)
        lines.append(f'{line} (set by "{source}")' if source else line)
    if len(lines) == 1:
        return f"{where}: {lines[0]}"
    return "\n  ".join([f"{where}: {len(lines)} mistakes", *lines])


def _reason(item: Any, model: type[BaseModel]) -> str:
    kind, context, found = item["type"], item.get("ctx", {}), shown(item["input"])
    if kind == "extra_forbidden":
        known = _known_keys(model, item["loc"][:-1])
        return sentence(
            "unknown key", nearest(str(item["loc"][-1]), known), f"Known keys: {', '.join(known)}"
        )
    if kind == "missing":
        return "missing; this key must be given"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        wanted = str(context["expected"]).replace("'", "")
        return sentence(
            f"found {found}, expected {wanted}", nearest(str(item["input"]), wanted.split(", ")), ""
        )
    if kind in {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}:
        words = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
        (sign, limit), *_ = context.items()
        return f"found {found}, expected {words[sign]} {limit:g}"
    if kind == "too_short":
        return (
            f"found {found}, expected at least {context['min_length']} item{'s'[: context['min_length'] > 1]}"
        )
    if kind == "too_long":
        return f"found {context['actual_length']} items, expected at most {context['max_length']}"
    if kind == "string_too_short":
        return "found empty text, expected some"
    if kind == "string_pattern_mismatch":
        return f"found {found}, expected letters, digits, '.', '_' and '-' only, starting with a letter or a digit"
    if kind in _EXPECTED:
        return f"found {found}, expected {_EXPECTED[kind]}"
    return f"found {found}: {item['msg']}"


def _known_keys(model: type[BaseModel], steps: Iterable[str | int]) -> list[str]:
    for step in steps:
        if isinstance(step, str):
            inner = _model_inside(model.model_fields[step].annotation)
            if inner is None:
                return []
            model = inner
    return list(model.model_fields)


def _model_inside(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        if inner := _model_inside(argument):
            return inner
    return None


def _override_of(key: str, overrides: Sequence[str]) -> str | None:
    """The last override that set this key, something inside it, or something that holds it."""
    for override in reversed(overrides):
        name = override.partition("=")[0].strip()
        if f"{key}.".startswith(f"{name}.") or f"{name}.".startswith(f"{key}."):
            return override
    return None


def shown(value: Any) -> str:
    """A value as a sentence shows it: `the text 'a'`, `the number 3`, `a list of 2`."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text {value!r}" if len(value) <= 60 else f"the text {value[:57]!r}..."
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, dict):
        keys = ", ".join(str(key) for key in list(value)[:4])
        return f"the keys {keys}{', ...' if len(value) > 4 else ''}" if value else "no keys"
    return f"a {type(value).__name__}"


def nearest(word: str, choices: Sequence[str]) -> str:
    """`did you mean "x"?`, or nothing when no choice is close."""
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    return f'did you mean "{close[0]}"?' if close else ""


def sentence(fact: str, question: str, rest: str) -> str:
    """`fact; question rest`, without the parts that are empty."""
    if question and rest:
        return f"{fact}; {question} {rest[0].upper()}{rest[1:]}"
    return "; ".join(part for part in (fact, question or rest) if part)
