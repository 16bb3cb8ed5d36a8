"""What lmms-eval is told of llavakit, by the entry point `lmms_eval.models`: a name, and where its class is.

Imports lmms-eval when it asks, and torch not even then.
"""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """The manifest that lmms-eval registers: `lmms_eval --model llavakit --model_args pretrained=FOLDER`."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        model_id="llavakit", simple_class_path="llavakit.evaluation.lmms_model.LlavakitForLmmsEval"
    )
