"""A prompt as a folder of text files: what the teacher is told, examples of what it should write, and how it is read.

    system_message.txt      what the teacher is told first
    000_caps.txt            an example of what it is given ...
    000_conv.txt            ... and of what it should write; 001, 002 and so on
    kind.yaml               version, form of the reply, and what a picture has to have

The text files are laid out as LLaVA's own prompts are, so a folder of those opens as it is: without `kind.yaml` the
form and the symbols are read off the examples. A prompt is known by the hash of all of its bytes.

Knows no picture and no teacher; `tasks` puts both together.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated as Typed
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llavakit.errors import LlavakitError
from llavakit.synthesis.context import Part

SYSTEM, META = "system_message.txt", "kind.yaml"

Form = Literal["blocks", "text", "json", "choices", "regions"]
"""How a reply is written; `reading` has a reader for each."""

Need = Literal["captions", "boxes", "regions", "words", "relations", "boxes or regions", "picture"]

_EXAMPLE = re.compile(r"(\d+)_(caps|conv)\.txt")
_BOX_LINE = re.compile(r"^.+: \[[\d., ]+\]$", re.MULTILINE)


class Meta(BaseModel):
    """What `kind.yaml` says.

    parts: which symbols of the picture are sent, in this order. needs: what a picture has to have to be asked about.
    questions: of which one is drawn for a reply that is an answer alone; the name of a list of `kinds` or the list
    itself. suffix: a line that follows every question in the data. ask: what is said ahead of the symbols, or beside a
    picture that is shown. exchanges: fewest and most that are asked for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int | str = "unversioned"
    form: Form
    parts: tuple[Part, ...] = ("captions", "boxes")
    needs: tuple[Need, ...] = ("captions",)
    questions: Literal["detail", "brief"] | Typed[tuple[str, ...], Field(min_length=1)] = "detail"
    suffix: str = ""
    ask: str = ""
    exchanges: tuple[int, int] = (1, 100)
    max_tokens: int = Field(default=1024, ge=1)
    temperature: float = Field(default=0.7, ge=0)


@dataclass(frozen=True, slots=True)
class PromptFolder:
    """A prompt, read whole. examples: pairs of what is given and what should be written. hash: of all files' bytes."""

    name: str
    meta: Meta
    system: str
    examples: tuple[tuple[str, str], ...]
    hash: str

    @property
    def identity(self) -> str:
        """`name@version+hash`, with twelve digits of the hash."""
        return f"{self.name}@{self.meta.version}+{self.hash[:12]}"

    @property
    def instructions(self) -> str:
        """Everything the teacher is told before it is told of the picture."""
        return "\n\n".join([self.system, *(text for pair in self.examples for text in pair)])


def is_prompt_folder(path: Path) -> bool:
    """Whether a folder holds a prompt."""
    return (path / SYSTEM).is_file()


def read_prompt_folder(path: Path) -> PromptFolder:
    """Read a prompt; its name is the folder's.

    Raises:
        LlavakitError: the folder or its system message is missing, an example lacks one half, a file is empty or is
            no UTF-8, or `kind.yaml` says something it cannot say.
    """
    if not path.is_dir():
        raise LlavakitError(f"{path} is no folder; a prompt is a folder with {SYSTEM} and examples in it.")
    files = sorted(
        file for file in path.iterdir() if file.name in (SYSTEM, META) or _EXAMPLE.fullmatch(file.name)
    )
    texts: dict[str, str] = {}
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.name}\n{len(content)}\n".encode() + content)
        try:
            texts[file.name] = content.decode("utf-8-sig").replace("\r\n", "\n").strip()
        except UnicodeDecodeError as error:
            raise LlavakitError(f"{file} is not UTF-8 text ({error}); save it as UTF-8.") from error
        if not texts[file.name]:
            raise LlavakitError(f"{file} is empty; every file of a prompt holds a text.")
    if SYSTEM not in texts:
        raise LlavakitError(f"{path} has no {SYSTEM}; a prompt begins with what the teacher is told.")
    examples = _examples(path, texts)
    meta = _meta(path / META, texts[META]) if META in texts else _guessed(examples)
    return PromptFolder(path.resolve().name, meta, texts[SYSTEM], examples, digest.hexdigest())


def _examples(path: Path, texts: dict[str, str]) -> tuple[tuple[str, str], ...]:
    numbers = sorted({found[1] for name in texts if (found := _EXAMPLE.fullmatch(name))}, key=int)
    pairs = []
    for number in numbers:
        halves = f"{number}_caps.txt", f"{number}_conv.txt"
        for half, other in (halves, halves[::-1]):
            if half not in texts:
                raise LlavakitError(f"{path} has {other} and no {half}; an example is both.")
        pairs.append((texts[halves[0]], texts[halves[1]]))
    return tuple(pairs)


def _meta(path: Path, text: str) -> Meta:
    try:
        content = yaml.safe_load(text)
        if not isinstance(content, dict):
            raise LlavakitError(f"{path} holds no settings; expected lines such as `form: blocks`.")
        return Meta(**content)
    except yaml.YAMLError as error:
        raise LlavakitError(f"{path} is not YAML: {str(error).splitlines()[0]}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise LlavakitError(f"{path}: `{where}`: {first['msg']}.") from error


def _guessed(examples: tuple[tuple[str, str], ...]) -> Meta:
    """What LLaVA's own folders mean, by their examples: a dialogue or one description, with boxes or without."""
    dialogue = not examples or any(answer.startswith("Question:") for _, answer in examples)
    boxed = not examples or any(_BOX_LINE.search(given) for given, _ in examples)
    return Meta(
        form="blocks" if dialogue else "text", parts=("captions", "boxes") if boxed else ("captions",)
    )
