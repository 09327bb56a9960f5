"""Two ranks with half of the KV heads each decode what one process does."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from engine.ranks import CASES, DRAFTED, decode, drafting, engine_of, logits, rank, repeating, requests

from seer_ray.config.errors import ConfigError
from seer_ray.engine.parallel import follow
from seer_ray.models.families import OURS
from seer_ray.models.group import Group, listen


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    """What the ranks decoded, by case."""
    folder = tmp_path_factory.mktemp("ranks")
    with listen() as meeting:
        mp.spawn(rank, (meeting, str(folder)), nprocs=2)
    return torch.load(Path(folder) / "made.pt", weights_only=False)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_two_ranks_decode_what_one_process_does(case: tuple[str, str], made: dict[Any, Any]) -> None:
    """Tokens, text, counts of what was attended, and what each step of a chain that is watched attended."""
    found = dict(made[case])
    engine = engine_of(*case)
    expected = decode(engine, requests())
    read, _ = found.pop("bytes"), found.pop("drafted")
    assert found == expected
    assert len(found) == 6 and found["p0"][2] == "abort" and found["p1"][-1]
    # Both ranks read the embeddings of the vocabulary and the norms whole, the rest between them.
    alone = engine.stats()
    assert alone["decode_bytes"] < read < 1.5 * alone["decode_bytes"]


def test_settings_change_on_all_ranks(made: dict[Any, Any]) -> None:
    found = dict(made["configured"])
    del found["bytes"], found["drafted"]
    assert found == decode(engine_of("g2", "quest"), requests())


@pytest.fixture(scope="module")
def dense() -> dict[str, Any]:
    """By one process, one token a step."""
    return decode(engine_of("g2", "dense"), repeating())


@pytest.mark.parametrize("case", DRAFTED)
def test_two_ranks_that_speculate_decode_what_dense_steps_of_one_do(
    case: str, made: dict[Any, Any], dense: dict[str, Any]
) -> None:
    """Of the chain that is given up after so many steps what both have come to."""
    found = dict(made["drafts"][case])
    del found["bytes"]
    assert found.pop("drafted") > 10
    for id, (tokens, text, reason, error, _, available, _, trace) in found.items():
        known = dense[id]
        if id == "p0":
            assert reason == "abort" and tokens[: len(known[0])] == known[0][: len(tokens)] != []
            continue
        assert (tokens, text, reason, error, available, trace) == (*known[:4], known[5], known[7])
    if case != "auto":  # whose lengths are those of its own clock
        assert found == decode(drafting(case), repeating())


@pytest.mark.parametrize("model_type", OURS)
def test_models_of_all_types_can_be_cut(model_type: str, made: dict[Any, Any]) -> None:
    expected = logits(model_type)
    limit = 1e-5 * expected.abs().max().item()
    torch.testing.assert_close(made["logits"][model_type], expected, atol=limit, rtol=0)


def test_exact_tokens_do_not_depend_on_the_batch(made: dict[Any, Any]) -> None:
    together = made["exact"]
    for id, alone in made["alone"].items():
        assert together[id] == alone[id]


def test_a_rank_with_other_tokens_ends() -> None:
    group: Any = SimpleNamespace(rank=1, told=lambda: ("step", (), 1234))
    engine: Any = SimpleNamespace(model=SimpleNamespace(group=group), step=lambda: [])
    with pytest.raises(RuntimeError, match="rank 1 has other tokens"):
        follow(engine)


def test_an_engine_has_the_ranks_that_its_model_has() -> None:
    with pytest.raises(ConfigError, match="tensor_parallel=1: the model is loaded over 2"):
        engine = engine_of("g2", "dense")
        object.__setattr__(engine.model, "group", Group(0, 2))
        engine.configure(engine.settings, engine.selector)
