"""``seer-ray bench``: its table is complete, and it reports nothing that its own checks do not bear out."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import tiny_model

from seer_ray.bench import case as bench_case
from seer_ray.bench import distill as bench_distill
from seer_ray.bench import host as bench_host
from seer_ray.bench import kernels as bench_kernels
from seer_ray.bench import layers as bench_layers
from seer_ray.bench import models as bench_models
from seer_ray.bench import prompts as bench_prompts
from seer_ray.bench import rivals as bench_rivals
from seer_ray.bench import steps as bench_steps
from seer_ray.bench.case import Case, Refused, Shape
from seer_ray.bench.show import numbers
from seer_ray.config.options import SelectorConfig
from seer_ray.engine.graphs import DecodeGraphs
from seer_ray.jobs import bench

TINY = ["kernels", "--models", "smollm2-135m", "--contexts", "512,1k", "--cold", "100000", "--turns", "2"]
SMALL = Shape("smollm2-135m", 2, 512, 256)


def case(shape: Shape = SMALL, dtype: torch.dtype = torch.float32) -> Case:
    return Case(shape, dtype, torch.device("cpu"), cold=1)


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, Any], str]:
    """The JSON line, and what people read."""
    assert bench.main([*TINY, "--json", *arguments]) == 0
    out, err = capsys.readouterr()
    return json.loads(out), err


def test_the_table_is_complete(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ("--batches", "1,2", "--budgets", "128,256", "--plots", str(tmp_path))
    found, shown = report(capsys, *arguments)
    rows = found["kernels"]["rows"]
    shapes = [(row["context"], row["batch"], row["budget"]) for row in rows]
    assert shapes == [(c, b, t) for c in (512, 1024) for b in (1, 2) for t in (128, 256)]
    for row in rows:
        assert set(bench_kernels.COLUMNS) <= set(row)
        figures = [value for value in row.values() if isinstance(value, (int, float))]
        assert len(figures) == len(row) - 6 and min(figures) > 0
        assert set(row["dense_all_us"]) == {"sdpa packed", "sdpa enable_gqa", "matmul", "seer-ray"}
        assert row["dense_us"] == pytest.approx(min(row["dense_all_us"].values()), abs=0.01)
        assert row["torch_us"] >= row["dense_us"] and row["torch_is"] != "seer-ray"
        assert row["dense_all_us"][row["dense_is"]] == pytest.approx(row["dense_us"], abs=0.01)
        assert row["speedup"] == pytest.approx(row["dense_us"] / row["total_us"], rel=0.01, abs=0.001)
    assert found["kernels"]["not_measured"] == {}
    for heading in bench_kernels.COLUMNS.values():
        assert heading in shown
    assert {path.name for path in tmp_path.glob("*.png")} == {
        f"speedup_by_{axis}.png" for axis in ("context", "batch", "budget")
    }


def test_bytes() -> None:
    """Qwen3-8B at 32k tokens: 4 KiB a token of K and V; a compressed key for 64 of them, 2 KiB."""
    shape = Shape("qwen3-8b", 3, 32768, 2048)
    assert shape.kv_bytes(torch.bfloat16) == 3 * 32768 * 4096
    weights = 32 * 128 * 128 * 4
    assert shape.sparse_bytes(torch.bfloat16) == (weights + 3 * 512 * 2048, 3 * 2048 * 4096)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operation_passes(dtype: torch.dtype) -> None:
    whole = case(dtype=dtype)
    before = whole.kv.clone()
    whole.check()
    assert torch.equal(whole.kv, before)  # the poison is gone


def test_dense_that_poses_as_sparse_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the timed call alone, and so close to the right result that no tolerance tells."""
    monkeypatch.setattr(Case, "over", lambda self, kv, ids, variant=0: self.dense(variant))
    monkeypatch.setattr(Case, "sparse", lambda self, i: self.dense(i))
    monkeypatch.setattr(Case, "attention", lambda self, i: self.dense(i))
    with pytest.raises(Refused, match="reads pages that it did not select"):
        case().check()


