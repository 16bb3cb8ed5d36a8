"""Opening folders of the original LLaVA, and the projector files that it writes.

The vision tower is the one that config.json names (mm_vision_tower). Its weights come from the folder when config.json
says that they were tuned (LLaVA v1.6), and then must all be there; otherwise they are the named tower's own, and such
weights in the folder are left unread, as the original leaves them.

A folder may hold a LoRA adapter, or a projector alone; both need the base that they were trained on, which is a folder
of the original LLaVA or of a language model. The tokenizer is the folder's own where it has one, otherwise the base's.

The template is the one recorded in the folder. Where there is none, it follows from the language model: `mistral`,
`qwen`, or for Llama what its end of an answer says: `chatml_direct`, `llama_3` or `vicuna_v1`. LLaVA v0 and those on
LLaMA-2-chat do not say what they are: name their templates, `v0` and `llama_2`. Where the folder asks for `<im_start>`
and `<im_end>` around pictures, the template is marked so, also one that is named.

Knows modules and the checkpoint room. Knows nothing of training.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING

from llavakit.checkpoints import additions, original, original_config
from llavakit.checkpoints.adapter import CONFIG as ADAPTER_CONFIG
from llavakit.checkpoints.files import CheckpointError, read_tensors, read_weights_file
from llavakit.conversation.templates import MARKED, PICTURE_MARKS
from llavakit.errors import LlavakitError
from llavakit.images.spec import PixelSpec
from llavakit.model.assembling import assemble, build, dtype_of, filled
from llavakit.model.sources import checkpoint_folder, loading
from llavakit.model.towers import check_feature_layers, load_tower, tower_config
from llavakit.recipe import resolve_source

if TYPE_CHECKING:
    from llavakit.model.llava import Llava

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_TEMPLATES = {"mistral": "mistral", "qwen2": "qwen"}
_TEMPLATE_OF_END = {"<|im_end|>": "chatml_direct", "<|eot_id|>": "llama_3"}


def load_original(
    cls: type[Llava],
    path: Path,
    where: str,
    config: dict[str, Any],
    *,
    base: str | None,
    vision_tower: str | None,
    template: str | None,
    dtype: torch.dtype | None,
) -> Llava:
    """Opens the folder `path`, called `where`; the arguments are those of Llava.from_pretrained."""
    from llavakit.model.llava import LlavaSettings

    described = original_config.describe(config, where)
    path = checkpoint_folder(where, pickles=True)
    under = None if base is None else checkpoint_folder(resolve_source(base), pickles=True)
    with loading("language model's configuration in", where):
        text_config = AutoConfig.for_model(**described.language_model)
    parts = original.from_original(_tensors(path, under, where), where)
    state = parts["language_model"]
    _untie(text_config, state, where)
    tokenizer = _tokenizer(path, under, text_config, where)
    llm = build(MODEL_FOR_CAUSAL_LM_MAPPING, text_config, state, "language_model", where, dtype)
    tower, vision_config, pixels, layer = _tower(
        described, path, vision_tower, parts["vision_tower"], where, dtype or dtype_of(state), dtype
    )
    settings = LlavaSettings(
        projector=described.projector,
        vision_feature_layer=layer,
        vision_feature_select=described.select,
        image_policy=described.policy(pixels.image_size, where),
        template=_marked(
            described, template or _template(described, text_config, tokenizer), tokenizer, where
        ),
    )
    return assemble(
        cls,
        tower,
        [vision_config],
        llm,
        projector=parts["projector"],
        newline=parts["newline"],
        settings=settings,
        pixels=pixels,
        tokenizer=tokenizer,
        folder=path,
        where=where,
        dtype=dtype,
    )


def load_projector(model: Llava, file: str | Path) -> None:
    """Puts a projector's own file, the original's `mm_projector.bin` or the same as safetensors, into a model.

    Its layers take the type and place of those that the model had. Raises CheckpointError when the file holds another
    projector than the model's, or more than a projector.
    """
    where = str(file)
    state = original.projector_tensors(read_weights_file(Path(file)), where)
    dtype = next(model.projector.parameters()).dtype
    filled(model.projector, state, f"projector {model.settings.projector}", where, dtype)


def _tensors(path: Path, under: Path | None, where: str) -> dict[str, Tensor]:
    """Every tensor of the folder, or of its base with what the folder changes."""
    adapted, projected = ((path / name).exists() for name in (ADAPTER_CONFIG, additions.PROJECTOR_FILE))
    whole = any(path.glob("*.index.json")) or (path / "model.safetensors").exists()
    whole = whole or (path / "pytorch_model.bin").exists()
    if under is None:
        if not whole and (adapted or projected):
            found = "a LoRA adapter" if adapted else "a projector alone"
            raise CheckpointError(
                f"{where}: holds {found}; name the model that it was trained on as its base"
            )
        return read_tensors(path, pickles=True)
    if not adapted and not projected:
        raise CheckpointError(
            f"{where}: a base is given, but neither {ADAPTER_CONFIG} nor {additions.PROJECTOR_FILE} is there"
        )
    weights = read_tensors(under, pickles=True)
    if adapted:
        return additions.merge_folder(weights, path)
    file = path / additions.PROJECTOR_FILE
    state = original.projector_tensors(read_weights_file(file), str(file))
    return weights | {f"model.mm_projector.{name}": tensor for name, tensor in state.items()}


def _untie(config: PretrainedConfig, state: dict[str, Tensor], where: str) -> None:
    """Drops a head that repeats the embedding to which it is tied."""
    head = state.get("lm_head.weight")
    if head is None or not config.tie_word_embeddings:
        return
    if not torch.equal(head, state.get("model.embed_tokens.weight", head[:0])):
        raise CheckpointError(
            f"{where}: lm_head.weight differs from model.embed_tokens.weight, but config.json ties them; set "
            "tie_word_embeddings to false"
        )
    del state["lm_head.weight"]


def _tokenizer(path: Path, under: Path | None, config: PretrainedConfig, where: str) -> Any:
    holders = [folder for folder in (path, under) if folder is not None]
    holder = next((f for f in holders if any((f / name).exists() for name in _TOKENIZER_FILES)), None)
    if holder is None:
        raise CheckpointError(f"{where}: no tokenizer there; expected one of {', '.join(_TOKENIZER_FILES)}")
    with loading("tokenizer of", str(holder)):
        return AutoTokenizer.from_pretrained(str(holder), config=config, trust_remote_code=False)


def _template(described: original_config.Description, text_config: PretrainedConfig, tokenizer: Any) -> str:
    """The template that a folder records, or that follows from its language model."""
    if described.template is not None:
        return described.template
    ends = text_config.eos_token_id
    ids = ends if isinstance(ends, list) else [ends]
    names = {tokenizer.eos_token, *(tokenizer.convert_ids_to_tokens(n) for n in ids if isinstance(n, int))}
    end = next((end for end in _TEMPLATE_OF_END if end in names), None)
    chosen = _TEMPLATES.get(text_config.model_type)
    return chosen or (_TEMPLATE_OF_END[end] if end is not None else "vicuna_v1")


def _marked(described: original_config.Description, name: str, tokenizer: Any, where: str) -> str:
    """The template of this name, with marks around pictures where the folder asks for them."""
    if not described.marked:
        return name
    known = tokenizer.get_added_vocab()
    absent = [mark for mark in PICTURE_MARKS if mark not in known]
    if absent:
        raise CheckpointError(
            f"{where}: mm_use_im_start_end is true, but its tokenizer has no {absent[0]}; expected the tokenizer that "
            "the model was saved with"
        )
    return name.removesuffix(MARKED) + MARKED


def _tower(
    described: original_config.Description,
    path: Path,
    given: str | None,
    state: dict[str, Tensor],
    where: str,
    own_dtype: torch.dtype,
    dtype: torch.dtype | None,
) -> tuple[Any, PretrainedConfig, PixelSpec, int]:
    """The tower, its configuration, how it wants its pixels, and the layer that is read."""
    beside = (
        given is None
        and described.tower == original_config.TOWER_FOLDER
        and (path / described.tower).is_dir()
    )
    source = str(path / described.tower) if beside else given or described.tower
    try:
        config, pixels = tower_config(source)
        layer = described.layer if config.model_type != original.SIGLIP else -2
        if config.model_type not in original.TOWERS:
            raise LlavakitError(f"it is of type {config.model_type}, expected {' or '.join(original.TOWERS)}")
        check_feature_layers(config, layer)
        if not described.tuned and not beside:
            tower, pixels, _ = load_tower(source, vision_feature_layer=layer, dtype=own_dtype)
            return tower, tower.config, pixels, layer
    except LlavakitError as error:
        raise CheckpointError(
            f"{where}: its vision tower is {described.tower} ({error}); give a copy of it as vision_tower"
        ) from error
    if described.tuned:
        if not state:
            raise CheckpointError(
                f"{where}: config.json says that the vision tower was tuned, but no tensor of it is there; copy the "
                "checkpoint again"
            )
        if config.model_type == original.SIGLIP and not _has_all_layers(state, config):
            config.num_hidden_layers, config.vision_use_head, layer = config.num_hidden_layers - 1, False, -1
    else:
        state = read_tensors(path / described.tower)
    return build(MODEL_MAPPING, config, state, "vision_tower", where, dtype), config, pixels, layer


def _has_all_layers(state: dict[str, Tensor], config: PretrainedConfig) -> bool:
    last, _ = original.unread_of(config.model_type, config.num_hidden_layers)
    return any(last in name for name in state)
