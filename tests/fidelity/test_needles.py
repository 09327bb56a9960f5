"""Whether a question reads where its answers stand: places by hand, and shares against whole maps."""

from __future__ import annotations

import pytest
import torch
from tiny import make_tiny, tiny_tokenizer

from seer_ray.fidelity.needles import (
    TASKS,
    NeedleFigure,
    NeedlePrompt,
    measure_needles,
    needle_prompts,
    needle_table,
)
from seer_ray.fidelity.prompt_passes import REFERENCES
from seer_ray.models.prefill_gates import PrefillGateConfig, init_prefill_gates

BLOCK = 16


@pytest.mark.parametrize("task", TASKS)
def test_needles_are_the_tokens_of_the_answers_in_the_text(task: str) -> None:
    tokenizer = tiny_tokenizer()
    for prompt in needle_prompts(task, 900, 2, tokenizer):
        assert len(prompt.tokens) <= 900
        text = tokenizer.decode(prompt.tokens.tolist())
        asked = tokenizer.decode(prompt.tokens[prompt.question :].tolist())
        assert asked.strip().startswith("What") and "special magic number" in asked
        found = "".join(tokenizer.decode([int(prompt.tokens[at])]) for at in prompt.needles)
        digits = "".join(letter for letter in found if letter.isdigit())
        assert len(digits) % 7 == 0 and digits[:7] in text.replace(" ", "")


def test_the_share_is_that_of_whole_maps() -> None:
    model = make_tiny("qwen3")
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 200, (300,), generator=draw, dtype=torch.int32)
    prompt = NeedlePrompt("0", "needle", tokens, torch.tensor([70, 71, 90]), 280)
    gates = {"prefill": init_prefill_gates(model.config, PrefillGateConfig(BLOCK, 16), 1)}
    found = measure_needles(model, [prompt], [1.0, 0.2], gates, REFERENCES, block=BLOCK)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = model(tokens[None].long(), output_attentions=True).attentions
    for figure in found:
        rows = range(280 // BLOCK, 19)
        expected = sum(
            float(
                maps[figure.layer][0, :, row * BLOCK : (row + 1) * BLOCK, block * BLOCK :][..., :BLOCK].sum()
            )
            / min(BLOCK, 300 - row * BLOCK)
            for row in rows
            for block in (4, 5)
        )
        assert figure.dense == pytest.approx(expected, rel=1e-4)
        assert figure.kept <= figure.dense + 1e-6
        if figure.budget == "1":
            assert figure.kept == figure.dense
        if figure.selector == "window":
            assert figure.kept == (figure.dense if figure.budget == "1" else 0)


def test_shares_are_weighed_by_attention() -> None:
    figures = [
        NeedleFigure("a", "needle", 0, "prefill", "0.1", 3.0, 3.0),
        NeedleFigure("a", "needle", 1, "prefill", "0.1", 1.0, 0.0),
        NeedleFigure("b", "needle", 0, "prefill", "0.1", 4.0, 2.0),
    ]
    (row,) = needle_table(figures)
    assert (row["kept"], row["prompts"]) == (5 / 8, 2) and row["kept_se"] > 0
