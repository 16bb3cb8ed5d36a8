"""The config.json of the original LLaVA (folders of `liuhaotian/*` and of LLaVA-NeXT): its `mm_*` keys.

It is the language model's with more keys. Pinpoints are (width, height) in pixels, a list or a string, in
the order that settles ties. Keys that older folders lack have the defaults of the original's code: projector `linear`,
merge `flat`, aspect ratio `square`, feature `patch`. `<im_patch>`, which its loader adds to the tokenizer where
`mm_use_im_patch_token` says so, stands in no prompt and is not added.

The tower's weights in a folder count only where the folder says that the tower was tuned (`unfreeze_mm_vision_tower`,
or `mm_tunable_parts` that names it).

What the dialect cannot say, which template a model was trained with and how several pictures are shown, stands under
the key `llavakit`.

Knows configurations as dictionaries. The tensors' names are `original`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llavakit.checkpoints.files import CheckpointError
from llavakit.checkpoints.original import SIGLIP, TOWERS
from llavakit.conversation.templates import MARKED
from llavakit.images.geometry import MERGES, Grid, ImagePolicy

# model_type of the dialect: model_type of the language model, and the class it is opened with there.
LANGUAGE_MODELS = {
    "llava": ("llama", "LlavaLlamaForCausalLM"),
    "llava_llama": ("llama", "LlavaLlamaForCausalLM"),
    "llava_mistral": ("mistral", "LlavaMistralForCausalLM"),
    "llava_qwen": ("qwen2", "LlavaQwenForCausalLM"),
}
_WRITTEN = {language: kind for kind, (language, _) in LANGUAGE_MODELS.items()}
TOWER_FOLDER = "vision_tower"  # a tower that lies beside the weights, under this name

# Keys of config.json that are not the language model's.
_OWN_PREFIXES = (
    "mm_",
    "image_",
    "tune_mm",
    "freeze_mm",
    "unfreeze_mm",
    "tokenizer_",
    "add_faster",
    "pos_skipping",
)
_OWN_KEYS = (
    "use_mm_proj", "use_pos_skipping", "vision_tower_pretrained", "s2", "s2_scales", "llavakit", "model_type",
    "architectures", "auto_map", "transformers_version", "torch_dtype", "dtype", "_name_or_path", "quantization_config",
)  # fmt: skip
_ASPECT = re.compile(r"anyres(?:_max_([1-9]\d*))?")
_PROJECTORS = re.compile(r"linear|mlp[1-9]\d*x_gelu")
_RANGE = re.compile(r"\((\d+)x(\d+)\)")
_PAIR = re.compile(r"[(\[]\s*(\d+)\s*,\s*(\d+)\s*[)\]]")

Pinpoints = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Description:
    """What a config.json of the dialect says.

    language_model: its config.json. tower: a name. tuned: whether the folder's own weights of the tower count.
    layer, select, projector, aspect, max_tiles, merge: as LlavaSettings and ImagePolicy have them. pinpoints: (width,
    height) in pixels, or in tiles where `in_tiles`. marked: whether pictures stand between `<im_start>` and `<im_end>`.
    template, several: None where the folder does not say.
    """

    language_model: dict[str, Any]
    tower: str
    tuned: bool
    layer: int
    select: str
    projector: str
    aspect: str
    merge: str
    max_tiles: int | None
    pinpoints: Pinpoints
    in_tiles: bool
    marked: bool
    template: str | None
    several: str | None

    def policy(self, image_size: int, where: str) -> ImagePolicy:
        """The image policy for tiles of this size; raises CheckpointError where the pinpoints do not fit."""
        if self.aspect != "anyres":
            return ImagePolicy(self.aspect)
        grids = []
        for width, height in self.pinpoints:
            if not self.in_tiles and (width % image_size or height % image_size or not width or not height):
                raise CheckpointError(
                    f"{where}: the pinpoint {[width, height]} is no multiple of the tower's {image_size} pixels; these "
                    "pinpoints belong to another tower"
                )
            size = 1 if self.in_tiles else image_size
            grids.append(Grid(width // size, height // size))
        most = self.max_tiles if self.merge == "spatial_unpad" else None
        return ImagePolicy("anyres", tuple(grids), self.merge, most, self.several or "anyres")


def announced(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of this dialect: the language model's own, with the tower named among its keys."""
    return "text_config" not in config and (
        "mm_vision_tower" in config
        or config.get("model_type") in ("llava_llama", "llava_mistral", "llava_qwen")
    )


