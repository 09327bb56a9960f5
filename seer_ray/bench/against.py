"""``seer-ray bench engine --vllm ... --llama-cpp ...``: our engine beside others of the user's, in turns."""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from seer_ray.bench.engines import Contender, LlamaCpp, NotMeasured, Ours, Vllm, Work, quantised
from seer_ray.bench.models import SHAPES, bench_model
from seer_ray.bench.show import show
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import SelectorConfig
from seer_ray.models.load import LoadedModel
from seer_ray.models.smollm import smollm

if TYPE_CHECKING:
    from rich.console import Console

FLOATS = ("float32", "bfloat16")
"""In which our engine and vLLM run."""
OURS = "seer-ray"


def add_options(parser: argparse._ArgumentGroup) -> None:
    parser.add_argument(
        "--vllm", metavar="PYTHON", help="python of an environment with vLLM, on CPU its build"
    )
    parser.add_argument(
        "--llama-cpp", metavar="FOLDER", type=Path, help="with llama-server and llama-quantize"
    )
    parser.add_argument(
        "--gguf", metavar="FILE", type=Path, help="the model for llama.cpp (smollm2: its file); made Q8_0"
    )
    parser.add_argument("--only-rivals", action="store_true", help="nothing but the engines beside others")
    parser.add_argument("--prompts", type=int, default=32, help="beside others (32)")
    parser.add_argument("--prompt-tokens", type=int, default=64, help="of each, beside others (64)")
    parser.add_argument("--new-tokens", type=int, default=128, help="of each, beside others (128)")


def bench_against(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measures and shows: tokens a second over all, of the prompts alone, and of decoding alone.

    Raises:
        ValueError: an option makes no sense.
    """
    if min(options.prompts, options.prompt_tokens) < 1 or options.new_tokens < 2:
        raise ValueError("--prompts and --prompt-tokens must be at least 1, --new-tokens at least 2")
    loaded: dict[str, LoadedModel] = {dtype: bench_model(options.model, dtype) for dtype in FLOATS}
    work = _work(options, loaded["float32"].hf_config.vocab_size)
    missing: dict[str, str] = {}
    started: dict[str, Contender] = {}
    with tempfile.TemporaryDirectory(prefix="seer-ray-bench-") as folder:
        try:
            for name, start in _contenders(options, loaded, work, Path(folder)).items():
                try:
                    started[name] = start()
                except (NotMeasured, ConfigError) as problem:
                    missing[name] = str(problem)
            times = _turns(started, work, options.repeats, missing)
        finally:
            for contender in started.values():
                contender.close()
    rates = {name: _rates(work, *pair) for name, pair in times.items()}
    others = [name for name in rates if not name.startswith(OURS)]
    title = f"{options.prompts} prompts of {options.prompt_tokens} tokens, {options.new_tokens} new ones each"
    columns = ("engine", "new tokens / s", "prompt tokens / s", "decoding alone, new tokens / s")
    show(console, title, columns, [(name, *rates[name].values()) for name in rates])
    for name, reason in missing.items():
        console.print(f"not measured: {name}: {reason}", highlight=False, markup=False)
    best = {
        key: max((rates[name][key] for name in others), default=None) for key in ("all", "prompts", "decode")
    }
    return {
        "work": {name: vars(options)[name] for name in ("prompts", "prompt_tokens", "new_tokens", "budget")},
        "tokens_per_s": rates,
        "versions": {name: started[name].version for name in others},
        "over_best_other": {
            name: {
                key: round(rates[name][key] / other, 2) for key, other in best.items() if other is not None
            }
            for name in rates
            if name.startswith(OURS)
        },
        "not_measured": missing,
    }


def _work(options: argparse.Namespace, vocabulary: int) -> Work:
    noise = random.Random(0)
    prompts = [
        tuple(noise.randrange(vocabulary) for _ in range(options.prompt_tokens))
        for _ in range(options.prompts)
    ]
    return Work(tuple(prompts), options.new_tokens)


def _contenders(
    options: argparse.Namespace, loaded: dict[str, LoadedModel], work: Work, folder: Path
) -> dict[str, Callable[[], Contender]]:
    found: dict[str, Callable[[], Contender]] = {}
    selectors = ["dense", "seer"] if work.length > options.budget else ["dense"]
    for dtype in FLOATS:
        for name in selectors:
            selector = SelectorConfig(name=name, budget=options.budget)
            found[f"{OURS}, {name}, {dtype}"] = partial(Ours, loaded[dtype], work, selector)
    if options.vllm is not None:
        model: Any = loaded["float32"].model
        model.save_pretrained(folder)
        loaded["float32"].tokenizer.save_pretrained(folder)
        for dtype in FLOATS:
            found[f"vLLM, {dtype}"] = partial(Vllm, options.vllm, folder, dtype, work)
    if options.llama_cpp is not None:
        plain = options.gguf is not None and not (options.llama_cpp / "llama-quantize").is_file()
        name = options.gguf.stem if plain else "Q8_0"
        found[f"llama.cpp, {name}"] = partial(_llama_cpp, options, work, folder)
    return found


def _llama_cpp(options: argparse.Namespace, work: Work, folder: Path) -> Contender:
    gguf = options.gguf
    if gguf is None:
        if options.model != "smollm2":
            kind = "random weights" if options.model in SHAPES else f"--model {options.model}"
            raise NotMeasured(f"{kind}: llama.cpp needs a GGUF file; name it by --gguf")
        gguf = smollm("--model smollm2")
    return LlamaCpp(options.llama_cpp, quantised(options.llama_cpp, gguf, folder), work)


def _turns(
    started: dict[str, Contender], work: Work, repeats: int, missing: dict[str, str]
) -> dict[str, tuple[float, float]]:
    """Median seconds of one new token a prompt and of all, of contenders that take turns, each other round in
    the other order. One that fails is out."""
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in started}
    for turn in range(-1, repeats):
        names = list(times)
        for name in names if turn % 2 else reversed(names):
            try:
                pair = started[name].run(1), started[name].run(work.new_tokens)
            except NotMeasured as problem:
                missing[name] = str(problem)
                del times[name]
                continue
            if turn >= 0:
                for kept, taken in zip(times[name], pair, strict=True):
                    kept.append(taken)
    return {name: (median(one), median(all_)) for name, (one, all_) in times.items()}


def _rates(work: Work, one: float, whole: float) -> dict[str, float]:
    """Tokens a second. A first token costs its prompt: the others are what decoding takes."""
    count = len(work.prompts)
    decode = max(whole - one, 1e-9)
    return {
        "all": round(count * work.new_tokens / whole, 1),
        "prompts": round(sum(map(len, work.prompts)) / one, 1),
        "decode": round(count * (work.new_tokens - 1) / decode, 1),
    }
