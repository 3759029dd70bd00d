"""Hidden states of a language model, run by llama.cpp in this process: ``pip install llama-cpp-python``."""

from __future__ import annotations

import importlib
import os
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import TrmInputError, TrmUnsupportedError
from ..files import StrPath
from .providers import Offsets, Tokens, Vectors

LEAD_IN = "\n"  # read before a text, so that its first word is a word among others
REFERENCE = (
    "Turn on the lights in the kitchen and set them to 40 percent.",
    "What will the weather be like in Paris on Monday?",
    "Find a cheap Italian restaurant near the station, for four people at 8 pm.",
    'Add "Call the bank" to my list; remind me in 15 minutes.',
    "Calculate the distance from A to B in miles, given x = 3.5 and y = -2.",
    "The name of the city, such as Berlin. Optional, default is 10.",
    "Whether to include the details, true or false",
    "maximum price",
    "start date",
    "user id",
    "list of items",
    "unit",
    "file path",
)  # texts over which a state's mean and deviation are taken


class LlamaStates:
    """The states of a frozen language model's last layer, a row per token, standardised.

    The model reads a text from left to right, so that a state knows what stands before it. Raw states point almost all
    the same way (cosines of 0.9 and more between unlike words), and the first one of a text further than any. So a text
    is read after ``LEAD_IN``, and each of the W values is centred and scaled by what it is over ``REFERENCE``, texts
    that never change; then like words have like states.

    Parameters
    ----------
    model
        A GGUF file.
    threads
        Of llama.cpp.
    max_tokens
        Of a text; the states of a longer one end there.
    """

    def __init__(self, model: StrPath, *, threads: int = 1, max_tokens: int = 512) -> None:
        if not Path(model).is_file():
            raise TrmInputError(f"model: expected a GGUF file, got {os.fspath(model)}")
        if max_tokens < 1:
            raise TrmInputError(f"max_tokens: expected at least 1, got {max_tokens}")
        self._library = _llama_cpp()
        size = max_tokens + 8
        try:
            self._llama = self._library.Llama(
                os.fspath(model),
                n_ctx=size,
                n_batch=size,
                n_ubatch=size,
                n_threads=threads,
                n_threads_batch=threads,
                embedding=True,
                pooling_type=self._library.LLAMA_POOLING_TYPE_NONE,
                verbose=False,
            )
        except ValueError as error:
            raise TrmInputError(f"model: llama.cpp cannot load {os.fspath(model)}: {error}") from None
        self.width = int(self._llama.n_embd())
        self.max_tokens = max_tokens
        begin = [token for token in (self._llama.token_bos(),) if token >= 0]
        self._lead = [*begin, *self._llama.tokenize(LEAD_IN.encode(), add_bos=False)]
        self._mean, self._scale = np.zeros(self.width, np.float32), np.ones(self.width, np.float32)
        reference = np.concatenate([self._read(text).vectors for text in REFERENCE])
        self._mean, self._scale = reference.mean(axis=0), np.maximum(reference.std(axis=0), 1e-6)
        self._kept = lru_cache(maxsize=1 << 10)(self._read)
        self._reading = threading.Lock()  # a llama.cpp context serves one thread at a time

    def tokens(self, text: str) -> Tokens:
        """Return the tokens of a text with their states; white space in front of a token is not part of it.

        Several threads may ask; one reads at a time.
        """
        with self._reading:
            return self._kept(text)

    def _read(self, text: str) -> Tokens:
        content = b" " + text.encode("utf-8", "replace")
        found = self._llama.tokenize(content, add_bos=False, special=False)[: self.max_tokens] if text else []
        pieces = [self._piece(token) for token in found]
        if not content.startswith(b"".join(pieces)):
            raise TrmInputError(f"model: expected tokens that spell a text byte by byte, got {pieces[:8]} for {text!r}")
        starts, ends = places(content, pieces)
        if not found:
            return Tokens(np.zeros((0, self.width), np.float32), starts, ends)
        states = self._states([*self._lead, *found])[len(self._lead) :]
        standard = np.asarray((states - self._mean) / self._scale, np.float32)
        return Tokens(standard, np.maximum(starts - 1, 0), np.maximum(ends - 1, 0))

    def _piece(self, token: int) -> bytes:
        """Return the bytes that a token stands for."""
        buffer = self._library.ctypes.create_string_buffer(256)
        vocabulary = self._library.llama_model_get_vocab(self._llama.model)
        count = self._library.llama_token_to_piece(vocabulary, token, buffer, len(buffer), 0, True)
        return bytes(buffer.raw[: max(count, 0)])

    def _states(self, tokens: list[int]) -> Vectors:
        """Return [n, width]: what the last layer gives for each token."""
        library, context = self._library, self._llama.ctx
        library.llama_memory_clear(library.llama_get_memory(context), True)
        batch = library.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for i, token in enumerate(tokens):
                batch.token[i], batch.pos[i], batch.logits[i] = token, i, 1
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            if library.llama_decode(context, batch) != 0:
                raise TrmInputError(f"text: llama.cpp cannot read its {len(tokens)} tokens")
        finally:
            library.llama_batch_free(batch)
        states = np.ctypeslib.as_array(library.llama_get_embeddings(context), shape=(len(tokens), self.width))
        return np.array(states, np.float32)


def places(content: bytes, pieces: list[bytes]) -> tuple[Offsets, Offsets]:
    """Return the characters of a UTF-8 text that its pieces cover, in order; white space in front is not covered.

    A piece that is part of a character covers all of it; one that is nothing but white space covers that.
    """
    leads = [byte & 0xC0 != 0x80 for byte in content] + [True]
    begun = np.cumsum(leads)  # characters that have begun at a byte, its own among them
    starts, ends, at = [], [], 0
    for piece in pieces:
        blank = len(piece) - len(piece.lstrip())
        first, at = at + (blank if blank < len(piece) else 0), at + len(piece)
        starts.append(int(begun[first]) - 1)
        ends.append(int(begun[at - 1]))
    return np.array(starts, np.int64), np.array(ends, np.int64)


def _llama_cpp() -> Any:
    try:
        return importlib.import_module("llama_cpp")
    except ImportError as error:
        raise TrmUnsupportedError(
            f"states of a language model need the Python package llama_cpp, which cannot be imported ({error}); "
            "install it with: pip install llama-cpp-python"
        ) from error