def test_reading_one_page_too_many_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a weight of nothing: only the poison shows it."""
    attend = Case._attend

    def greedy(self: Case, i: int, ids: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        out = attend(self, i, ids, counts)
        other = next(page for page in range(1, len(self.kv[0])) if page not in ids[0, 0])
        out[0, 0] += 0 * self.kv[i % self.sets, other, 0, 0, 0, 0]
        return out

    monkeypatch.setattr(Case, "_attend", greedy)
    with pytest.raises(Refused, match="reads pages that it did not select"):
        case().check()


@pytest.mark.parametrize("part", ["scores", "select", "attend"])
def test_a_broken_operation_is_refused(
    part: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if part == "scores":
        right = Case.scores
        monkeypatch.setattr(Case, "scores", lambda self, i: 1.01 * right(self, i))
    elif part == "select":
        select = bench_case.select_module.select
        monkeypatch.setattr(bench_case.select_module, "select", lambda s, *rest: select(-s, *rest))
    else:
        attend = bench_case.attend_module.attend
        monkeypatch.setattr(
            bench_case.attend_module, "attend", lambda *most: attend(*most[:-1], 0.9 * most[-1])
        )
    assert bench.main([*TINY, "--budgets", "256", "--json"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "seer-ray bench: refused: Shape(" in err and "GB/s" not in err


def test_a_rival_that_is_wrong_or_missing_is_named_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    matmul = bench_rivals._matmul
    monkeypatch.setattr(bench_rivals, "_matmul", lambda case: lambda i: 2 * matmul(case)(i))

    def gone(case: Case) -> Any:
        raise ImportError("no such library\nat all")

    monkeypatch.setattr(bench_rivals, "_grouped", gone)
    paths, missing = bench_rivals.dense_paths(case())
    assert set(paths) == {"sdpa packed", "seer-ray"}
    assert missing["sdpa enable_gqa"] == "ImportError: no such library"
    assert missing["matmul"].startswith("relative error 1")


def test_default_shapes() -> None:
    """The base, and each other shape off it in one thing."""
    parser = argparse.ArgumentParser()
    bench_kernels.add_options(parser.add_argument_group())
    for kind, base in bench_kernels.BASE.items():
        found = bench_kernels.shapes(parser.parse_args([]), kind)
        assert base in found and len(set(found)) == len(found)
        off = [sum(a != b for a, b in zip(vars(s).values(), vars(base).values(), strict=True)) for s in found]
        assert sorted(off)[: len(off) - len(bench_kernels.FURTHER[kind])][-1] == 1
    found = bench_kernels.shapes(parser.parse_args(["--budgets", "1k,64k"]), "cpu")
    assert found == [Shape("qwen3-8b", 1, 32768, 1024)]  # 64k is no budget for 32k tokens


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budgets", "100"], "multiples of the block"),
        (["--budgets", "64"], "two at least"),
        (["--budgets", "2k"], "nothing is sparse"),
    ],
)
def test_options_that_make_no_sense(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main([*TINY, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_decode_steps_beside_their_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sparse step has fewer bytes to read, weights the same."""
    monkeypatch.setattr(bench_steps, "copy_rate", lambda device: 1e6)
    found = bench_steps.bench_steps(tiny_model("qwen3"), batch=2, context=400, budget=128, turns=2)
    ours = {"dense", "seer", "seer, int8", "quest", "window"}
    assert set(found["floor_ms"]) == set(found["host_ms"]) == set(found["of_floor"]) == ours
    assert set(found["ms_per_step"]) == ours | {"generate"}
    assert set(found["over_dense"]) == ours - {"dense"} | {"generate"} and set(found["over_generate"]) == ours
    assert found["floor_ms"]["window"] < found["floor_ms"]["dense"]
    assert found["floor_ms"]["seer, int8"] < found["floor_ms"]["seer"]
    assert all(share > 0 for share in found["of_floor"].values())
    assert found["waiting"]["host_ms"] == found["host_ms"]
    assert all(0 < found["host_ms"][name] < found["ms_per_step"][name] for name in ours)
    with pytest.raises(ValueError, match=r"--context 5000: .* has room for"):
        bench_steps.bench_steps(tiny_model("qwen3"), batch=2, context=5000, budget=128, turns=2)


def test_generate_goes_on_from_a_long_cache() -> None:
    steps = bench_steps.generate_steps(tiny_model("qwen3"), batch=2, context=300, turns=4)
    assert len(steps) == 4 and min(steps) > 0


def test_a_shape_of_qwen3_with_random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 2}
    monkeypatch.setitem(bench_models.SHAPES, "qwen3-8b", small)
    loaded = bench_models.bench_model("qwen3-8b", "bfloat16")
    assert loaded.model.dtype == torch.bfloat16 and loaded.max_context == 1 << 18
    assert bench_steps.engine_steps(loaded, SelectorConfig("seer", 128), 2, 300, 2)[False].bytes > 0


def test_steps_of_an_engine_that_reads_during_the_next() -> None:
    """As many tokens as steps; what the host does is never more than the step."""
    engine = bench_steps.decoding_engine(tiny_model("qwen3"), SelectorConfig(), batch=2, context=100)
    runner = engine.runner
    runner.captured = DecodeGraphs(runner.loaded, runner.decoder, 2, lambda step: step)
    for overlap in (True, False, True):
        before = engine.stats()["new_tokens"]
        step, host = bench_steps.step_time(engine, overlap)
        assert 0 <= host < step
        engine.settle()
        assert engine.stats()["new_tokens"] - before == 2 * (bench_steps.BURST + 1 if overlap else 1)


