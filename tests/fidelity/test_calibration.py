"""Predicted and kept mass against selections, and temperatures that are known."""

from __future__ import annotations

import pytest
import torch

from seer_ray.fidelity.calibration import LEVELS, Ranked, TemperatureFit
from seer_ray.kernels.limits import Limits
from seer_ray.kernels.select import select

BLOCK, ROWS, HEADS, BLOCKS = 4, 40, 2, 24


def case(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of attention to blocks, the attention, and positions."""
    draw = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(ROWS, HEADS, BLOCKS, generator=draw)
    rows = torch.randint(8 * BLOCK, BLOCKS * BLOCK, (ROWS,), generator=draw)
    there = torch.arange(BLOCKS) <= rows.view(-1, 1, 1) // BLOCK
    return logits, logits.masked_fill(~there, float("-inf")).softmax(-1), rows


@pytest.mark.parametrize("sink", [True, False])
def test_what_a_level_keeps_is_what_is_selected_at_that_mass(sink: bool) -> None:
    logits, mass, rows = case()
    sharpness, scores = [0.5, 2.0], logits + torch.randn_like(logits)
    sharp = torch.tensor(sharpness)
    predicted, kept = Ranked.of(scores, mass, rows, BLOCK, sink).at(sharp.unsqueeze(1))
    for place, level in enumerate(LEVELS):
        limits = Limits.of(HEADS, BLOCKS, sink, mass=level, sharpness=sharpness)
        ids, counts = select(scores, torch.arange(BLOCKS).expand(ROWS, -1), rows + 1, BLOCK, limits)
        for row in range(ROWS):
            complete = (int(rows[row]) + 1) // BLOCK
            for head in range(HEADS):
                chosen = [i for i in ids[row, head, : int(counts[row, head])].tolist() if i < complete]
                true, shares = (
                    mass[row, head, :complete],
                    (scores[row, head, :complete] * sharp[head]).softmax(0),
                )
                assert float(kept[place, row, head]) == pytest.approx(
                    float(true[chosen].sum() / true.sum()), abs=1e-5
                )
                assert float(predicted[place, row, head]) == pytest.approx(
                    float(shares[chosen].sum()), abs=1e-5
                )


def test_a_temperature_that_was_multiplied_in_is_found() -> None:
    """Scores that are the logarithm of attention, times what is to be found, for each head."""
    times, fit = torch.tensor([0.4, 3.0]), TemperatureFit()
    for seed in range(4):
        logits, mass, rows = case(seed)
        fit.add(Ranked.of(logits * times.view(1, -1, 1), mass, rows, BLOCK, sink=True))
    assert fit.rows == 4 * ROWS
    assert fit.temperatures == pytest.approx(times.tolist(), rel=0.02)
    for label, temperatures in (("fitted", fit.temperatures), ("plain", (1.0, 1.0))):
        predicted, kept = map(torch.tensor, fit.figures(temperatures))
        gap = (kept - predicted).abs().max()
        assert gap < 0.005 if label == "fitted" else gap > 0.02


def test_scores_that_say_nothing_are_as_flat_as_can_be() -> None:
    _, mass, rows = case()
    fit = TemperatureFit()
    fit.add(Ranked.of(-100 * mass, mass, rows, BLOCK, sink=True))
    assert all(1 < each <= 16 for each in fit.temperatures)
