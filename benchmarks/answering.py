"""What answering gains: weights of eight bits, a chat that keeps what it has read, and many answers at a time.

    OMP_NUM_THREADS=1 python benchmarks/answering.py

A random LLaVA of a CPU's size (Llama 512 wide, 12 layers, 32,768 tokens, tied; a CLIP of 384 x 12 with 144 features a
picture) answers greedily. Each number is set against a peer from the same run: int8 against float32, the first token of
a chat's second turn against reading everything again, a batch against one by one. Times are the process's own on one
thread, the least of several, so that a shared machine disturbs little. Random weights say nothing about the quality of
int8; tests/model/test_quantized.py bounds its rounding. Writes a dated file under benchmarks/results/. About a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModel, DynamicCache, LlamaConfig, LlamaForCausalLM

from llavakit.conversation.tokenize import Encoded, ImageSpan
from llavakit.images.geometry import TowerGeometry
from llavakit.images.spec import PixelSpec
from llavakit.model.arrange import Newline
from llavakit.model.generation import Request, generate, prompt_embeddings
from llavakit.model.language import load_tokenizer, prepare_language_model
from llavakit.model.llava import Llava, LlavaSettings
from llavakit.model.projectors import build_projector
from llavakit.model.reuse import PictureFeatures, feed
from llavakit.model.session import ChatSession
from results import write_result

REPEATS = 4
NEW_TOKENS = 32
ROWS = 8
TEXT = 40


def random_llava() -> Llava:
    """The model that is measured."""
    torch.manual_seed(0)
    tower = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=384,
            intermediate_size=1536,
            num_hidden_layers=12,
            num_attention_heads=6,
            image_size=192,
            patch_size=16,
        )
    )
    language_model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32768,
            hidden_size=512,
            intermediate_size=1408,
            num_hidden_layers=12,
            num_attention_heads=8,
            num_key_value_heads=4,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            bos_token_id=1,
            eos_token_id=None,
        )
    )
    prepare_language_model(language_model, "random")
    geometry = TowerGeometry(192, 16)
    model = Llava(
        tower,
        build_projector("mlp2x_gelu", 384, 512, geometry.side),
        Newline(512),
        language_model,
        tokenizer=load_tokenizer("package:llavakit/quickstart/weights/language_model"),
        pixels=PixelSpec(image_size=192, mean=(0.5, 0.5, 0.5), std=(0.3, 0.3, 0.3)),
        geometry=geometry,
        settings=LlavaSettings(),
    )
    return model.eval()


def request(model: Llava, number: int) -> Request:
    """A prompt of a picture and TEXT random tokens; each number its own picture."""
    generator = torch.Generator().manual_seed(number)
    words = torch.randint(3, 32768, (TEXT,), generator=generator).tolist()
    span = ImageSpan(0, 1, model.geometry.tokens)
    ids = [words[0], *[-200] * span.length, *words[1:]]
    picture = Image.effect_noise((192, 192), 20 + number).convert("RGB")
    return Request(Encoded(ids, [-100] * len(ids), [span], 0), [picture])


def seconds(work: Callable[[], object]) -> float:
    """The process's time of one call, the least of several."""
    taken = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def step_seconds(models: Sequence[Llava]) -> list[float]:
    """Seconds a token while each model writes one answer, its prompt read before; in turn, so that all share luck."""
    least = [float("inf")] * len(models)
    for _ in range(REPEATS):
        for number, model in enumerate(models):
            embeddings = prompt_embeddings(model, [request(model, 0)], PictureFeatures(model))
            cache = DynamicCache()
            with torch.no_grad():
                token = model.head(feed(model, embeddings, cache)).argmax(-1)
                start = time.process_time()
                for _ in range(NEW_TOKENS):
                    token = model.head(feed(model, model.place(token[None], None), cache)).argmax(-1)
                least[number] = min(least[number], (time.process_time() - start) / NEW_TOKENS)
    return least


def second_turn(model: Llava) -> tuple[float, float, int]:
    """Seconds to the first token of a second turn, in the chat that read the first turn and in one that has to read it,
    and the positions of the prompt."""
    question, picture = "Describe the picture. " * 24, Image.effect_noise((192, 192), 40).convert("RGB")
    second = "How many are there?"
    kept, afresh, positions = [], [], 0
    for _ in range(REPEATS):
        session = ChatSession(model, max_new_tokens=1)
        history = [(question, session.ask(question, [picture]))]
        start = time.process_time()
        session.ask(second)
        kept.append(time.process_time() - start)
        other = ChatSession(model, max_new_tokens=1)
        start = time.process_time()
        other.recall(history, [picture])
        other.ask(second)
        afresh.append(time.process_time() - start)
        positions = other.positions
    return min(kept), min(afresh), positions


def many_at_once(model: Llava) -> tuple[float, float]:
    """Seconds for ROWS answers about ROWS pictures: one by one, and together."""
    requests = [request(model, number) for number in range(ROWS)]

    def answer(rows: int) -> Callable[[], object]:
        return lambda: generate(model, requests, max_new_tokens=NEW_TOKENS, batch_rows=rows)

    return seconds(answer(1)), seconds(answer(ROWS))


def main() -> None:
    torch.set_num_threads(1)
    model = random_llava()
    rounded = random_llava()
    done = rounded.quantize_int8()
    whole, small = step_seconds([model, rounded])
    kept, afresh, positions = second_turn(model)
    alone, together = many_at_once(model)
    lines = [
        f"decode, one answer: float32 {1 / whole:.1f} tokens/s, int8 {1 / small:.1f} tokens/s: {whole / small:.2f}x "
        f"(int8: {done.layers} layers, {done.share:.0%} of the language model)",
        f"second turn of {positions} positions, first token: read again {1e3 * afresh:.0f} ms, kept {1e3 * kept:.0f} "
        f"ms: {afresh / kept:.1f}x",
        f"{ROWS} answers of {NEW_TOKENS} tokens, float32: one by one {alone:.2f} s, together {together:.2f} s: "
        f"{alone / together:.2f}x",
    ]
    print("\n".join(lines))
    result = {
        "decode_tokens_per_second": {"float32": round(1 / whole, 1), "int8": round(1 / small, 1)},
        "int8_over_float32": round(whole / small, 2),
        "second_turn_positions": positions,
        "second_turn_ms": {"kept": round(1e3 * kept, 1), "read_again": round(1e3 * afresh, 1)},
        "read_again_over_kept": round(afresh / kept, 2),
        "batch_seconds": {"one_by_one": round(alone, 2), "together": round(together, 2)},
        "one_by_one_over_together": round(alone / together, 2),
    }
    write_result("answering", result)


if __name__ == "__main__":
    main()