def describe(config: Mapping[str, Any], where: str) -> Description:
    """Reads a config.json; raises CheckpointError, naming `where` and the key, for what llavakit cannot do."""
    kind = config.get("model_type")
    if kind not in LANGUAGE_MODELS:
        raise CheckpointError(
            f"{where}: the architecture {kind} is unknown; of the original LLaVA, {', '.join(LANGUAGE_MODELS)} are read"
        )
    tower, layer = config.get("mm_vision_tower"), config.get("mm_vision_select_layer")
    if not isinstance(tower, str) or not isinstance(layer, int):
        raise CheckpointError(
            f"{where}: config.json names mm_vision_tower {tower} and mm_vision_select_layer {layer}; expected a name "
            "and a number"
        )
    for key in ("s2", "mm_resampler_type"):
        if config.get(key) not in (None, False):
            raise CheckpointError(
                f"{where}: {key} is {config[key]}, which llavakit does not do; expected none"
            )
    projector = config.get("mm_projector_type") or "linear"
    select = config.get("mm_vision_select_feature") or "patch"
    merge = config.get("mm_patch_merge_type") or "flat"
    aspect = config.get("image_aspect_ratio") or "square"
    tiled = _ASPECT.fullmatch(aspect)
    for key, value, fits, known in (
        ("mm_projector_type", projector, _PROJECTORS.fullmatch(projector), "linear or mlpNx_gelu"),
        ("mm_vision_select_feature", select, select in ("patch", "cls_patch"), "patch or cls_patch"),
        ("mm_patch_merge_type", merge, merge in MERGES, ", ".join(MERGES)),
        (
            "image_aspect_ratio",
            aspect,
            tiled or aspect in ("square", "pad"),
            "square, pad, anyres or anyres_max_N",
        ),
    ):
        if not fits:
            raise CheckpointError(f"{where}: {key} is {value}, which llavakit does not do; expected {known}")
    pinpoints, in_tiles = read_pinpoints(config.get("image_grid_pinpoints"), where) if tiled else ((), False)
    more = config.get("llavakit") or {}
    parts = str(config.get("mm_tunable_parts") or "")
    return Description(
        language_model=_language_model(config),
        tower=tower,
        tuned=bool(config.get("unfreeze_mm_vision_tower")) or "mm_vision_tower" in parts,
        layer=layer,
        select=select,
        projector=projector,
        aspect="anyres" if tiled else aspect,
        merge=merge,
        max_tiles=int(tiled.group(1)) if tiled and tiled.group(1) else None,
        pinpoints=pinpoints,
        in_tiles=in_tiles,
        marked=bool(config.get("mm_use_im_start_end")),
        template=more.get("template"),
        several=more.get("several"),
    )


def read_pinpoints(value: Any, where: str) -> tuple[Pinpoints, bool]:
    """Pinpoints in their order, and whether they count tiles: `(1x1),...,(6x6)` names a range of those.

    A list, or the text of one, is of (width, height) in pixels. Raises CheckpointError for anything else.
    """
    found: list[tuple[int, int]] = []
    if isinstance(value, str) and "x" in value:
        ends = [(int(wide), int(high)) for wide, high in _RANGE.findall(value)]
        if ends:
            (left, top), (right, bottom) = ends[0], ends[-1]
            found = [(w, h) for w in range(left, right + 1) for h in range(top, bottom + 1)]
    elif isinstance(value, str):
        found = [(int(wide), int(high)) for wide, high in _PAIR.findall(value)]
    elif isinstance(value, list) and all(
        isinstance(point, list) and len(point) == 2 and all(isinstance(side, int) for side in point)
        for point in value
    ):
        found = [(point[0], point[1]) for point in value]
    if not found:
        raise CheckpointError(f"{where}: image_grid_pinpoints is {value}, expected a list of [width, height]")
    return tuple(found), isinstance(value, str) and "x" in value


