"""Saving a Llava as a folder of the original LLaVA.

Under the name of a tower that both sides know, the tower's weights are written among the others and marked as tuned, so
that they count. Without a name the tower is written beside them, as the folder `vision_tower`; llavakit finds it there,
and the original's code does when it is run from the checkpoint's folder.

Knows modules and the checkpoint room. Knows nothing of training.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from llavakit.checkpoints import companions, original, original_config
from llavakit.checkpoints.files import CheckpointError, atomic_folder, write_json, write_tensors
from llavakit.images.geometry import ImagePolicy
from llavakit.model.fused import FusedTowers
from llavakit.model.saving import part_states, plain_config
from llavakit.model.stops import stop_ids

if TYPE_CHECKING:
    from llavakit.model.llava import Llava


def save_original(
    model: Llava,
    folder: str | Path,
    *,
    vision_tower: str | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Writes the model as a folder, whole or not at all; what stood there before is replaced.

    vision_tower: the name to record for the tower, such as `openai/clip-vit-large-patch14-336`; the tower is written
    beside the weights when None. dtype: of the saved weights; as they are when None.
    Raises CheckpointError, with the reason, for a model that the original cannot express.
    """
    settings, tower = model.settings, model.vision_tower
    text_config = plain_config(model.language_model.config)
    reason = original_config.why_not_expressible(
        language_model=text_config["model_type"],
        tower=None if isinstance(tower, FusedTowers) else tower.config.model_type,
        layer=settings.vision_feature_layer,
        select=settings.vision_feature_select,
        projector=settings.projector,
        policy=settings.image_policy,
    )
    if (
        reason is not None
        or isinstance(tower, FusedTowers)
        or isinstance(settings.vision_feature_layer, tuple)
    ):
        raise CheckpointError(f"{folder}: the original LLaVA cannot express this model: {reason}")
    parts = part_states(model, dtype)
    text_config["vocab_size"] = model.vocabulary
    saved_dtype = str(next(iter(parts["language_model"].values())).dtype).removeprefix("torch.")
    tower_config = plain_config(tower.config)
    tensors = original.to_original(
        parts,
        tower=vision_tower is not None,
        newline=settings.image_policy.newline,
        unread=original.unread_of(tower.config.model_type, tower.config.num_hidden_layers),
    )
    config = original_config.original_config(
        text_config=text_config,
        tower=vision_tower or original_config.TOWER_FOLDER,
        tuned=vision_tower is not None,
        tower_width=tower.config.hidden_size,
        layer=settings.vision_feature_layer,
        select=settings.vision_feature_select,
        projector=settings.projector,
        policy=settings.image_policy,
        image_size=model.geometry.image_size,
        dtype=saved_dtype,
        template=settings.template,
    )
    with atomic_folder(folder) as temporary:
        write_tensors(temporary, tensors)
        companions.write_tokenizer(temporary, model.tokenizer, None)
        companions.write_generation_config(temporary, model.tokenizer, stop_ids(model))
        if vision_tower is None:
            beside = temporary / original_config.TOWER_FOLDER
            beside.mkdir()
            write_tensors(beside, original.bare_tower(parts["vision_tower"]))
            write_json(beside / "config.json", tower_config)
            square = companions.image_processor_config(model.pixels, ImagePolicy("square"))
            write_json(beside / "preprocessor_config.json", square)
        write_json(temporary / "config.json", config)
