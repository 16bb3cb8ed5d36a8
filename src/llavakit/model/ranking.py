"""How likely a model finds each of several answers to one question: the losses by which options are ranked.

The options are laid end to end in one row, apart from each other, and the pictures go through the tower once.

Knows models and encoded conversations. Does not write prompts.

Shapes: T packed positions, S supervised ones, D LLM width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from PIL import Image

from llavakit.conversation.tokenize import IGNORE_INDEX, Encoded
from llavakit.errors import LlavakitError
from llavakit.model.packed import Tiled
from llavakit.model.reuse import PictureFeatures

if TYPE_CHECKING:
    from llavakit.model.llava import Llava


@torch.no_grad()
def option_losses(
    model: Llava,
    options: Sequence[Encoded],
    pictures: Sequence[Image.Image | Tiled],
    features: PictureFeatures | None = None,
) -> list[float]:
    """The mean cross-entropy of each option's supervised tokens, the lowest being the likeliest.

    options: whole conversations about the same pictures, which differ in the answer. features: keeps what the tower
    made of a picture for the next question. Raises LlavakitError when an option has nothing to score.
    """
    for place, option in enumerate(options):
        if all(label == IGNORE_INDEX for label in option.labels[1:]):
            raise LlavakitError(f"option {place + 1} has no token whose likelihood could be compared")
    rows = (features or PictureFeatures(model))([pictures]) if pictures else []
    cu_seqlens = list(accumulate((len(option.ids) for option in options), initial=0))
    ids_T = torch.tensor([token for option in options for token in option.ids], device=model.device)
    positions_T = torch.cat([torch.arange(len(option.ids)) for option in options]).to(model.device)
    was_training = model.training
    model.eval()
    try:
        embeddings_TD = model.place(ids_T, torch.cat(rows * len(options)) if rows else None)
        output = model.language_model.base_model(
            inputs_embeds=embeddings_TD[None],
            position_ids=positions_T[None],
            cu_seqlens=cu_seqlens,
            use_cache=False,
        )
        losses = []
        for option, start, end in zip(options, cu_seqlens, cu_seqlens[1:], strict=False):
            labels_T = torch.tensor([*option.labels[1:], IGNORE_INDEX], device=model.device)
            supervised_T = labels_T != IGNORE_INDEX
            hidden_SD = output.last_hidden_state[0, start:end][supervised_T]
            losses.append(float(F.cross_entropy(model.head(hidden_SD).float(), labels_T[supervised_T])))
        return losses
    finally:
        model.train(was_training)
