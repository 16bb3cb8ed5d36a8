"""Tiny random towers, language models and tokenizers, written once as folders that `Llava.compose` can open."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from llavakit.conversation.tokenize import Encoded, ImageSpan
from llavakit.images.geometry import Layout
from llavakit.model.llava import Llava
from llavakit.model.packed import Tiled

TILE, PATCH = 28, 7
PATCHES = (TILE // PATCH) ** 2
TEXT = [
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful answers.",
    "USER: What is this? ASSISTANT: It is a small red circle to the left of a large blue square.",
    "How many stars are there? There are three stars. Is there a green triangle? No. Describe the picture.",
    "system\nYou are a helpful assistant.\nuser\nAnswer the questions.\nassistant\n[INST] <<SYS>> [/INST] ### Human:",
]


def llama_tokenizer() -> PreTrainedTokenizerFast:
    """A SentencePiece-like tokenizer with <s>, </s>, bytes to fall back on and a space before the text."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=440, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] < 3]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with ChatML's tokens, no BOS, and a chat template of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    specials = [AddedToken(t, special=True) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    tokenizer.add_special_tokens(specials)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    return fast


VISION = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": TILE, "patch_size": PATCH}  # fmt: skip
TEXT_MODEL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}  # fmt: skip


def _save(model: torch.nn.Module, folder: Path, processor: dict[str, object] | None = None) -> str:
    for name, parameter in model.named_parameters():  # larger than the usual 0.02, so that differences show
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2 if "embed" not in name else 0.5)
    model.save_pretrained(folder)  # type: ignore[operator]
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return str(folder)


CLIP_PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": TILE},
    "do_center_crop": True, "crop_size": {"height": TILE, "width": TILE}, "resample": 3, "do_rescale": True,
    "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711], "do_convert_rgb": True,
}  # fmt: skip
SIGLIP_PROCESSOR = {
    "image_processor_type": "SiglipImageProcessor", "do_resize": True, "size": {"height": TILE, "width": TILE},
    "resample": 3, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
}  # fmt: skip


SIGLIP2_PROCESSOR = {
    "image_processor_type": "Siglip2ImageProcessor", "do_resize": True, "resample": 2, "do_rescale": True,
    "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    "patch_size": PATCH, "max_num_patches": PATCHES,
}  # fmt: skip


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of tiny random models by name."""
    root = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    clip = CLIPVisionConfig(**VISION, projection_dim=16)
    text = {
        "vocab_size": 64,
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    towers = {
        "clip": (CLIPVisionModel(clip), CLIP_PROCESSOR),
        "clip_bare": (CLIPVisionModel(clip), None),
        "clip_full": (
            CLIPModel(CLIPConfig(text_config=text, vision_config=clip.to_dict(), projection_dim=16)),
            CLIP_PROCESSOR,
        ),
        "siglip": (SiglipVisionModel(SiglipVisionConfig(**VISION, vision_use_head=False)), SIGLIP_PROCESSOR),
        "dinov2": (Dinov2Model(Dinov2Config(**{**VISION, "image_size": 70})), CLIP_PROCESSOR),
        "dinov2_registers": (
            Dinov2WithRegistersModel(
                Dinov2WithRegistersConfig(**{**VISION, "image_size": 70}, num_register_tokens=4)
            ),
            CLIP_PROCESSOR,
        ),
    }
    folders = {name: _save(model, root / name, processor) for name, (model, processor) in towers.items()}
    llama, qwen = llama_tokenizer(), qwen_tokenizer()
    models_ = {
        "llama": (LlamaForCausalLM(LlamaConfig(vocab_size=len(llama), bos_token_id=1, eos_token_id=2, **TEXT_MODEL)), llama),
        "llama_tied": (
            LlamaForCausalLM(LlamaConfig(vocab_size=512, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, **TEXT_MODEL)),
            llama,
        ),
        "qwen": (
            Qwen2ForCausalLM(Qwen2Config(vocab_size=len(qwen) + 5, eos_token_id=qwen.eos_token_id, **TEXT_MODEL)),
            qwen,
        ),
        "mistral": (
            MistralForCausalLM(MistralConfig(vocab_size=len(llama), sliding_window=6, bos_token_id=1, eos_token_id=2, **TEXT_MODEL)),
            llama,
        ),
    }  # fmt: skip
    for name, (model, tokenizer) in models_.items():
        folders[name] = _save(model, root / name)
        tokenizer.save_pretrained(root / name)
    siglip2 = Siglip2VisionConfig(
        **{key: value for key, value in VISION.items() if key != "image_size"},
        num_patches=PATCHES,
        vision_use_head=False,
    )
    folders["siglip2"] = _save(Siglip2VisionModel(siglip2), root / "siglip2", SIGLIP2_PROCESSOR)
    return folders


def item(
    seed: int, pictures: int = 0, length: int = 12, features: int = PATCHES, vocabulary: int = 400
) -> Encoded:
    """A conversation of random ids: some text, the pictures, more text; the last half of the text is supervised."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(3, vocabulary, (length,), generator=generator).tolist()
    ids, spans = text[:2], []
    for picture in range(pictures):
        spans.append(ImageSpan(picture, len(ids), features))
        ids = ids + [-200] * features + text[2 + picture : 3 + picture]
    ids = ids + text[2 + pictures :]
    labels = [-100] * (len(ids) - length // 2) + ids[len(ids) - length // 2 :]
    return Encoded(ids, labels, spans, 0)


def tile(seed: int, size: int = TILE, features: int = PATCHES) -> Tiled:
    """One picture, a tile of random pixels."""
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1000 + seed))
    return Tiled(pixels, Layout(1, features))


@pytest.fixture
def llava(parts: dict[str, str]) -> Llava:
    """A CLIP tower under a Llama, all parameters in float32."""
    return Llava.compose(vision_tower=parts["clip"], language_model=parts["llama"])
