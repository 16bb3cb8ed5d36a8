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
    "/image FILE shows a picture · /video FILE a short video · /clear begins anew · /exit or Ctrl-D leaves · "
    "Ctrl-C breaks off an answer"
)


def chat_command(
    checkpoint: Annotated[
        str, typer.Argument(help="A saved model: a checkpoint's folder, or a LLaVA's name on the hub.")
    ],
    image: Annotated[
        list[Path] | None, typer.Option("--image", "-i", help="A picture to talk about; may be given again.")
    ] = None,
    video: Annotated[
        list[Path] | None,
        typer.Option("--video", help="A short video: GIF, WebP, APNG, TIFF or a folder of frames."),
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
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Round the language model's weights to eight bits: faster on a CPU."),
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the draws when the temperature is above 0.")] = 0,
) -> None:
    """Talk to a model about pictures and short videos.

    Without --question it is a conversation: type a question and press Enter. Pictures given with --image and videos
    given with --video belong to the first question.

    Examples:

        llavakit chat runs/quickstart/run/checkpoints/2-instruct --image picture.png

        llavakit chat CHECKPOINT --image photo.jpg --question "What colour is the car?"

        llavakit chat CHECKPOINT --video clip.gif
    """
    from rich.console import Console

    from llavakit.images.frames import frame_count
    from llavakit.images.pixels import open_picture

    pictures, videos = list(image or ()), list(video or ())
    for path in pictures:  # before the model is loaded, which may take long
        open_picture(path)
    for path in videos:
        frame_count(path)
    screen = Console(stderr=question is not None)
    with screen.status(f"Loading {checkpoint}"):
        from llavakit.model.devices import choose_device
        from llavakit.model.llava import Llava
        from llavakit.model.session import ChatSession

        model = Llava.from_pretrained(checkpoint, device=choose_device())
        quantized = model.quantize_int8() if int8 else None
        session = ChatSession(
            model, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed
        )
    if quantized is not None:
        words = f"int8: {quantized.layers} layers, {quantized.share:.0%} of the language model's numbers"
        screen.print(words, style="dim", highlight=False)
    most = model.settings.image_policy.frames
    for path in videos:
        _tell_video(screen, path, most)
    if question is not None:
        print(session.ask(question, pictures, videos))
        return
    _converse(session, screen, pictures, videos, most)


def _tell_video(screen: Console, path: Path, most: int) -> None:
    """Says how many of a video's frames are shown; it must open."""
    from llavakit.images.frames import frame_count

    count = frame_count(path)
    screen.print(
        f"{path}: {min(count, most)} of {count} frames, shown with your next question.",
        style="dim",
        markup=False,
        highlight=False,
    )


def _converse(
    session: ChatSession, screen: Console, pictures: list[Path], videos: list[Path], most: int
) -> None:
    """Reads questions and commands until the user leaves. most: frames shown of a video."""
    from llavakit.errors import LlavakitError
    from llavakit.images.pixels import open_picture

    screen.print(_HELP, style="dim", highlight=False)
    waiting, playing = pictures, videos
    for line in _lines(screen):
        command, _, rest = line.partition(" ")
        try:
            if command in ("/exit", "/quit"):
                return
            if command == "/clear":
                session.clear()
                waiting, playing = [], []
                screen.print("The conversation begins anew.", style="dim")
            elif command == "/video":
                path = _named(rest, "/video needs a file or a folder of frames: /video clip.gif")
                _tell_video(screen, path, most)
                playing.append(path)
            elif command == "/image":
                path = _named(rest, "/image needs a file: /image photo.jpg")
                width, height = open_picture(path).size
                waiting.append(path)
                screen.print(
                    f"{path}: {width}x{height}, shown with your next question.", style="dim", markup=False
                )
            elif command.startswith("/"):
                screen.print(f"There is no {command}. {_HELP}", style="dim", markup=False, highlight=False)
            else:
                _answer(session, screen, line, waiting, playing)
                waiting, playing = [], []
        except LlavakitError as error:
            screen.print(f"error: {error}", style="red", markup=False, highlight=False)


def _named(rest: str, otherwise: str) -> Path:
    """The path behind a command. Raises LlavakitError, saying `otherwise`, when there is none."""
    from llavakit.errors import LlavakitError

    if not rest.strip():
        raise LlavakitError(otherwise)
    return Path(rest.strip().strip("'\"")).expanduser()


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


def _answer(
    session: ChatSession, screen: Console, question: str, pictures: list[Path], videos: list[Path]
) -> None:
    """Writes the answer as it comes; Ctrl-C breaks it off and the conversation goes on."""
    pieces = session.stream(question, pictures, videos)
    try:
        for piece in pieces:
            screen.out(piece, end="", highlight=False)
    except KeyboardInterrupt:
        pieces.close()  # type: ignore[attr-defined]
        screen.out(" ...", end="", highlight=False)
    screen.print()
