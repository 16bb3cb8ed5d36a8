"""Where the configuration of a part comes from, and what its weights are stored in, without reading weights.

What lives here: the places that are looked at, in this order: a local folder or GGUF file, the copy of an earlier
download, the packaged table of well-known parts, the hub. It knows configurations and the headers of safetensors files.
It does not know what is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PretrainedConfig

from llavakit.errors import LlavakitError
from llavakit.model.language import language_config
from llavakit.model.towers import tower_config
from llavakit.recipe import resolve_source

_TABLE = Path(__file__).parent / "known_parts.yaml"


@dataclass(frozen=True, slots=True)
class Configuration:
    """A part's configuration. half: whether bfloat16 holds its weights as they are. origin: where it was read.
    image_size: pixels of a side of a tower's tile."""

    config: PretrainedConfig
    half: bool
    origin: str
    image_size: int = 0


def tower_configuration(name: str) -> Configuration:
    """A vision tower's. Raises LlavakitError when it cannot be had."""
    sizes: list[int] = []

    def read(**reading: Any) -> PretrainedConfig:
        config, pixels = tower_config(name, **reading)
        sizes.append(pixels.image_size)
        return config

    found = _find("vision tower", "vision_towers", name, read)
    return replace(found, image_size=sizes[-1] if sizes else found.config.image_size)


def language_configuration(name: str) -> Configuration:
    """A language model's. Raises LlavakitError when it cannot be had."""
    return _find("language model", "language_models", name, lambda **how: language_config(name, **how))


def _find(what: str, shelf: str, name: str, read: Callable[..., PretrainedConfig]) -> Configuration:
    place = Path(resolve_source(name))
    if place.exists():
        return Configuration(read(), not name.endswith(".gguf") and stored_half(place), str(place))
    known = known_parts()[shelf].get(name)
    try:
        config, origin = read(local_files_only=True), "the hub's copy on this machine"
    except LlavakitError:
        if known is not None:
            config, origin = AutoConfig.for_model(**known["config"]), "llavakit's table of known parts"
        else:
            config, origin = _from_hub(what, shelf, name, read), "the hub"
    return Configuration(config, getattr(config, "dtype", None) in ("bfloat16", torch.bfloat16), origin)


def _from_hub(what: str, shelf: str, name: str, read: Callable[..., PretrainedConfig]) -> PretrainedConfig:
    try:
        return read()
    except LlavakitError as error:
        raise LlavakitError(
            f"{what} {name}: its configuration could not be had from the hub and is not among the known parts "
            f"({', '.join(known_parts()[shelf])}); name a local folder that holds its config.json"
        ) from error


def stored_half(place: Path) -> bool:
    """Whether all weights of a folder are stored in bfloat16; only headers are read."""
    kinds: set[str] = set()
    for path in sorted(place.glob("*.safetensors")) if place.is_dir() else ():
        try:
            with safe_open(path, framework="pt") as file:
                kinds |= {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise LlavakitError(f"{path}: cannot be read ({error}); copy the file again") from error
    return kinds == {"BF16"}


@cache
def known_parts() -> dict[str, Any]:
    """The packaged table."""
    table: dict[str, Any] = yaml.safe_load(_TABLE.read_text(encoding="utf-8"))
    return table
