"""Other engines, each in a process of its own: vLLM from an environment that the user names, llama.cpp.

All make the same number of new tokens of the same prompts, given as token ids, without a prefix cache and
without an end of sequence. An engine is started and has run once before it is timed; it then waits for its
turns, so that what else the machine does falls on all alike.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from seer_ray.bench.timing import seconds
from seer_ray.config.options import EngineConfig, SelectorConfig
from seer_ray.engine import Engine, Request, SamplingParams
from seer_ray.models.load import LoadedModel

START = 600.0
"""Seconds that an engine has to start and to run once."""
TURN = 600.0
"""Seconds that a turn of a server may take."""

VLLM = '''"""Written by seer-ray bench: runs vLLM once for each number of new tokens that comes in."""
import json, os, sys, time

asked = json.loads(sys.stdin.readline())
answers, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
os.dup2(2, 1)


def main():
    from vllm import LLM, SamplingParams, __version__

    model = LLM(
        asked["model"], dtype=asked["dtype"], max_model_len=asked["length"],
        max_num_seqs=len(asked["prompts"]), enable_prefix_caching=False,
    )
    prompts = [{"prompt_token_ids": prompt} for prompt in asked["prompts"]]
    said = {"version": __version__}
    while True:
        print(json.dumps(said), file=answers, flush=True)
        line = sys.stdin.readline()
        if not line:
            break
        settings = SamplingParams(temperature=0.0, max_tokens=int(line), ignore_eos=True, detokenize=False)
        began = time.perf_counter()
        outputs = model.generate(prompts, settings, use_tqdm=False)
        taken = time.perf_counter() - began
        said = {"seconds": taken, "made": sum(len(o.outputs[0].token_ids) for o in outputs)}


if __name__ == "__main__":
    main()
'''


class NotMeasured(Exception):
    """An engine cannot be had; says why, in a line."""


@dataclass(frozen=True)
class Work:
    """What every engine does."""

    prompts: tuple[tuple[int, ...], ...]
    new_tokens: int
    """Of each prompt."""

    @property
    def length(self) -> int:
        """Tokens of the longest sequence."""
        return max(map(len, self.prompts)) + self.new_tokens


class Contender(Protocol):
    """An engine that has started and is warm."""

    version: str

    def run(self, new_tokens: int) -> float:
        """Seconds that all prompts take with so many new tokens each.

        Raises:
            NotMeasured: it failed, or made another number of tokens.
        """
        ...

    def close(self) -> None: ...


class Ours:
    """Our engine, in this process."""

    def __init__(self, loaded: LoadedModel, work: Work, selector: SelectorConfig) -> None:
        settings = EngineConfig(max_batch=len(work.prompts), max_length=work.length)
        self.version, self._work = "", work
        self._engine = Engine(loaded, settings, selector)

    def run(self, new_tokens: int) -> float:
        for index, prompt in enumerate(self._work.prompts):
            self._engine.submit(Request(str(index), prompt, SamplingParams(new_tokens)))
        made: list[int] = []
        taken = seconds(lambda: made.extend(len(completion.tokens) for completion in self._engine.run()))
        return _checked(taken, sum(made), self._work, new_tokens)

    def close(self) -> None:
        del self._engine


class Vllm:
    """vLLM, by the python of its environment.

    Args:
        python: of the environment.
        folder: of the model, as transformers writes it.
        dtype: of weights and cache.
    """

    def __init__(self, python: str, folder: Path, dtype: str, work: Work) -> None:
        self._work = work
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        script = folder / "vllm_turns.py"
        script.write_text(VLLM)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
        environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")
        try:
            self._process = subprocess.Popen(
                [python, str(script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env=environment,
            )
        except OSError as error:
            raise NotMeasured(f"--vllm {python}: {error.strerror}") from error
        asked = {"model": str(folder), "dtype": dtype, "prompts": work.prompts, "length": work.length}
        try:
            self.version = str(self._ask(json.dumps(asked)).get("version"))
            self.run(work.new_tokens)
        except NotMeasured:
            self.close()
            raise

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except OSError:
            answer = ""
        if answer:
            found: dict[str, Any] = json.loads(answer)
            return found
        self._process.wait()
        self._errors.seek(0)
        raise NotMeasured(f"vLLM ended: {_last_line(self._errors.read())}")

    def run(self, new_tokens: int) -> float:
        said = self._ask(str(new_tokens))
        return _checked(said["seconds"], said["made"], self._work, new_tokens)

    def close(self) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(30)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()


class LlamaCpp:
    """llama.cpp's server, a slot for each prompt.

    Args:
        folder: of its binaries.
        gguf: the model.
    """

    def __init__(self, folder: Path, gguf: Path, work: Work) -> None:
        self._work = work
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._address = f"http://127.0.0.1:{port}"
        slots, threads = len(work.prompts), torch.get_num_threads()
        command = [
            str(folder / "llama-server"),
            "--model",
            str(gguf),
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        command += ["--parallel", str(slots), "--ctx-size", str(slots * work.length)]
        command += ["--threads", str(threads), "--threads-batch", str(threads)]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        try:
            self._process = subprocess.Popen(command, stdout=self._errors, stderr=self._errors, text=True)
        except OSError as error:
            raise NotMeasured(f"--llama-cpp {folder}: llama-server: {error.strerror}") from error
        try:
            self._wait()
            built = self._get("/props").get("build_info", "")
            self.version = str(built)
            self.run(work.new_tokens)
        except NotMeasured:
            self.close()
            raise

    def _get(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._address + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=TURN) as answer:
            found: dict[str, Any] = json.loads(answer.read())
        return found

    def _wait(self) -> None:
        end = time.monotonic() + START
        while time.monotonic() < end:
            if self._process.poll() is not None:
                self._errors.seek(0)
                raise NotMeasured(f"llama-server ended: {_last_line(self._errors.read())}")
            try:
                self._get("/health")
            except (OSError, urllib.error.URLError):
                time.sleep(0.1)
            else:
                return
        raise NotMeasured(f"llama-server did not start within {START:g} s")

    def run(self, new_tokens: int) -> float:
        def one(prompt: Sequence[int]) -> int:
            settings = {"n_predict": new_tokens, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
            return int(self._get("/completion", {"prompt": prompt, **settings})["tokens_predicted"])

        made: list[int] = []
        with ThreadPoolExecutor(len(self._work.prompts)) as pool:
            try:
                taken = seconds(lambda: made.extend(pool.map(one, self._work.prompts)))
            except (OSError, KeyError, ValueError) as error:
                raise NotMeasured(f"llama-server: {error}") from error
        return _checked(taken, sum(made), self._work, new_tokens)

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def quantised(folder: Path, gguf: Path, into: Path) -> Path:
    """The file in Q8_0 by llama.cpp's own tool; as it is where that is not there."""
    tool, made = folder / "llama-quantize", into / "q8_0.gguf"
    if not tool.is_file():
        return gguf
    command = [str(tool), "--allow-requantize", str(gguf), str(made), "Q8_0"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NotMeasured(f"llama-quantize failed: {_last_line(done.stderr)}")
    return made


def _checked(taken: float, made: int, work: Work, new_tokens: int) -> float:
    if made != new_tokens * len(work.prompts):
        raise NotMeasured(f"made {made} tokens instead of {new_tokens * len(work.prompts)}")
    return taken


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else "it said nothing"
