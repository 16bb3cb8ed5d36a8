"""The kinds of instruction data by name, each a folder of `prompts/`, and the questions that a description answers.

LLaVA's three (section 3 of the paper) are `conversation`, `detail` and `reasoning`. `brief` is stage 1's caption. The
others train what later versions were asked: questions that assume something untrue, choices and short answers under
LLaVA-1.5's response-format lines, regions, text that is written in the picture, and, by a teacher that sees the
picture, dialogues and descriptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llavakit.errors import LlavakitError
from llavakit.synthesis.prompt_folder import PromptFolder, is_prompt_folder, read_prompt_folder

PROMPTS = Path(__file__).parent / "prompts"

DETAIL_QUESTIONS = (
    "Describe the picture in detail.",
    "Describe everything that you see.",
    "Tell me all about this picture.",
    "What does the picture show? Leave nothing out.",
    "Write a thorough description of this image.",
    "Go through the image and tell me what is in it and where.",
    "I cannot see this picture. Describe it so that I can imagine it.",
    "Give a full account of the scene.",
    "What can be seen here? Be as complete as you can.",
    "Explain in depth what this image contains.",
    "Take a close look and describe the whole picture.",
    "Paint this image in words, from the main things to the small ones.",
    "Please describe this photo, with its objects, their places and what is going on.",
    "How would you describe this image to someone who wants to draw it?",
    "Describe the scene and everything in it at length.",
    "Give me a detailed walk through this image.",
)
BRIEF_QUESTIONS = (
    "Describe the picture briefly.",
    "Say in a few words what is here.",
    "Give a short caption for this picture.",
    "What is this a picture of?",
    "Sum up this image in one sentence.",
    "Write a short description of the image.",
    "What does this image show, in brief?",
    "Caption this photo.",
    "In one line, what is in the picture?",
    "Tell me shortly what can be seen.",
    "Give the gist of this image.",
    "What is the main thing here? Answer in a sentence.",
)
QUESTIONS = {"detail": DETAIL_QUESTIONS, "brief": BRIEF_QUESTIONS}


def kind_names(prompts: Path = PROMPTS) -> tuple[str, ...]:
    """The kinds that a folder of prompts holds, by name."""
    return tuple(sorted(path.name for path in prompts.iterdir() if is_prompt_folder(path)))


def open_kinds(names: Sequence[str], prompts: Path | None = None) -> list[PromptFolder]:
    """The prompts of the kinds that are named.

    A name is looked for in `prompts` first, where that is given, and then among the kinds that come with llavakit; a
    name that is a path (it holds a slash) is a prompt's folder itself.

    Raises:
        LlavakitError: no such kind, a kind twice, or a folder that is no prompt.
    """
    opened: dict[str, PromptFolder] = {}
    for name in names:
        folder = read_prompt_folder(_place(name, prompts))
        if folder.name in opened:
            raise LlavakitError(f"The kind {folder.name!r} is named twice; name every kind once.")
        opened[folder.name] = folder
    return list(opened.values())


def _place(name: str, prompts: Path | None) -> Path:
    if "/" in name:
        return Path(name)
    if prompts is not None and not prompts.is_dir():
        raise LlavakitError(f"{prompts} is no folder; --prompts takes a folder that holds one folder a kind.")
    for root in (PROMPTS,) if prompts is None else (prompts, PROMPTS):
        if is_prompt_folder(root / name):
            return root / name
    if prompts is not None and is_prompt_folder(prompts) and prompts.resolve().name == name:
        return prompts
    own = kind_names(prompts) if prompts is not None else ()
    raise LlavakitError(
        f"There is no kind {name!r}; there are {', '.join(sorted({*kind_names(), *own}))}, "
        "or the path of a folder with a system_message.txt."
    )
