"""What the gates are set to: for each gate whether it rejects, notes or is off, and the limits it goes by.

A pure value; its `identity` goes into the data set's card.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from llavakit.errors import LlavakitError

Acting = Literal["note", "reject"]
Action = Literal["off"] | Acting
_ACTIONS = ("off", *get_args(Acting))

_WORDS: dict[str, tuple[int, int]] = {
    "detail": (25, 500),
    "vision_detail": (25, 700),
    "reasoning": (12, 400),
    "conversation": (1, 250),
    "vision_conversation": (1, 300),
    "false_premise": (3, 120),
    "brief": (3, 60),
    "short_answer": (1, 12),
    "multiple_choice": (1, 30),
    "text_rich": (1, 300),
    "region": (1, 60),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """Actions, one a gate, and limits.

    words: fewest and most words of one answer, by kind; kinds that are not named take `any_words`. scripts: of whose
    letters texts may be, as Unicode names them. echo_words: so long a run shared with the instructions is an echo.
    unsupported: from so many things that no annotation has, a candidate is a hallucination. count_up_to: numbers of
    things are compared up to this many. margin: in fractions of the picture, so far apart must two centres be before
    left and right, above and below are compared. duplicate_words: texts of two pictures are compared from this length
    on. similarity: from this estimated Jaccard index of their runs of three words on, two texts are near duplicates.
    same_answer: so many candidates of 10,000 may have the same answer of `duplicate_words` and more words.
    """

    form: Action = "reject"
    refusal: Action = "reject"
    leak: Action = "reject"
    length: Action = "reject"
    hallucination: Action = "reject"
    counts: Action = "reject"
    places: Action = "reject"
    relevance: Action = "reject"
    duplicates: Action = "reject"
    words: Mapping[str, tuple[int, int]] = field(default_factory=lambda: dict(_WORDS))
    any_words: tuple[int, int] = (1, 500)
    longest_question: int = 120
    scripts: tuple[str, ...] = ("LATIN", "MICRO", "MASCULINE", "FEMININE")
    echo_words: int = 12
    unsupported: int = 1
    count_up_to: int = 5
    margin: float = 0.1
    duplicate_words: int = 16
    similarity: float = 0.8
    same_answer: int = 20

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Read a YAML file of the fields' names; what it does not name stays as it is.

        Raises:
            LlavakitError: the file is missing or no YAML mapping, or names an unknown field or an unfit value.
        """
        try:
            content = yaml.safe_load(path.read_text("utf-8"))
        except OSError as error:
            raise LlavakitError(
                f"{path} cannot be read ({error.strerror}); give a YAML file of gates."
            ) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise LlavakitError(
                f"{path} is not YAML ({error}); expected lines such as `leak: note`."
            ) from error
        if not isinstance(content, dict | None):
            raise LlavakitError(
                f"{path} holds a {type(content).__name__}; expected lines such as `leak: note`."
            )
        return cls.of(content or {}, str(path))

    @classmethod
    def of(cls, values: Mapping[str, Any], where: str = "The settings of quality") -> Settings:
        """Settings from plain values. `words` is merged into the usual limits, kind by kind.

        Raises:
            LlavakitError: a field that does not exist, or a value that does not fit it.
        """
        known = {one.name: one for one in fields(cls)}
        if strangers := [str(name) for name in values if name not in known]:
            raise LlavakitError(f"{where} names {', '.join(strangers)}; there are {', '.join(known)}.")
        usual = cls()
        return cls(**{name: _fit(where, name, value, getattr(usual, name)) for name, value in values.items()})

    def action(self, gate: str) -> Action:
        """What becomes of this gate's findings."""
        action: Action = getattr(self, gate)
        return action

    def words_of(self, kind: str) -> tuple[int, int]:
        """Fewest and most words of an answer of this kind."""
        return self.words.get(kind, self.any_words)

    def identity(self) -> dict[str, Any]:
        """Every field as plain JSON values."""
        return {
            name: {kind: list(pair) for kind, pair in sorted(value.items())}
            if isinstance(value, Mapping)
            else list(value)
            if isinstance(value, tuple)
            else value
            for name, value in asdict(self).items()
        }


def _fit(where: str, name: str, value: Any, usual: Any) -> Any:
    """The value in the form of the usual one."""
    if isinstance(usual, str):
        value = "off" if value is False else value  # YAML reads a bare `off` as false
        if value in _ACTIONS:
            return value
        expected = "one of " + ", ".join(_ACTIONS)
    elif isinstance(usual, Mapping):
        if isinstance(value, Mapping) and all(_is_pair(pair) for pair in value.values()):
            return {**usual, **{str(kind): tuple(pair) for kind, pair in value.items()}}
        expected = "fewest and most words by kind, such as `detail: [25, 500]`"
    elif name == "scripts":
        if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
            return tuple(one.upper() for one in value)
        expected = "a list of scripts such as [LATIN, CJK]"
    elif isinstance(usual, tuple):
        if _is_pair(value):
            return tuple(value)
        expected = "two numbers, fewest and most"
    else:
        if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
            return type(usual)(value)
        expected = "a number of 0 or more"
    raise LlavakitError(f"{where}: {name} is {value!r}; expected {expected}.")


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(one, int) and not isinstance(one, bool) for one in value)
        and 0 <= value[0] <= value[1]
    )
