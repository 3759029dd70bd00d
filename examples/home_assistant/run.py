"""Train the Home Assistant head of a split from nothing, and measure it on templates that it has not seen.

    pip install -e '.[train,export]' home-assistant-intents hassil && pip install --no-deps bfcl-eval
    python examples/home_assistant/run.py

Sentences of the training templates become examples (``dataset.py``), ``head.toml`` says how they are learned, and the
exported head turns sentences of the held-out templates into calls by itself: it chooses one of 42 functions, then its
slots. Its tools name what the household has, as the rules of ``baseline.py`` know it; "unseen values" are names that
neither has, "named" ones those of another household whose tools name them. A call is exact where intent and every slot
are those of one of the sentence's readings. Where it may decline, sentences that ask for nothing of a house are asked
too. ``results.json`` gets what was found; that of split 0 becomes the package's ``trm_edge/data/home_assistant.trm``.

``--states MODEL.gguf`` reads all texts with a language model (``pip install llama-cpp-python``) instead of hashed
n-grams, with ``--beside-ngrams`` beside them; such heads are measured, and not shipped.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from baseline import TEST_PER_TEMPLATE, TEST_SEED, wilson
from dataset import compiled, drawn, write
from foreign import everyday, queries
from sentences import Sentence, generate, is_right, pools, readings, split
from tools import tools as all_tools
from tqdm import tqdm

from trm_edge.bundle import bundle_bytes, read_bundle
from trm_edge.export.bundle_writer import export_bundle
from trm_edge.files import write_atomically
from trm_edge.json_slots import Featurizer, HashedNgrams, Joined, JsonSlots, Resolver
from trm_edge.json_slots.features import TOKEN_FLAGS, featurizer_for
from trm_edge.json_slots.llama import LlamaStates
from trm_edge.json_slots.providers import ContextProvider
from trm_edge.profiling.machine import machine_facts
from trm_edge.spec import TrmSpec
from trm_edge.train import RunConfig, Trainer, load_config
from trm_edge.train.tool_calls import for_tool_calls

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "trm_edge" / "data"
STEPS = 2  # that are best: the head is trained at three, and loses a little beyond
LOOKED_AT = 8  # steps whose answers are written down
MAX_BYTES = 1_000_000
HOMES = {  # whether the values are unseen ones, and those that the tools name
    "seen values": (False, "common"),
    "unseen values": (True, "common"),
    "unseen values, named": (True, "unseen"),
}
GOLDEN = "dim the bedroom to 20 percent"


def main() -> None:
    """Draw, train, export, evaluate, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", nargs="+", type=int, choices=(0, 1, 2), default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=HERE / "runs", help="folder of the runs")
    parser.add_argument("--updates", type=int, help="a trial of so many weight updates, which ships nothing")
    parser.add_argument("--states", type=Path, metavar="MODEL.gguf", help="of this language model, instead of n-grams")
    parser.add_argument("--beside-ngrams", action="store_true", help="give heads the states beside the n-grams")
    arguments = parser.parse_args()
    config = load_config(HERE / "head.toml")
    provider: ContextProvider | None = None
    if arguments.states:
        provider = LlamaStates(arguments.states)
        if arguments.beside_ngrams:
            provider = Joined(HashedNgrams(config.spec.context_size - TOKEN_FLAGS), provider)
        config = replace(config, spec=spec_for(config.spec, provider))
    if arguments.updates:
        config = replace(config, train=replace(config.train, max_updates=arguments.updates))
    results = HERE / "results.json"
    found: dict[str, Any] = json.loads(results.read_text()) if results.exists() and not arguments.updates else {}
    for k in arguments.splits:
        name = f"split {k}, {arguments.states.stem}" if arguments.states else f"split {k}"
        name += " beside n-grams" if arguments.states and arguments.beside_ngrams else ""
        found[name] = train_and_measure(k, config, provider, arguments.runs / name.replace(", ", "-").replace(" ", ""))
        print(table(name, found[name]), flush=True)
        if not arguments.updates:
            write_atomically(results, (json.dumps(dict(sorted(found.items())), indent=1) + "\n").encode())
    if not arguments.updates and not arguments.states and 0 in arguments.splits:
        ship(arguments.runs / "split0.trm")


def spec_for(spec: TrmSpec, provider: ContextProvider) -> TrmSpec:
    """Return the spec of a head that takes the vectors of a provider."""
    made = Featurizer(provider, spec.max_context)
    return replace(
        spec,
        context_size=made.context_size,
        slot_size=made.slot_size,
        candidate_size=made.candidate_size,
    )


def train_and_measure(k: int, config: RunConfig, provider: ContextProvider | None, out: Path) -> dict[str, Any]:
    """Return what the head of split k does on its held-out templates; a run that was interrupted goes on.

    The run is the folder ``out``, with its data and its head beside it; without a provider, texts are hashed n-grams.
    """
    train, test = split(k)
    data, bundle = (out.with_name(out.name + suffix) for suffix in (".npz", ".trm"))
    if not data.exists():
        featurizer = featurizer_for(config.spec, provider)
        print(data, write(data, drawn(train, seed=k + 1), featurizer, seed=k + 1), flush=True)
    config = replace(config, data=replace(config.data, train=str(data.resolve())))
    done = Trainer(config, out, resume=True).run()
    if done.interrupted:
        raise SystemExit("interrupted; the same command goes on from here")
    export_bundle(done.model, bundle)
    measured: dict[str, Any] = {}
    for name, (unseen, household) in HOMES.items():
        tools = list(compiled(pools(household)).values())
        sentences = generate(test, TEST_PER_TEMPLATE, seed=TEST_SEED, unseen=unseen)
        measured[name] = measure(bundle, tools, sentences, provider)
    measured["may decline"] = measure_declining(bundle, list(compiled(pools()).values()), test, provider)
    return {"training_seconds": round(done.seconds), "updates": done.updates, "machine": machine_facts(), **measured}


