"""Opening models of `transformers` so that nothing is run from a file and every failure is one sentence.

Weights are read from safetensors, from a GGUF file, which holds numbers alone, or, for the parts that were published in
no other form, from PyTorch's pickles by its reader of weights alone, which runs nothing. A model that needs code of its
own is refused. Knows `from_pretrained` and what it raises. Knows neither towers nor language models.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from logging import CRITICAL
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers.utils import logging

from llavakit.checkpoints.files import CheckpointError
from llavakit.errors import LlavakitError

# What transformers and the readers of its files are known to raise on a folder or file that is not what it should be.
_FAILURES = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ImportError,
    RuntimeError,
    SafetensorError,
    pickle.UnpicklingError,
    struct.error,
)


@contextmanager
def loading(what: str, source: str) -> Iterator[None]:
    """Within it, what `transformers` raises on opening `source` becomes a LlavakitError that names it.

    The bars and reports of `transformers` are not shown meanwhile; what they would report is checked and raised.
    """
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    except LlavakitError:
        raise
    except _FAILURES as error:
        reason = " ".join(str(error).split())
        if "trust_remote_code" in reason or "remote code" in reason:
            raise LlavakitError(
                f"{what} {source}: it needs Python code from its own folder, which llavakit never runs; "
                "choose a model that transformers knows"
            ) from error
        if "Unpickler" in reason or "weights_only" in reason:
            raise LlavakitError(
                f"{what} {source}: its weights are a pickle that holds more than weights, which llavakit never runs; "
                "convert it to safetensors where you trust it"
            ) from error
        if "no file named model.safetensors" in reason:
            raise LlavakitError(
                f"{what} {source}: no model.safetensors there; expected a complete folder"
            ) from error
        raise LlavakitError(f"{what} {source}: cannot be opened ({_first_sentence(reason)})") from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def load_pretrained(auto: Any, what: str, source: str, name: str, **arguments: Any) -> Any:
    """`auto.from_pretrained(name)` with every weight found, from safetensors where there are any.

    auto: an Auto class of transformers. Weights that the file holds and the model does not need (the text half of
    CLIP) are left; weights that the model needs and the file lacks raise LlavakitError, as do those of wrong shape.
    """
    with loading(what, source):
        model, info = auto.from_pretrained(
            name,
            trust_remote_code=False,
            weights_only=True,
            output_loading_info=True,
            **arguments,
        )
    missing = sorted(info["missing_keys"])
    if missing:
        raise LlavakitError(
            f"{what} {source}: {len(missing)} weights of {type(model).__name__} are not in its file, the first is "
            f"{missing[0]}; expected a complete {what}"
        )
    return model


def _first_sentence(reason: str) -> str:
    return reason.partition(". ")[0][:300]


def checkpoint_folder(name: str, *, pickles: bool = False) -> Path:
    """The folder called `name`, or the local copy of the hub checkpoint of that name.

    pickles: whether `.bin` files of the hub's are wanted too. Raises CheckpointError when there is no such folder.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{name}: this is a file, expected a checkpoint folder")
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise CheckpointError(f"{name}: no such checkpoint folder")
    from huggingface_hub import snapshot_download

    with loading("checkpoint", name):
        patterns = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", *(["*.bin"] if pickles else [])]
        return Path(snapshot_download(name, allow_patterns=patterns))
