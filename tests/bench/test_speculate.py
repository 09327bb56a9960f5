from __future__ import annotations

import json

import pytest

from seer_ray.bench import speculate
from seer_ray.bench.chains import crossing
from seer_ray.bench.device_model import H200, QWEN3_8B, speculated, step
from seer_ray.bench.speculate import Contender
from seer_ray.jobs import bench


def test_ways_are_measured_side_by_side(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chains of a real text: what it says of drafts is what the rows counted."""
    ways = [Contender("dense"), Contender("seer"), Contender("seer", "4"), Contender("dense", "4", "ngram")]
    monkeypatch.setattr(speculate, "contenders", lambda drafts, gates: ways if gates else [])
    monkeypatch.setattr(speculate, "ROUNDS", 1)
    arguments = ["--model", "reasoner", "--dtype", "float32", "--context", "100", "--batch", "2"]
    assert bench.main(["speculate", "--json", *arguments, "--budget", "32", "--tokens", "8"]) == 0
    out, shown = capsys.readouterr()
    found = json.loads(out)["speculate"]
    (one,) = found["passes"]
    assert list(one["ms_per_token"]) == ["dense", "seer", "seer, 4", "ngram, 4"]
    assert min(one["ms_per_token"].values()) > 0 and one["over_dense"]["dense"] == 1.0
    assert len(one["acceptance_by_place"]["seer, 4"]) == 4
    assert set(one["acceptance"]) <= {"seer, 4", "ngram, 4"} and 0 < one["draft_share"]["seer, 4"] < 1
    assert set(found["pays_from"]["2"]) == {"seer", "seer, 4", "ngram, 4"}
    assert [case["rows"] for case in found["modelled"]["cases"]] == [1, 1, 16, 16]
    assert "time of drafts" in shown and "not run" in shown


def test_too_many_drafts_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["speculate", "--drafts", "4,9"]) == 2
    assert "--drafts 9: 7 at most" in capsys.readouterr().err


def test_dense_comes_first_and_gates_are_needed_for_seer() -> None:
    names = [way.name for way in speculate.contenders([2], True)]
    assert names[:4] == ["dense", "seer", "seer, 2", "seer, auto"] and "ngram+seer, 2" in names
    assert not any("seer" in way.name for way in speculate.contenders([2], False))


@pytest.mark.parametrize(
    "ratios, context",
    [
        ({1000: 0.8, 3000: 1.2}, 2000),
        ({1000: 1.1, 3000: 1.2}, 1000),
        ({1000: 0.8, 3000: 0.9}, None),
        ({1000: 1.1, 2000: 0.9, 4000: 1.1}, 3000),
    ],
)
def test_from_which_context_it_pays(ratios: dict[int, float], context: int | None) -> None:
    assert crossing(ratios) == context


def test_the_model_adds_bytes_and_launches() -> None:
    """By hand: 16.4 GB of weights, 147,456 bytes a token, 11 launches in each of 36 layers and 40 more."""
    read = 16.4e9 + 16 * 32768 * 147456
    assert step(H200, QWEN3_8B, 16, 32768, None) == pytest.approx(read / 3.84e12 + 436 * 1.5e-6)
    sparse = step(H200, QWEN3_8B, 16, 32768, 2048)
    assert sparse < step(H200, QWEN3_8B, 16, 32768, 4096) < step(H200, QWEN3_8B, 16, 32768, None)
    found = speculated(H200, QWEN3_8B, 16, 32768, 2048, [1.0, 1.0])
    dense = step(H200, QWEN3_8B, 16, 32768, None)
    assert found["over_dense"] == pytest.approx(3 * dense / (dense + 2 * sparse), abs=0.01)
