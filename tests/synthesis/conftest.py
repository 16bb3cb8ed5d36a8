"""Tiny models for teachers that run on this machine."""

from tests.model.conftest import parts

__all__ = ["parts"]