def measure(
    bundle: Path, tools: Sequence[JsonSlots], sentences: Sequence[Sentence], provider: ContextProvider | None
) -> dict[str, Any]:
    """Return how many sentences become the right call, and how far the confidence can be relied on.

    By step are the answers of a run of LOOKED_AT steps, whose last one names the tool.
    """
    served = Resolver(bundle, provider, steps=STEPS)
    looked_at = Resolver(bundle, provider, steps=LOOKED_AT, by_step=True)
    exact, intents, confidence, seconds, by_step = [], [], [], [], []
    for sentence in tqdm(sentences, desc="held-out sentences", leave=False, disable=None):
        begun = time.perf_counter()
        call = served.resolve_tool_call(tools, sentence.text)
        seconds.append(time.perf_counter() - begun)
        allowed = readings(sentence)
        exact.append(_right((call.name, call.json), allowed))
        intents.append(call.name in {intent for intent, _ in allowed})
        confidence.append(call.confidence)
        steps = looked_at.resolve_tool_call(tools, sentence.text).by_step
        by_step.append([_right(step, allowed) for step in steps])
    right, sure = np.array(exact), np.array(confidence) >= 0.9
    return {
        "sentences": len(sentences),
        "steps": STEPS,
        "exact": round(float(right.mean()), 4),
        "exact_interval": [round(end, 4) for end in wilson(int(right.sum()), len(right))],
        "intent": round(float(np.mean(intents)), 4),
        "exact_by_step": np.array(by_step).mean(axis=0).round(4).tolist(),
        "share_confidence_90": round(float(sure.mean()), 4),
        "exact_at_confidence_90": round(float(right[sure].mean()), 4) if sure.any() else None,
        "ms_p50_p99": np.percentile(1e3 * np.array(seconds), [50, 99]).round(2).tolist(),
    }


def measure_declining(
    bundle: Path, tools: Sequence[JsonSlots], test: Sequence[int], provider: ContextProvider | None
) -> dict[str, Any]:
    """Return what is declined where none of the tools may be taken, with how many were asked; and what is exact."""
    resolver = Resolver(bundle, provider, steps=STEPS, decline_bonus=0.0)

    sentences = generate(test, TEST_PER_TEMPLATE, seed=TEST_SEED)
    asked = {"everyday": everyday(), "leaderboard": queries()[1], "house": [one.text for one in sentences]}
    calls = {
        name: [resolver.resolve_tool_call(tools, text) for text in tqdm(texts, desc=name, leave=False, disable=None)]
        for name, texts in asked.items()
    }
    exact = [_right((call.name, call.json), readings(one)) for call, one in zip(calls["house"], sentences, strict=True)]
    return {
        "declined": {
            name: [round(float(np.mean([call.name is None for call in some])), 4), len(some)]
            for name, some in calls.items()
        },
        "exact": round(float(np.mean(exact)), 4),
    }


def _right(step: tuple[str | None, str | None], allowed: Any) -> bool:
    name, text = step
    return name is not None and text is not None and is_right(name, json.loads(text), allowed)


def table(title: str, found: dict[str, Any]) -> str:
    """Return a split's results for people."""
    lines = [f"{title}: {found['updates']} updates in {found['training_seconds']} s"]
    for name in HOMES:
        one = found[name]
        shown = " ".join(f"{100 * value:.1f}" for value in one["exact_by_step"])
        low, high = one["exact_interval"]
        lines.append(
            f"  {name}, {one['sentences']} sentences: {100 * one['exact']:.1f} % exact ({100 * low:.1f} to "
            f"{100 * high:.1f}), intent {100 * one['intent']:.1f} %; by step of {LOOKED_AT}: {shown} %"
        )
    either = found["may decline"]
    shares = either["declined"].items()
    shown = ", ".join(f"{100 * share:.1f} % of {name} sentences ({count})" for name, (share, count) in shares)
    lines.append(f"  may decline: {100 * either['exact']:.1f} % exact; declines {shown}")
    return "\n".join(lines)


def ship(path: Path) -> None:
    """Make a head and the tools those of the package; its golden inputs are calls, as random ones would be large."""
    slots = list(compiled(pools()).values())
    made = for_tool_calls(read_bundle(path), slots, GOLDEN, "HassLightSet", '{"area": "kitchen"}', declines=True)
    data = bundle_bytes(made)
    if len(data) > MAX_BYTES:
        raise SystemExit(f"{path}: expected at most {MAX_BYTES} bytes, got {len(data)}")
    write_atomically(DATA / "home_assistant.trm", data)
    write_atomically(DATA / "home_assistant.json", (json.dumps(all_tools(pools()), indent=1) + "\n").encode())
    print(f"shipped {path}, {len(data)} bytes")


if __name__ == "__main__":
    main()
