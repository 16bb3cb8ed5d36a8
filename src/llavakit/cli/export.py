"""`llavakit export`: a model in the form that others open."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export_command(
    source: Annotated[
        str, typer.Argument(help="A model: a folder of any kind that llavakit opens, or a hub name.")
    ],
    target: Annotated[Path, typer.Argument(help="The folder to write.")],
    to: Annotated[
        str,
        typer.Option(
            "--to", help="hf (stock transformers), original (LLaVA's own code) or gguf (llama.cpp)."
        ),
    ],
    verify: Annotated[
        bool, typer.Option("--verify", help="Open what was written and compare its logits with the source's.")
    ] = False,
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="With --verify: the largest difference that passes.")
    ] = 1e-4,
    base: Annotated[
        str | None, typer.Option(help="The model under a source that is a LoRA adapter or a projector alone.")
    ] = None,
    vision_tower: Annotated[
        str | None, typer.Option(help="A copy of the tower that a source of the original LLaVA names.")
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="The conversation template, where it is not to be the source's.")
    ] = None,
    tower_name: Annotated[
        str | None,
        typer.Option(
            help="With --to original: the name to record for the tower; without it the tower is written too."
        ),
    ] = None,
    outtype: Annotated[
        str | None, typer.Option(help="With --to gguf: f32, f16 (when not given) or q8_0.")
    ] = None,
    despite_clip: Annotated[
        bool,
        typer.Option(
            "--despite-clip", help="With --to gguf: write a CLIP tower, which llama.cpp computes wrongly."
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the target if it exists.")] = False,
) -> None:
    """Write a model in the form that others open, whole or not at all.

    With --verify it leaves with exit code 1 when a logit differs by more than the tolerance.

    Examples:

        llavakit export runs/mine/checkpoints/2-instruct shared/mine --to hf --verify

        llavakit export lora-folder merged --to original --base lmsys/vicuna-7b-v1.5

        llavakit export runs/mine/checkpoints/2-instruct shared/mine-gguf --to gguf --outtype q8_0
    """
    from llavakit.errors import LlavakitError
    from llavakit.model.exporting import Wishes, check_target, form
    from llavakit.model.llava import Llava

    chosen = form(to)
    if verify and chosen.checks is None:
        raise LlavakitError(f"nothing here reads {to}, so --verify has nothing to compare; leave it out")
    check_target(target, force)
    model = Llava.from_pretrained(source, base=base, vision_tower=vision_tower, template=template)
    notes = chosen.write(model, target, Wishes(tower_name, outtype, despite_clip))
    print(f"{target}: written as {to}, template {model.settings.template}")
    for note in notes:
        print(f"note: {note}")
    if not verify or chosen.checks is None:
        return
    failed = False
    for found in chosen.checks(model, target, vision_tower if tower_name is not None else None):
        verdict = "same" if found.difference <= tolerance else f"more than {tolerance:g}"
        print(
            f"{found.other}: largest difference of a logit {found.difference:.3g} over {found.prompts} prompts, "
            f"at {found.worst} ({verdict})"
        )
        failed |= found.difference > tolerance
    if failed:
        raise typer.Exit(1)