def test_numbers() -> None:
    assert numbers("4k,512, 1") == [4096, 512, 1]
    for text in ("", "0", "-1", "4m", "1.5k"):
        with pytest.raises(argparse.ArgumentTypeError, match="such as 4k,512"):
            numbers(text)


DISTILL = ["distill", "--model", "reasoner", "--dtype", "float32", "--length", "256", "--passes", "1"]


def test_steps_of_distillation(capsys: pytest.CaptureFixture[str]) -> None:
    """All figures are there and agree, and training memory is near what is computed."""
    assert bench.main([*DISTILL, "--updates", "1,4", "--json"]) == 0
    out, err = capsys.readouterr()
    one, four = json.loads(out)["distill"]["rows"]
    assert (one["updates"], four["updates"]) == (1, 4)
    assert four["plan_mib"] > one["plan_mib"]
    for row in (one, four):
        assert row["tokens_s"] == pytest.approx(256 / row["pass_s"], rel=0.05)
        assert row["recipe_hours"] == pytest.approx(0.42e9 / row["tokens_s"] / 3600, rel=0.01)
        assert row["peak_mib"] > 0
    for heading in bench_distill.COLUMNS.values():
        assert heading in err
    assert bench.main([*DISTILL, "--length", "100"]) == 2
    assert "--length 100: must be at least two blocks, 128 tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([*TINY, "--budgets", "128"], id="kernels", marks=pytest.mark.long),
        pytest.param(DISTILL, id="distill", marks=pytest.mark.long),
    ],
)
def test_it_needs_neither_ray_nor_mlflow_nor_hydra(arguments: list[str]) -> None:
    script = (
        "import sys\n"
        "for name in ('ray', 'mlflow', 'hydra', 'omegaconf', 'pyarrow'): sys.modules[name] = None\n"
        "from seer_ray.jobs.bench import main\n"
        f"sys.exit(main({[*arguments, '--json']!r}))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert json.loads(result.stdout)[arguments[0]]["rows"]


def test_layers_side_by_side(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    small = {"num_hidden_layers": 4, "vocab_size": 256, "hidden_size": 144, "head_dim": 16}
    monkeypatch.setattr(bench_layers, "SMOLLM2", bench_layers.SMOLLM2 | small)
    monkeypatch.setattr(bench_layers, "LENGTHS", (64, 256))
    monkeypatch.setattr(bench_layers, "TURNS", 1)
    monkeypatch.setattr(bench_layers, "ROUNDS", 1)
    arguments = ["--batch", "2", "--context", "256", "--budget", "128", "--dtype", "float32"]
    assert bench.main(["layers", "--json", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)["layers"]
    read = found["mb_read"]
    assert list(found["ms_per_step"]) == list(read) == list(bench_layers.contenders(128))
    assert min(found["ms_per_step"].values()) > 0
    assert list(found["linear_us_per_layer"]) == ["64", "256"]
    assert bench.main(["layers", "--context", "300"]) == 2


def test_host_work_is_that_of_whole_steps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every row makes a token in every step, of whichever way of telling; pages fill on the way."""
    monkeypatch.setattr(bench_host, "STEPS", 70)
    monkeypatch.setattr(bench_host, "REPEATS", 1)
    assert bench.main(["host", "--rows", "2,5", "--context", "100", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["host"]["us_per_row_step"]
    assert [row["rows"] for row in found] == [2, 5]
    assert all(row["as a worker"] > 0 and row["telling all"] > 0 for row in found)
    engine = bench_host.idle_engine(3, 100)
    made = engine.stats()["new_tokens"]
    bench_host.row_time(engine, 70)
    assert engine.stats()["new_tokens"] - made == 3 * 69  # one step is in flight
    assert {len(sequence.tokens) for sequence in engine.scheduler.running} == {101 + 69}
    assert all(sequence.told for sequence in engine.scheduler.running)


def test_prompts_side_by_side(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = bench_models.RandomGates(**vars(tiny_model("qwen3")))
    monkeypatch.setattr(bench_prompts, "bench_model", lambda name, dtype: tiny)
    monkeypatch.setattr(bench_prompts, "TURNS", 1)
    assert bench.main(["prompts", "--lengths", "700", "--densities", "0.5,0.3", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)["prompts"]["lengths"]["700"]
    assert list(found["attention_ms"]) == ["sdpa", "dense", "0.5", "0.3"]
    assert list(found["first_token_s"]) == ["dense", "0.5", "0.3"]
    assert min([*found["attention_ms"].values(), *found["first_token_s"].values()]) > 0
    assert "A prompt of 700 tokens" in err
    for words in (["--lengths", "4k"], ["--densities", "1.5"]):
        assert bench.main(["prompts", *words]) == 2
