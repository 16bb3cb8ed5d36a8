"""`Llava`: a vision tower, a projector and a causal language model, and the forward pass over a pack.

A picture's tiles go through the tower and the projector; the features, put in order by the picture's layout, are
written into the rows of the token embeddings that the pack keeps for them; the language model runs over the packed row
with attention that cannot cross a conversation; head and loss are computed only at the supervised positions.

Knows packs, modules and the tokenizer it was born with. Knows nothing of data sets, optimizers or stages: the loss is
returned as a sum with its count, and whoever owns the global batch divides.

Shapes: T packed positions, N tiles, P features of a tile, V tower width, D LLM width, S supervised positions,
K vocabulary, C H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedModel

from llavakit.errors import LlavakitError
from llavakit.images.geometry import ImagePolicy, Layout, TowerGeometry, layout
from llavakit.images.spec import PixelSpec
from llavakit.model.adapters import load_adapter, merge_adapters
from llavakit.model.arrange import Newline, arrange
from llavakit.model.fused import FusedTowers, load_fused
from llavakit.model.language import apply_head, load_language_model, token_embedding
from llavakit.model.loss import chunk_size, chunked_cross_entropy
from llavakit.model.opening import load
from llavakit.model.packed import IGNORE_INDEX, IMAGE_TOKEN_ID, Pack
from llavakit.model.projectors import build_projector, reduced_side
from llavakit.model.quantized import Quantized, quantize_linear_layers
from llavakit.model.saving import save
from llavakit.model.session import ChatSession
from llavakit.model.sources import checkpoint_folder
from llavakit.model.towers import Layers, feature_width, layer_list, load_tower, tower_features

Tower = PreTrainedModel | FusedTowers


@dataclass(frozen=True)
class LlavaSettings:
    """What of a Llava is neither weight nor module; saved with the checkpoint.

    projector: see `projectors`. vision_feature_layer: which hidden state of the tower is read, or which several, their
    features side by side. vision_feature_select: `patch` or `cls_patch`. image_policy: how pictures are shown.
    template: the conversation template it was last trained with, which chat uses.
    """

    projector: str = "mlp2x_gelu"
    vision_feature_layer: int | tuple[int, ...] = -2
    vision_feature_select: str = "patch"
    image_policy: ImagePolicy = field(default_factory=ImagePolicy)
    template: str = "vicuna_v1"


class PackedLoss(NamedTuple):
    """loss_sum: cross-entropy summed over the supervised positions, float32 scalar. supervised: how many there are."""

    loss_sum: Tensor
    supervised: int


class Llava(nn.Module):
    """A LLaVA model. `compose` makes one of parts, `from_pretrained` opens a saved one.

    vision_tower, projector, newline, language_model: the parts, each an `nn.Module`. tokenizer: the language model's.
    pixels, geometry: how pictures become tiles and how many positions a tile takes. settings: see LlavaSettings;
    a plain attribute that a training stage may replace.
    """

    part_names = ("vision_tower", "projector", "newline", "language_model")

    vision_tower: Tower
    projector: nn.Module
    newline: Newline
    language_model: PreTrainedModel

    def __init__(
        self,
        vision_tower: Tower,
        projector: nn.Module,
        newline: Newline,
        language_model: PreTrainedModel,
        *,
        tokenizer: Any,
        pixels: PixelSpec,
        geometry: TowerGeometry,
        settings: LlavaSettings,
    ) -> None:
        super().__init__()
        self.vision_tower = vision_tower
        self.projector = projector
        self.newline = newline
        self.language_model = language_model
        self.tokenizer = tokenizer
        self.pixels = pixels
        self.geometry = geometry
        self.settings = settings

    @classmethod
    def compose(
        cls,
        *,
        vision_tower: str | Sequence[str],
        language_model: str,
        projector: str = "mlp2x_gelu",
        image_size: int | None = None,
        vision_feature_layer: int | Sequence[int] = -2,
        vision_feature_select: str = "patch",
        image_policy: ImagePolicy | str = "pad",
        template: str = "vicuna_v1",
        dtype: torch.dtype | None = None,
        seed: int = 0,
    ) -> Llava:
        """Joins a pretrained tower and a pretrained language model by a fresh projector.

        vision_tower, language_model: a folder, a hub name, `package:PKG/path`, and for the language model also a
        `.gguf` file. Several towers are fused, their features side by side. image_size: of a tile, where it is not to
        be the tower's own. image_policy: a name alone stands for its usual settings. dtype: of all parameters; float32
        when None. seed: of the projector's and the newline's first weights.
        Raises LlavakitError, naming the part, when one cannot be opened or does not fit.
        """
        dtype = dtype or torch.float32
        layers = layer_list(vision_feature_layer)
        tower, pixels, geometry = _open_tower(
            vision_tower,
            image_size=image_size,
            vision_feature_layer=layers,
            vision_feature_select=vision_feature_select,
            dtype=dtype,
        )
        llm, tokenizer = load_language_model(language_model, dtype)
        width = token_embedding(llm).embedding_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            joint = build_projector(projector, tower_width(tower, layers), width, geometry.side).to(dtype)
        geometry = replace(geometry, reduced_side=reduced_side(projector, geometry.side))
        settings = LlavaSettings(
            projector,
            layers[0] if len(layers) == 1 else layers,
            vision_feature_select,
            ImagePolicy(image_policy) if isinstance(image_policy, str) else image_policy,
            template,
        )
        newline = Newline(width, seed).to(dtype)
        return cls(
            tower,
            joint,
            newline,
            llm,
            tokenizer=tokenizer,
            pixels=pixels,
            geometry=geometry,
            settings=settings,
        )

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
        *,
        base: str | None = None,
        vision_tower: str | None = None,
        template: str | None = None,
    ) -> Llava:
        """Opens a saved Llava, a folder (or hub name) in the layout of `LlavaForConditionalGeneration`, or one of the
        original LLaVA's; see `opening_original`.

        dtype: of all parameters; as saved when None. base: what an original folder that holds a LoRA adapter or a
        projector alone is put on. vision_tower: a copy of the tower that an original folder names. template: the
        conversation template, where it is not to be the folder's.
        Raises LlavakitError, naming folder and tensor, when the folder is not complete, a file is cut short, or a
        tensor is missing, left over or of another shape.
        """
        return load(cls, folder, dtype, device, base=base, vision_tower=vision_tower, template=template)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Saves the model as a folder, whole or not at all; what stood there before is replaced.

        The folder is in the layout of `LlavaForConditionalGeneration`, or under `anyres` of
        `LlavaNextForConditionalGeneration`, which stock transformers opens, with tokenizer, processor and chat
        template; llavakit's settings stand under the key `llavakit` of config.json. The layouts can express the
        projectors `linear` and `mlp2x_gelu`, one tower with at most one token before the patches (or `cls_patch`),
        tiles merged as `spatial_unpad`, and language models whose scores are hidden state times head. Any other model
        is saved in llavakit's own layout, which only `from_pretrained` opens; its config.json says why.

        dtype: of the saved weights; as they are when None.
        """
        save(self, folder, dtype)

    def load_adapter(self, folder: str | Path, merge: bool = True) -> None:
        """Opens a LoRA adapter, and the parts that were trained beside it, on this model, its base.

        folder: of PEFT's form (adapter_config.json, adapter_model.safetensors), or a hub name; its names may be those
        of a stock LLaVA, of the language model alone, or llavakit's. merge: adds it to the weights, after which the
        model is an ordinary one; else it stays beside them and `merge_adapter` can add it later.
        Raises LlavakitError, naming folder and tensor, when it is not plain LoRA, is damaged or is of another base,
        and when the package peft is not installed. The model is then as it was.
        """
        load_adapter(self, checkpoint_folder(str(folder)), str(folder), merge)

    def merge_adapter(self) -> None:
        """Adds an adapter that is loaded beside the weights to them; does nothing where there is none."""
        merge_adapters(self)

    def quantize_int8(self) -> Quantized:
        """Gives the language model's linear layers weights of eight bits, one scale an output channel; for answering.

        Such a model can neither be trained nor saved. Raises LlavakitError when it has been done already.
        """
        return quantize_linear_layers(self.language_model)

    @property
    def device(self) -> torch.device:
        """Where the language model's parameters are."""
        return next(self.language_model.parameters()).device

    @property
    def vocabulary(self) -> int:
        """Rows of the language model's token embedding; at least the tokenizer's length."""
        return self._embedding.num_embeddings

    @property
    def _embedding(self) -> nn.Embedding:
        return token_embedding(self.language_model)

    def parts(self) -> dict[str, nn.Module]:
        """The parts by name."""
        return {name: getattr(self, name) for name in self.part_names}

    def image_layout(self, width: int, height: int, pictures: int = 1) -> Layout:
        """What becomes of a picture of this size in a conversation of so many pictures."""
        return layout(self.settings.image_policy, self.geometry, width, height, pictures)

    def image_length(self, width: int, height: int, pictures: int = 1) -> int:
        """Positions that a picture of this size takes in a conversation of so many pictures."""
        return self.image_layout(width, height, pictures).tokens

    def checkpoint_activations(self, vision_tower: bool = True, language_model: bool = True) -> None:
        """From now on, in training mode, layers keep only their input and are computed again in the backward pass."""
        for part, wanted in ((self.vision_tower, vision_tower), (self.language_model, language_model)):
            if wanted:
                part.activation_checkpointing_enable({"use_reentrant": False})

    def encode_images(self, tiles_NCHW: Tensor) -> Tensor:
        """Features (N, P, D) of normalised tiles. A tower none of whose parameters is trained runs without autograd."""
        frozen = not any(parameter.requires_grad for parameter in self.vision_tower.parameters())
        with torch.no_grad() if frozen else nullcontext():
            features_NPV = self._tower_features(tiles_NCHW)
        parameter = next(self.projector.parameters())
        return self.projector(features_NPV.to(parameter.device, parameter.dtype))

    def _tower_features(self, tiles_NCHW: Tensor) -> Tensor:
        settings = self.settings
        if isinstance(self.vision_tower, FusedTowers):
            parameter = next(self.vision_tower.parameters())
            return self.vision_tower.features(
                tiles_NCHW.to(parameter.device, parameter.dtype), settings.vision_feature_layer
            )
        return tower_features(
            self.vision_tower, tiles_NCHW, settings.vision_feature_layer, settings.vision_feature_select
        )

    def arrange(self, features_NPD: Tensor, layouts: Sequence[Layout]) -> Tensor:
        """The rows (M, D) that stand for pictures in the sequence, of the features of all their tiles."""
        return arrange(features_NPD, layouts, self.newline.weight)

    def embed(self, pack: Pack, features_NPD: Tensor | None = None) -> Tensor:
        """Token embeddings (T, D) of a pack with the pictures' features written in.

        features_NPD: given when the tiles' features are already known; otherwise they are computed.
        Raises LlavakitError, naming the samples, when features and picture positions do not match in number.
        """
        if features_NPD is None and pack.tiles_NCHW is not None:
            features_NPD = self.encode_images(pack.tiles_NCHW)
        if features_NPD is None:
            return self.place(pack.ids_T, None)
        layouts = list(chain.from_iterable(pack.layouts))
        fits = sum(one.tiles for one in layouts) == len(features_NPD)
        rows_MD = self.arrange(features_NPD, layouts) if fits else features_NPD.flatten(0, 1)
        if int((pack.ids_T == IMAGE_TOKEN_ID).sum()) != len(rows_MD):
            raise LlavakitError(_mismatch(pack, self.geometry.tokens))
        return self.place(pack.ids_T, rows_MD)

    def place(self, ids: Tensor, rows_MD: Tensor | None) -> Tensor:
        """Token embeddings (..., D) of ids, rows_MD written in order into the M positions that are pictures'.

        Gradients reach both the embedding and the rows.
        """
        if rows_MD is None:
            return self._embedding(ids)
        flat = ids.flatten()
        pictured = flat == IMAGE_TOKEN_ID
        embeddings = self._embedding(flat.masked_fill(pictured, 0))
        embeddings = embeddings.index_copy(0, pictured.nonzero().squeeze(1), rows_MD.to(embeddings.dtype))
        return embeddings.view(*ids.shape, -1)

    def hidden(self, pack: Pack) -> Tensor:
        """Last hidden states (T, D) of a pack."""
        output = self.language_model.base_model(
            inputs_embeds=self.embed(pack)[None],
            position_ids=pack.positions_T[None],
            cu_seqlens=pack.cu_seqlens,
            use_cache=False,
        )
        return output.last_hidden_state[0]

    def head(self, hidden_nD: Tensor) -> Tensor:
        """Scores (n, K) of hidden states."""
        return apply_head(self.language_model, hidden_nD)

    def forward(self, pack: Pack) -> PackedLoss:
        """The summed loss of a pack and the number of positions it is a sum over.

        A pack without supervised positions gives a sum of zero. The order of conversations in the pack, and which
        others are in it, do not change a conversation's share of the sum.
        """
        pack = pack.to(self.device)
        supervised_T = pack.labels_T != IGNORE_INDEX
        targets_S = pack.labels_T[supervised_T]
        hidden_SD = self.hidden(pack)[supervised_T]
        loss_sum = chunked_cross_entropy(hidden_SD, self.head, targets_S, chunk_size(self.vocabulary))
        return PackedLoss(loss_sum, len(targets_S))

    def logits(self, pack: Pack) -> Tensor:
        """Scores (T, K) at every position of a pack."""
        return self.head(self.hidden(pack.to(self.device)))

    def chat(
        self,
        question: str,
        images: Sequence[str | Path | bytes | Image.Image] = (),
        history: Sequence[tuple[str, str]] = (),
        *,
        videos: Sequence[str | Path] = (),
        **sampling: Any,
    ) -> str:
        """The answer to a question about pictures and short videos.

        images: files, bytes or PIL images; they stand before the first question of the conversation. videos: files or
        folders of frames, as in `images.frames`; they stand after the pictures. history: earlier questions with their
        answers. sampling: `max_new_tokens`, `temperature`, `top_p`, `seed`, `stop` as in
        `generation.generate`. Raises PictureError for a picture that cannot be opened.
        """
        session = ChatSession(self, **sampling)
        if not history:
            return session.ask(question, images, videos)
        session.recall(history, images, videos)
        return session.ask(question)


