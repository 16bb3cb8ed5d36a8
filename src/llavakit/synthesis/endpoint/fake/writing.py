"""The text of a fake reply: it looks at what the prompt asks for and writes about what the prompt tells.

The form is read off the request: a JSON schema, blocks of `Question:` and `Answer:`, two scores for two answers, one
score, a letter, a word, a sentence, or else a description.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping
from typing import Any

from llavakit.synthesis.endpoint.fake.exchanges import (
    Exchange,
    brief,
    choices,
    conversation,
    description,
    false_premise,
    reasoning,
    regions,
    short_answers,
    text_exchanges,
)
from llavakit.synthesis.endpoint.fake.scene import Scene, read_scene

_TWO_SCORES = re.compile(r"assistant 1\b.*assistant 2\b|two (?:scores|values|numbers)", re.I | re.S)
_ONE_SCORE = re.compile(r"\b(?:scores?|rate|ratings?|grade|marks?|correctness)\b", re.I)
_SHORT = re.compile(r"\bone (?:short|brief|single) (?:sentence|caption)\b|\bone-sentence\b|\bbriefly\b", re.I)
_OPTION = re.compile(r"^\(?([A-H])[.)]", re.M)


def write_reply(body: Mapping[str, Any], rng: random.Random, *, malformed: bool = False) -> str:
    """The reply to a chat completion's body. malformed: sensible words, but not in the form that was asked for."""
    system = "\n".join(
        text_of(m["content"]) for m in body["messages"] if m["role"] in ("system", "developer")
    )
    asked = next((text_of(m["content"]) for m in reversed(body["messages"]) if m["role"] == "user"), "")
    scene = read_scene(asked)
    if malformed:
        return f"Sure, here is what came to my mind:\n\n1) {brief(scene, rng)} -- and so on\n===\n===\n{{"
    wanted = body.get("response_format")
    if isinstance(wanted, dict) and isinstance(wanted.get("json_schema"), dict):
        return json.dumps(
            _value(wanted["json_schema"].get("schema") or {}, "", _Material(scene, system, rng), rng)
        )
    for name, rows in (("items", choices), ("regions", regions)):
        if f'{{"{name}":' in system:
            return json.dumps({name: rows(scene, rng)})
    if "Question:" in system and "Answer:" in system and "===" in system:
        return _blocks(_dialogue(scene, system, rng))
    return _plain(scene, system, asked, rng)


def text_of(content: Any) -> str:
    """The text of a message's content, without its pictures."""
    if isinstance(content, str):
        return content
    return "\n".join(str(part["text"]) for part in content if isinstance(part, dict) and "text" in part)


def _plain(scene: Scene, system: str, asked: str, rng: random.Random) -> str:
    everything = f"{system}\n{asked}"
    if _TWO_SCORES.search(everything) and _ONE_SCORE.search(everything):
        return (
            f"{rng.randint(6, 10)} {rng.randint(4, 10)}\nBoth keep to what was asked; they differ in detail."
        )
    if asked.rstrip().endswith(("|", "(digit):")):
        return f"{rng.randint(0, 10) / 10:.1f}"
    if options := _OPTION.findall(asked):
        return rng.choice(options)
    if "single word or phrase" in everything:
        return rng.choice(("yes", "no", "2", "red", "left"))
    if _SHORT.search(everything):
        return brief(scene, rng)
    if (
        not scene.boxes
        and _ONE_SCORE.search(everything)
        and re.search(r"\bnumber\b|\b\d+ to \d+\b", everything)
    ):
        return str(rng.randint(1, 5))
    return description(scene, rng)


def _dialogue(scene: Scene, system: str, rng: random.Random) -> list[Exchange]:
    if scene.words:
        return text_exchanges(scene, rng)
    if "untrue" in system or "false_premise" in system:
        return false_premise(scene, rng)
    if re.search(r"short phrase|single word", system):
        return short_answers(scene, rng)
    if re.search(r"\bone question\b|Task: reasoning", system):
        return reasoning(scene, rng)
    return conversation(scene, rng)


def _blocks(exchanges: list[Exchange]) -> str:
    return "\n".join(f"Question:\n{question}\n===\nAnswer:\n{answer}\n===" for question, answer in exchanges)


class _Material:
    """What fills the objects of a JSON reply: rows that are used one after the other."""

    def __init__(self, scene: Scene, system: str, rng: random.Random) -> None:
        self.scene = scene
        self.rows: dict[frozenset[str], list[dict[str, Any]]] = {
            frozenset({"question", "answer"}): [
                {"question": question, "answer": answer} for question, answer in _dialogue(scene, system, rng)
            ],
            frozenset({"question", "right", "wrong"}): choices(scene, rng),
            frozenset({"box", "phrase"}): regions(scene, rng),
        }

    def of(self, names: frozenset[str]) -> list[dict[str, Any]]:
        return self.rows.get(names, [])


def _value(schema: Mapping[str, Any], name: str, material: _Material, rng: random.Random) -> Any:
    """A value that follows a schema; its texts are chosen by the names they go under."""
    if schema.get("enum"):
        return rng.choice(schema["enum"])
    if "const" in schema:
        return schema["const"]
    for several in ("anyOf", "oneOf"):
        if schema.get(several):
            return _value(schema[several][0], name, material, rng)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object" or "properties" in schema:
        properties = schema.get("properties", {})
        rows = material.of(frozenset(properties))
        if rows:
            return rows[0]
        return {key: _value(value, key, material, rng) for key, value in properties.items()}
    if kind == "array":
        return list(_elements(schema, name, material, rng))
    if kind in ("integer", "number"):
        least, most = schema.get("minimum", 0), schema.get("maximum", 10)
        drawn = most - rng.choice((0, 0, 0, 1, 1, 2)) * (most - least) / 4
        return round(drawn) if kind == "integer" else round(drawn, 3)
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "null":
        return None
    return _text(name, material, rng)


def _elements(schema: Mapping[str, Any], name: str, material: _Material, rng: random.Random) -> Iterator[Any]:
    item = schema.get("items", {})
    rows = material.of(frozenset(item.get("properties", {})))
    if rows:
        yield from rows[: schema.get("maxItems", len(rows))]
        return
    for _ in range(max(schema.get("minItems", 0), min(3, schema.get("maxItems", 3)))):
        yield _value(item, name, material, rng)


def _text(name: str, material: _Material, rng: random.Random) -> str:
    row = material.of(frozenset({"question", "answer"}))[0]
    if name in row:
        return str(row[name])
    if name in ("description", "detail", "text"):
        return description(material.scene, rng)
    if name in ("reason", "explanation", "why"):
        return "It keeps to what was asked and agrees with what is seen."
    return brief(material.scene, rng)
