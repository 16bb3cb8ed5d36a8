"""What tokens cost, from a file of the user's: prices change, so none come with llavakit.

date = "2026-11-26"
[models."some-model"]      # by exact name, or the longest name with which the model's begins
input = 0.5                # for a million tokens, in a currency of one's own choice
output = 1.5
cached = 0.25              # input that the service had cached; as `input` when not given
batch = 0.5                # by this everything is multiplied in a batch; 1 when not given
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llavakit.errors import LlavakitError
from llavakit.synthesis.teacher import Usage

_MILLION = 1e6
_FIELDS = ("input", "output", "cached", "batch")


@dataclass(frozen=True, slots=True)
class Price:
    """Prices for a million tokens, and by what they are multiplied in a batch."""

    input: float
    output: float
    cached: float
    batch: float = 1.0

    def of(self, usage: Usage, *, in_batch: bool = False) -> float:
        """What a reply cost."""
        fresh = max(usage.prompt - usage.cached, 0)
        total = fresh * self.input + usage.cached * self.cached + usage.completion * self.output
        return total * (self.batch if in_batch else 1.0) / _MILLION

    def most(self, prompt: int, completion: int, *, in_batch: bool = False) -> float:
        """The most that a call can cost, with nothing cached."""
        dearest = max(self.input, self.cached)
        return (prompt * dearest + completion * self.output) * (self.batch if in_batch else 1.0) / _MILLION


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices by model's name, and the day on which they held."""

    models: Mapping[str, Price]
    date: str = ""

    def of(self, model: str) -> Price | None:
        """The price of a model; None where it is not known."""
        fitting = [name for name in self.models if model == name or model.startswith(name)]
        return self.models[max(fitting, key=len)] if fitting else None


def read_prices(path: Path) -> Prices:
    """Read a TOML file of prices. Raises LlavakitError for one that is not in the form above."""
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise LlavakitError(
            f"{path} cannot be read ({error.strerror}); give a TOML file of prices."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LlavakitError(f"{path} is not TOML: {error}.") from error
    models = content.get("models")
    if not isinstance(models, dict) or not models:
        raise LlavakitError(f'{path} names no model; expected a table such as [models."some-model"].')
    return Prices(
        {name: _price(path, name, row) for name, row in models.items()}, str(content.get("date", ""))
    )


def _price(path: Path, name: str, given: Any) -> Price:
    row: dict[str, Any] = given if isinstance(given, dict) else {}
    if not {"input", "output"} <= set(row):
        raise LlavakitError(f"{path}: {name} needs `input` and `output`, for a million tokens.")
    for field, value in row.items():
        if field not in _FIELDS:
            raise LlavakitError(f"{path}: {name} has {field!r}; there are {', '.join(_FIELDS)}.")
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < float("inf"):
            raise LlavakitError(f"{path}: {name}: {field} is {value!r}; expected a number of 0 or more.")
    cached, batch = row.get("cached", row["input"]), row.get("batch", 1.0)
    return Price(float(row["input"]), float(row["output"]), float(cached), float(batch))
