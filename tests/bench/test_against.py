"""``seer-ray bench engine`` beside other engines: scripts stand in for vLLM and llama.cpp's server."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import Any

import pytest
from engines import tiny_model
from rich.console import Console

from seer_ray.bench import against
from seer_ray.bench.engines import LlamaCpp, NotMeasured, Work, quantised

VLLM = """
__version__ = "9.9"
class SamplingParams:
    def __init__(self, temperature, max_tokens, ignore_eos, detokenize):
        assert temperature == 0 and ignore_eos and not detokenize
        self.max_tokens = max_tokens
class One:
    def __init__(self, count): self.token_ids = [1] * count
class Output:
    def __init__(self, count): self.outputs = [One(count)]
class LLM:
    def __init__(self, model, dtype, max_model_len, max_num_seqs, enable_prefix_caching):
        import os, pathlib
        assert (pathlib.Path(model) / "config.json").is_file() and "PYTHONPATH" not in os.environ
        assert not enable_prefix_caching
        if dtype == "bfloat16" and FAILS: raise RuntimeError("no bfloat16 on this CPU")
        print("a line on stdout, which is ours")
    def generate(self, prompts, settings, use_tqdm):
        return [Output(settings.max_tokens - SHORT) for prompt in prompts if prompt["prompt_token_ids"]]
"""
SERVER = """#!{python}
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, said):
        self.send_response(200); self.end_headers(); self.wfile.write(json.dumps(said).encode())
    def do_GET(self): self.answer({{"build_info": "b1"}})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert asked["ignore_eos"] and not asked["cache_prompt"]
        self.answer({{"tokens_predicted": asked["n_predict"] - {short}}})
    def log_message(self, *_): pass
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def fake_vllm(folder: Path, *, fails: bool = False, short: int = 0) -> str:
    (folder / "vllm.py").write_text(f"FAILS, SHORT = {fails}, {short}\n{VLLM}")
    python = folder / "python"
    python.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c \"import sys, runpy; sys.path.insert(0, '{folder}'); "
        'sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name=\'__main__\')" "$@"\n'
    )
    python.chmod(0o755)
    return str(python)


def fake_llama(folder: Path, short: int = 0) -> Path:
    server = folder / "llama-server"
    server.write_text(SERVER.format(python=sys.executable, short=short))
    server.chmod(0o755)
    return folder


def measure(monkeypatch: pytest.MonkeyPatch, **given: object) -> tuple[dict[str, Any], str]:
    monkeypatch.setattr(against, "bench_model", lambda name, dtype: tiny_model("qwen3"))
    options: dict[str, object] = {
        "vllm": None,
        "llama_cpp": None,
        "gguf": None,
        "model": "tiny",
        "repeats": 1,
    }
    options |= {"prompts": 2, "prompt_tokens": 4, "new_tokens": 3, "budget": 1024}
    shown = io.StringIO()
    found = against.bench_against(argparse.Namespace(**(options | given)), Console(file=shown, width=140))
    return found, shown.getvalue()


def test_all_are_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gguf = tmp_path / "model.gguf"
    gguf.touch()
    found, shown = measure(monkeypatch, vllm=fake_vllm(tmp_path), llama_cpp=fake_llama(tmp_path), gguf=gguf)
    assert found["not_measured"] == {}
    ours = ["seer-ray, dense, float32", "seer-ray, dense, bfloat16"]
    assert list(found["tokens_per_s"]) == [*ours, "vLLM, float32", "vLLM, bfloat16", "llama.cpp, model"]
    assert found["versions"] == {"vLLM, float32": "9.9", "vLLM, bfloat16": "9.9", "llama.cpp, model": "b1"}
    assert list(found["over_best_other"]) == ours
    assert "vLLM, bfloat16" in shown and "not measured" not in shown


def test_what_cannot_be_measured_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found, shown = measure(monkeypatch, vllm=fake_vllm(tmp_path, fails=True), llama_cpp=tmp_path / "none")
    assert "no bfloat16 on this CPU" in found["not_measured"]["vLLM, bfloat16"]
    assert "--gguf" in found["not_measured"]["llama.cpp, Q8_0"]
    assert "vLLM, float32" in found["tokens_per_s"] and "not measured: vLLM, bfloat16" in shown


def test_an_engine_that_makes_too_few_tokens_is_not_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found, _ = measure(monkeypatch, vllm=fake_vllm(tmp_path, short=1))
    assert found["not_measured"]["vLLM, float32"] == "made 4 tokens instead of 6"
    work = Work(((1, 2),), 3)
    with pytest.raises(NotMeasured, match="made 2 tokens instead of 3"):
        LlamaCpp(fake_llama(tmp_path, short=1), tmp_path, work)
    with pytest.raises(NotMeasured, match="llama-server"):
        LlamaCpp(tmp_path / "nowhere", tmp_path, work)


def test_without_the_tool_a_file_stays_as_it_is(tmp_path: Path) -> None:
    assert quantised(tmp_path, tmp_path / "x.gguf", tmp_path) == tmp_path / "x.gguf"


def test_selectors_only_where_the_budget_is_less_than_the_length(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = measure(monkeypatch, prompt_tokens=140, budget=128)
    assert found["not_measured"] == {}
    assert "seer-ray, seer, float32" in found["tokens_per_s"]
    with pytest.raises(ValueError, match="--new-tokens"):
        measure(monkeypatch, new_tokens=1)