def _open_tower(source: str | Sequence[str], **how: Any) -> tuple[Tower, PixelSpec, TowerGeometry]:
    """One tower, or several as one."""
    names = [source] if isinstance(source, str) else list(source)
    return load_tower(names[0], **how) if len(names) == 1 else load_fused(names, **how)


def tower_width(tower: Tower, layers: Layers) -> int:
    """The width of the features that a projector is given."""
    return tower.width(layers) if isinstance(tower, FusedTowers) else feature_width(tower.config, layers)


def _mismatch(pack: Pack, features: int) -> str:
    """Says which samples of a pack have another number of picture positions than this model's features of a tile."""
    wrong = []
    for sample, ((a, b), layouts) in enumerate(zip(pairwise(pack.cu_seqlens), pack.layouts, strict=True)):
        places = int((pack.ids_T[a:b] == IMAGE_TOKEN_ID).sum())
        tiles = sum(one.tiles for one in layouts)
        if places and places != tiles * features:
            wrong.append(
                f"{pack.sample_ids[sample]} ({places} picture positions, {tiles} tiles of {features} features)"
            )
    return (
        f"samples whose pictures do not fit their positions: {', '.join(wrong) or ', '.join(pack.sample_ids)}; "
        "the positions must be counted with the geometry of this model"
    )
