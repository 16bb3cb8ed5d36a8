"""llavakit: LLaVA, the Large Language and Vision Assistant, for its whole life."""

__version__ = "0.1.0"
