"""Fixtures of the training tests: the tiny parts and data, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.materials import make_data, make_parts


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of a tiny tower and a tiny language model."""
    return make_parts(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA JSON of forty rows beside its pictures."""
    return make_data(tmp_path_factory.mktemp("data"))
