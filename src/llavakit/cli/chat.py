"""`llavakit chat`: one question to a saved model, or a conversation in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from llavakit.model.session import ChatSession

_HELP = (
    "/image FILE shows a picture · /clear begins anew · /exit or Ctrl-D leaves · Ctrl-C breaks off an answer"
)


def chat_command(
    checkpoint: Annotated[
        str, typer.Argument(help="A saved model: a checkpoint's folder, or a LLaVA's name on the hub.")
    ],
    image: Annotated[
        list[Path] | None, typer.Option("--image", "-i", help="A picture to talk about; may be given again.")
    ] = None,
    question: Annotated[
        str | None, typer.Option("--question", "-q", help="Ask this, print the answer and leave.")
    ] = None,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="0 always takes the likeliest token; higher is freer.")
    ] = 0.0,
    top_p: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Draw from the likeliest tokens that reach this probability."),
    ] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest answer, in tokens.")] = 256,
    seed: Annotated[int, typer.Option(help="Of the draws when the temperature is above 0.")] = 0,
) -> None:
    """Talk to a model about pictures.

    Without --question it is a conversation: type a question and press Enter. Pictures given with --image belong to
    the first question.

    Examples:

        llavakit chat runs/quickstart/run/checkpoints/2-instruct --image picture.png

        llavakit chat CHECKPOINT --image photo.jpg --question "What colour is the car?"
    """
    from rich.console import Console

    from llavakit.images.pixels import open_picture

    pictures = list(image or ())
    for path in pictures:  # before the model is loaded, which may take long
        open_picture(path)
    screen = Console(stderr=question is not None)
    with screen.status(f"Loading {checkpoint}"):
        import torch

        from llavakit.model.llava import Llava
        from llavakit.model.session import ChatSession

        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = Llava.from_pretrained(checkpoint, device=device)
        session = ChatSession(
            model, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed
        )
    if question is not None:
        print(session.ask(question, pictures))
        return
    _converse(session, screen, pictures)


def _converse(session: ChatSession, screen: Console, pictures: list[Path]) -> None:
    """Reads questions and commands until the user leaves."""
    from llavakit.errors import LlavakitError
    from llavakit.images.pixels import open_picture

    screen.print(_HELP, style="dim", highlight=False)
    waiting = pictures
    for line in _lines(screen):
        command, _, rest = line.partition(" ")
        try:
            if command in ("/exit", "/quit"):
                return
            if command == "/clear":
                session.clear()
                waiting = []
                screen.print("The conversation begins anew.", style="dim")
            elif command == "/image":
                if not rest.strip():
                    raise LlavakitError("/image needs a file: /image photo.jpg")
                path = Path(rest.strip().strip("'\"")).expanduser()
                width, height = open_picture(path).size
                waiting.append(path)
                screen.print(
                    f"{path}: {width}x{height}, shown with your next question.", style="dim", markup=False
                )
            elif command.startswith("/"):
                screen.print(f"There is no {command}. {_HELP}", style="dim", markup=False, highlight=False)
            else:
                _answer(session, screen, line, waiting)
                waiting = []
        except LlavakitError as error:
            screen.print(f"error: {error}", style="red", markup=False, highlight=False)


def _lines(screen: Console) -> Iterator[str]:
    """What the user types, line by line, without the empty ones."""
    while True:
        try:
            line = screen.input("[bold]> [/bold]").strip()
        except EOFError:
            screen.print()
            return
        except KeyboardInterrupt:
            screen.print("\n(/exit or Ctrl-D leaves)", style="dim")
            continue
        if line:
            yield line


def _answer(session: ChatSession, screen: Console, question: str, pictures: list[Path]) -> None:
    """Writes the answer as it comes; Ctrl-C breaks it off and the conversation goes on."""
    pieces = session.stream(question, pictures)
    try:
        for piece in pieces:
            screen.out(piece, end="", highlight=False)
    except KeyboardInterrupt:
        pieces.close()  # type: ignore[attr-defined]
        screen.out(" ...", end="", highlight=False)
    screen.print()
