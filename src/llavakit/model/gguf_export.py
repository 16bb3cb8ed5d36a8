"""A Llava as the two GGUF files that llama.cpp opens: the language model, and the tower with the projector.

What the files hold is written in `checkpoints.gguf_language`, `gguf_tokenizer` and `gguf_vision`; this file takes the
model apart for them, and refuses before anything is written.

Knows modules and the checkpoint room. Knows nothing of training.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from llavakit.checkpoints.chat_template import chat_template
from llavakit.checkpoints.files import CheckpointError, atomic_folder
from llavakit.checkpoints.gguf import check_outtype, write_gguf
from llavakit.checkpoints.gguf_language import check_family, language_file
from llavakit.checkpoints.gguf_tokenizer import vocabulary
from llavakit.checkpoints.gguf_vision import vision_file
from llavakit.conversation.templates import get_template
from llavakit.model.fused import FusedTowers
from llavakit.model.language import head_is_plain
from llavakit.model.stops import stop_ids, template_stops
from llavakit.model.towers import check_feature_layers

if TYPE_CHECKING:
    from llavakit.model.llava import Llava


@dataclass(frozen=True)
class GgufExport:
    """text, mmproj: the files. notes: where llama.cpp may do otherwise than llavakit, a sentence each, to be shown."""

    text: Path
    mmproj: Path
    notes: tuple[str, ...]


def export_gguf(
    model: Llava, folder: str | Path, name: str, outtype: str = "f16", force: bool = False
) -> GgufExport:
    """Writes `NAME-text.gguf` and `NAME-mmproj.gguf` into a folder, both or none.

    name: of the files, and of the model within them. outtype: `f32`, `f16` or `q8_0`, of the language model; tower and
    projector are f32 under `f32` and f16 otherwise. force: write a CLIP tower all the same, which llama.cpp computes
    wrongly. A folder that holds other files is refused, for the whole folder is replaced.

    Raises LlavakitError, naming the part, when llama.cpp cannot express it: several towers, a tower that is neither
    SigLIP nor CLIP, `cls_patch`, `anyres`, a projector other than `mlp2x_gelu` and `linear`, a language model that is
    no Llama, Mistral, Qwen2 or Qwen3, or a tokenizer whose way of splitting text llama.cpp has no name for.
    """
    check_outtype(outtype)
    if not name or Path(name).name != name:
        raise CheckpointError(
            f"GGUF name {name!r}: expected the beginning of a file's name, without a folder"
        )
    text_name, mmproj_name = f"{name}-text.gguf", f"{name}-mmproj.gguf"
    _check_folder(Path(folder), {text_name, mmproj_name})
    settings, tower, llm = model.settings, model.vision_tower, model.language_model
    if isinstance(tower, FusedTowers):
        raise CheckpointError(
            f"vision tower: {len(tower.each)} towers are fused, and llama.cpp runs one; expected a single tower"
        )
    if settings.vision_feature_select != "patch":
        raise CheckpointError(
            f"vision_feature_select is {settings.vision_feature_select}; llama.cpp drops what stands before the "
            "patches, expected patch"
        )
    mmproj = vision_file(
        config=tower.config.to_dict(),
        tower=_state(tower),
        projector=settings.projector,
        projector_tensors=_state(model.projector),
        layers=check_feature_layers(tower.config, settings.vision_feature_layer),
        pixels=model.pixels,
        policy=settings.image_policy,
        name=name,
        force=force,
    )
    check_family(llm.config.model_type)
    if not head_is_plain(llm):
        raise CheckpointError(
            "language model: it scales, caps or biases its scores, which llama.cpp does not do"
        )
    template = get_template(settings.template, model.tokenizer)
    jinja = chat_template(template, model.tokenizer)
    words = vocabulary(model.tokenizer, model.vocabulary, stop_ids(model), jinja)
    text = language_file(llm.config.to_dict(), _language_state(model), words.keys, name)
    notes = [*mmproj.notes, *words.notes, *_template_notes(model, jinja)]
    with atomic_folder(folder) as temporary:
        notes += write_gguf(temporary / text_name, text, outtype)
        write_gguf(temporary / mmproj_name, mmproj, "f32" if outtype == "f32" else "f16")
    return GgufExport(Path(folder) / text_name, Path(folder) / mmproj_name, tuple(notes))


def _check_folder(folder: Path, files: set[str]) -> None:
    others = (
        sorted(path.name for path in folder.iterdir() if path.name not in files) if folder.is_dir() else []
    )
    if others:
        raise CheckpointError(
            f"{folder}: holds {len(others)} other files, the first is {others[0]}; expected an empty folder or an "
            "earlier export of this name, for the whole folder is replaced"
        )


def _state(part: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in part.state_dict().items()}


def _language_state(model: Llava) -> dict[str, Tensor]:
    """The language model's tensors, without a head that is the embedding."""
    llm, state = model.language_model, _state(model.language_model)
    head = llm.get_output_embeddings()
    assert isinstance(head, nn.Module)
    if head.weight is llm.get_input_embeddings().weight:
        state.pop("lm_head.weight")
    return state


def _template_notes(model: Llava, jinja: str | None) -> list[str]:
    notes = []
    if jinja is None:
        notes.append(
            f"the template {model.settings.template} cannot be said in Jinja; the file has no chat template"
        )
    added = set(model.tokenizer.get_added_vocab())
    strings = [stop for stop in template_stops(model) if stop not in added]
    if strings:
        notes.append(
            f"an answer ends at the text {', '.join(map(repr, strings))}; give it to llama.cpp as a stop string"
        )
    notes.append(
        "llama.cpp puts no line break between a picture and the question behind it; begin the question with one, as in "
        "training"
    )
    return notes
