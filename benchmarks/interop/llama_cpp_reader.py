"""The reader's half of `llama_cpp.py`, run by a Python that has llama-cpp-python and knows nothing of llavakit.

    python -P llama_cpp_reader.py JOB.json OUT.json

The job names the two GGUF files and lists questions, each a prompt with llama.cpp's media marker where the picture
stands, and a file of raw RGB pixels. For each, OUT holds what llama.cpp made of it: the ids of the text around the
picture, the picture's embeddings, the scores behind the prompt, and the ids of its greedy answer. No sampling, no
repetition penalty, and a key-value cache of 32 bits, so that nothing but arithmetic can differ.

The flag -P keeps this folder off the path, where a file is called as the package is.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import mtmd_cpp as mtmd

F32 = 0  # GGML_TYPE_F32

_default_params = llama_cpp.llama_cpp.llama_model_default_params


def plain_params() -> Any:
    """llama.cpp's settings without repacked weights: its AMX kernel for q8_0 ends the process on some machines."""
    params = _default_params()
    params.use_extra_bufts = False
    return params


llama_cpp.llama_cpp.llama_model_default_params = plain_params


class Reader:
    """llama.cpp with a language model and an mmproj file."""

    def __init__(self, text: str, mmproj: str, context: int) -> None:
        self.llama = llama_cpp.Llama(
            text, n_ctx=context, n_batch=context, n_threads=1, type_k=F32, type_v=F32, verbose=False
        )
        settings = mtmd.mtmd_context_params_default()
        settings.use_gpu, settings.n_threads, settings.print_timings = False, 1, False
        settings.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.mtmd = mtmd.mtmd_init_from_file(mmproj.encode(), self.llama.model, settings)
        if self.mtmd is None:
            raise SystemExit(f"llama.cpp cannot open {mmproj}")
        self.width = llama_cpp.llama_model_n_embd(self.llama.model)

    def ask(self, prompt: str, size: tuple[int, int], rgb: bytes, count: int) -> dict[str, Any]:
        """What becomes of one prompt with one picture; `count` tokens are answered at most."""
        chunks = self._chunks(prompt, size, rgb)
        texts, embeddings = [], []
        for number in range(mtmd.mtmd_input_chunks_size(chunks)):
            chunk = mtmd.mtmd_input_chunks_get(chunks, number)
            if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT:
                found = ctypes.c_size_t()
                ids = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(found))
                texts.append([int(ids[place]) for place in range(found.value)])
                continue
            if mtmd.mtmd_encode_chunk(self.mtmd, chunk) != 0:
                raise SystemExit("llama.cpp cannot encode the picture")
            rows = mtmd.mtmd_input_chunk_get_n_tokens(chunk)
            found_embeddings = mtmd.mtmd_get_output_embd(self.mtmd)
            embeddings.append(np.ctypeslib.as_array(found_embeddings, (rows, self.width)).copy())
            texts.append([])
        scores, answer = self._answer(chunks, count)
        mtmd.mtmd_input_chunks_free(chunks)
        return {
            "texts": [ids for ids in texts if ids],
            "embeddings": embeddings[0].tolist(),
            "scores": scores.tolist(),
            "answer": answer,
        }

    def _chunks(self, prompt: str, size: tuple[int, int], rgb: bytes) -> Any:
        bitmap = mtmd.mtmd_bitmap_init(*size, (ctypes.c_uint8 * len(rgb)).from_buffer_copy(rgb))
        told = prompt.encode()
        text = mtmd.mtmd_input_text()
        text.text, text.text_len, text.add_special, text.parse_special = told, len(told), True, True
        chunks = mtmd.mtmd_input_chunks_init()
        bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
        if mtmd.mtmd_tokenize(self.mtmd, chunks, ctypes.byref(text), bitmaps, 1) != 0:
            raise SystemExit("llama.cpp cannot tokenise the prompt")
        mtmd.mtmd_bitmap_free(bitmap)
        return chunks

    def _answer(self, chunks: Any, count: int) -> tuple[Any, list[int]]:
        """The scores behind the prompt, and the greedy ids up to and with one that ends an answer."""
        self.llama.reset()
        self.llama._ctx.kv_cache_clear()
        context, past = self.llama.ctx, llama_cpp.llama_pos(0)
        batch = self.llama.n_batch
        done = mtmd.mtmd_helper_eval_chunks(self.mtmd, context, chunks, 0, 0, batch, True, ctypes.byref(past))
        if done != 0:
            raise SystemExit("llama.cpp cannot read the prompt")
        vocabulary = llama_cpp.llama_model_get_vocab(self.llama.model)
        rows = llama_cpp.llama_vocab_n_tokens(vocabulary)
        first, ids = None, []
        while len(ids) < count:
            scores = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), (rows,)).copy()
            first = scores if first is None else first
            ids.append(int(scores.argmax()))
            if llama_cpp.llama_vocab_is_eog(vocabulary, ids[-1]):
                break
            token = (llama_cpp.llama_token * 1)(ids[-1])  # the batch points at it and does not own it
            if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(token, 1)) != 0:
                raise SystemExit("llama.cpp cannot go on with its answer")
        return first, ids


def main(job_file: str, out_file: str) -> None:
    job = json.loads(Path(job_file).read_text())
    reader = Reader(job["text"], job["mmproj"], job["context"])
    answers = [
        reader.ask(one["prompt"], tuple(one["size"]), Path(one["rgb"]).read_bytes(), job["count"])
        for one in job["questions"]
    ]
    Path(out_file).write_text(json.dumps({"version": llama_cpp.__version__, "answers": answers}))


if __name__ == "__main__":
    main(*sys.argv[1:])