def _language_model(config: Mapping[str, Any]) -> dict[str, Any]:
    """The language model's own configuration, its rotary positions named as transformers names them now."""
    own = {
        key: value
        for key, value in config.items()
        if key not in _OWN_KEYS and not key.startswith(_OWN_PREFIXES)
    }
    rope = dict(own.pop("rope_scaling", None) or {})
    if "type" in rope:
        rope["rope_type"] = rope.pop("type")
    if "rope_theta" in own:
        rope["rope_theta"] = own.pop("rope_theta")
    if rope:
        own["rope_parameters"] = {"rope_type": "default", **rope}
    return {"model_type": LANGUAGE_MODELS[config["model_type"]][0], **own}


def why_not_expressible(
    *,
    language_model: str,
    tower: str | None,
    layer: int | tuple[int, ...],
    select: str,
    projector: str,
    policy: ImagePolicy,
) -> str | None:
    """Says why a model does not fit the dialect; None when it does.

    language_model, tower: their model types, tower None where several are fused.
    """
    if tower is None:
        return "it has several vision towers"
    if tower not in TOWERS:
        return f"its vision tower is of type {tower}, not CLIP or SigLIP"
    if language_model not in _WRITTEN:
        return f"its language model is of type {language_model}, not one of {', '.join(_WRITTEN)}"
    if not isinstance(layer, int):
        return f"it reads {len(layer)} layers of its tower"
    if tower == SIGLIP and (layer, select) != (-2, "patch"):
        return f"it reads layer {layer} and {select} of SigLIP, of which the original reads layer -2 and patch alone"
    if not _PROJECTORS.fullmatch(projector):
        return f"its projector is {projector}"
    if policy.name == "anyres" and policy.merge != "flat" and select != "patch":
        return f"its tiles' features are {select}"
    return None


def original_config(
    *,
    text_config: Mapping[str, Any],
    tower: str,
    tuned: bool,
    tower_width: int,
    layer: int,
    select: str,
    projector: str,
    policy: ImagePolicy,
    image_size: int,
    dtype: str,
    template: str,
) -> dict[str, Any]:
    """config.json of the dialect. tower: the name recorded; tuned: whether its weights stand in the folder's own."""
    kind = _WRITTEN[text_config["model_type"]]
    most = "" if policy.max_tiles is None else f"_max_{policy.max_tiles}"
    tiled = policy.name == "anyres"
    points = [[grid.columns * image_size, grid.rows * image_size] for grid in policy.grids]
    return {
        **_rotary(text_config),
        "architectures": [LANGUAGE_MODELS[kind][1]],
        "model_type": kind,
        "torch_dtype": dtype,
        "image_aspect_ratio": policy.name + most if tiled else policy.name,
        **({"image_grid_pinpoints": points} if tiled else {}),
        "mm_hidden_size": tower_width,
        "mm_patch_merge_type": policy.merge if tiled else "flat",
        "mm_projector_lr": None,
        "mm_projector_type": projector,
        "mm_resampler_type": None,
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": template.endswith(MARKED),
        "mm_vision_select_feature": select,
        "mm_vision_select_layer": layer,
        "mm_vision_tower": tower,
        "mm_vision_tower_lr": None,
        "freeze_mm_mlp_adapter": False,
        "tune_mm_mlp_adapter": False,
        "unfreeze_mm_vision_tower": tuned,
        "use_mm_proj": True,
        "tokenizer_model_max_length": text_config["max_position_embeddings"],
        "tokenizer_padding_side": "right",
        "llavakit": {"template": template, "several": policy.several},
    }


def _rotary(text_config: Mapping[str, Any]) -> dict[str, Any]:
    """The language model's configuration, its rotary positions named as the original's transformers named them."""
    config = {key: value for key, value in text_config.items() if key not in ("rope_parameters", "dtype")}
    rope = dict(text_config.get("rope_parameters") or {})
    if "rope_theta" in rope:
        config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type", rope.pop("type", "default"))
    config["rope_scaling"] = None if kind == "default" else {**rope, "type": kind}
    return config
