"""Fixtures of the data tests: how rows are written, with a tokenizer of bytes and a tower of four patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llavakit.data.writing import Writing
from llavakit.images.geometry import TowerGeometry
from llavakit.recipe import Stage
from tests.training.materials import byte_tokenizer


def stage(path: Path, **changes: Any) -> Stage:
    """A stage over one file."""
    return Stage.model_validate(
        {
            "name": "align",
            "data": [{"path": str(path)}],
            "template": "mistral",
            "learning_rate": {"projector": 1e-3},
            "batch": {"tokens": 512, "pack": 256},
            "max_length": 200,
            **changes,
        }
    )


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """One token a byte."""
    return byte_tokenizer()


def writing_of(chosen: Stage, tokenizer: Any) -> Writing:
    """How that stage writes, for a tower of four patches."""
    return Writing.of_stage(chosen, tokenizer, TowerGeometry(16, 8, 0))
