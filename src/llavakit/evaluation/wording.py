"""The lines by which LLaVA asks for the form of an answer. Source: LLaVA, docs/Evaluation.md and its question files."""

SHORT = "Answer the question using a single word or phrase."
"""For a word, a number or a phrase."""

DIRECTLY = "Answer with the option's letter from the given choices directly."
"""For a letter."""
