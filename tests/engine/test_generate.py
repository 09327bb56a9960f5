"""Greedy tokens are those of ``model.generate``, and attended tokens are those of a count by hand."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from engines import SELECTORS, make_engine, outcome, request, run, tokens
from tiny import FAMILIES, make_tiny

from seer_ray.engine.mixers import attention

PROMPTS = [tokens(count, seed=count) for count in (1, 63, 64, 65, 300)]
NEW = 70
HEADS, LAYERS = 2, 2


@cache
def generated(family: str) -> list[list[int]]:
    model = make_tiny(family)
    found = []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        out = model.generate(  # type: ignore[operator]
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False, eos_token_id=None
        )
        found.append(out[0, len(prompt) :].tolist())
    return found


@pytest.mark.parametrize("exact", [False, True], ids=["fast", "exact"])
@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("family", FAMILIES)
def test_budget_of_the_whole_length_is_dense(family: str, selector: str, exact: bool) -> None:
    engine = make_engine(family, selector, block=64, prefill_chunk=128, exact=exact, max_batch=5)
    done = run(engine, [request(str(n), prompt, NEW) for n, prompt in enumerate(PROMPTS)])
    assert [done[str(n)].tokens for n in range(len(PROMPTS))] == generated(family)
    for completion in done.values():
        assert completion.counters.attended_kv == completion.counters.available_kv > 0


def read(length: int, block: int, blocks: int | None) -> int:
    """Tokens that one head reads when the current token is number ``length``."""
    if blocks is None or -(-length // block) <= blocks:
        return length
    return (blocks - 1) * block + (length - 1) % block + 1


@pytest.mark.parametrize("exact", [False, True], ids=["fast", "exact"])
@pytest.mark.parametrize("selector", SELECTORS)
def test_attended_tokens(selector: str, exact: bool) -> None:
    """Two blocks of 16, the second layer dense."""
    engine = make_engine(
        selector=selector, budget=32, exact=exact, layers={"1": "dense"} if selector != "dense" else {}
    )
    lengths = (1, 15, 16, 17, 100)
    done = run(engine, [request(str(n), tokens(n, seed=n), 40) for n in lengths])
    sparse = None if selector == "dense" else 2
    for prompt in lengths:
        steps = range(prompt, prompt + 40)  # lengths at which tokens were made
        assert done[str(prompt)].counters.available_kv == sum(steps) * HEADS * LAYERS
        expected = sum(read(n, 16, sparse) + n for n in steps) * HEADS
        assert done[str(prompt)].counters.attended_kv == expected


def test_attended_tokens_of_shares() -> None:
    """Two and six blocks of 16 instead of four in both layers."""
    engine = make_engine(selector="quest", budget=64, shares={"0": 0.5, "1": 1.5})
    (completion,) = run(engine, [request("a", tokens(120), 40)]).values()
    expected = sum(read(n, 16, 2) + read(n, 16, 6) for n in range(120, 160)) * HEADS
    assert completion.counters.attended_kv == expected


def test_attended_tokens_of_heads_and_of_a_budget_that_grows() -> None:
    """Two and six blocks of the heads of one layer, four of the other's, or a quarter of all blocks."""
    settings = {"budget": 64, "fraction": 0.25, "head_shares": {"1": [0.5, 1.5]}}
    (completion,) = run(make_engine(selector="quest", **settings), [request("a", tokens(380), 40)]).values()
    fractions = {2: 0.125, 4: 0.25, 6: 0.375}
    expected = 0
    for n in range(380, 420):
        blocks = {k: max(k, int(fraction * -(-n // 16))) for k, fraction in fractions.items()}
        expected += 2 * read(n, 16, blocks[4]) + read(n, 16, blocks[2]) + read(n, 16, blocks[6])
    assert completion.counters.attended_kv == expected


@pytest.mark.parametrize("rule", [{"threshold": 0.2}, {"mass": 0.5}])
def test_attended_tokens_of_a_rule_are_those_of_its_selections(
    rule: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    selections: list[int] = []

    def spy(*arguments: object) -> tuple[torch.Tensor, torch.Tensor]:
        ids, counts = select(*arguments)
        selections.append(int(counts.sum()))
        return ids, counts

    select = attention.select
    monkeypatch.setattr(attention, "select", spy)
    engine = make_engine(selector="quest", budget=96, **rule)
    (completion,) = run(engine, [request("a", tokens(150), 30)]).values()
    missing = sum(16 - ((n - 1) % 16 + 1) for n in range(150, 180)) * HEADS * LAYERS
    assert completion.counters.attended_kv == sum(selections) * 16 - missing
    most = sum(read(n, 16, 6) for n in range(150, 180)) * HEADS * LAYERS
    assert completion.counters.attended_kv < most < completion.counters.available_kv


@pytest.mark.parametrize("selector", [name for name in SELECTORS if name != "dense"])
def test_small_budgets_change_the_tokens(selector: str) -> None:
    """Else the selection would not be in the path at all."""
    prompt = tokens(300, seed=1)
    (sparse,) = run(make_engine(selector=selector, budget=32), [request("a", prompt, 60)]).values()
    (dense,) = run(make_engine(), [request("a", prompt, 60)]).values()
    assert sparse.tokens != dense.tokens
    assert 0 < sparse.counters.attended_kv < 0.15 * sparse.counters.available_kv


def test_a_patched_model_can_be_used_by_several_engines() -> None:
    requests = [request("a", tokens(50), 20)]
    first, second = make_engine(), make_engine(selector="quest", budget=32, block=8)
    expected = {id: outcome(completion) for id, completion in run(first, requests).items()}
    run(second, requests)
    assert {id: outcome(completion) for id, completion in run(first, requests).items()} == expected
