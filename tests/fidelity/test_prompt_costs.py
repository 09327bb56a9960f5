"""How query heads come to share a density, against prompts that read it."""

from __future__ import annotations

import pytest
import torch
from engines import tokens
from tiny import make_tiny

from seer_ray.corpora.documents import Document
from seer_ray.fidelity.passes import Pages
from seer_ray.fidelity.prompt_costs import DENSITIES, MEANS, _Errors, share_density
from seer_ray.fidelity.prompt_passes import Contender, PromptPass
from seer_ray.fidelity.sensitivity import Taken
from seer_ray.kernels.blocks import Amount
from seer_ray.models.patch import attention_shape, embed, patch_attention, rope_tables, run_layers
from seer_ray.models.prefill_gates import PrefillGateConfig, init_prefill_gates

BLOCK, LENGTH = 16, 320


@pytest.fixture(scope="module")
def model():
    made = make_tiny("qwen3")
    patch_attention(made)
    return made


def contenders(model) -> list[Contender | None]:
    gates = init_prefill_gates(model.config, PrefillGateConfig(BLOCK, 16), 1)
    return [Contender("prefill", gate, BLOCK) for gate in gates]


def document(seed: int) -> Document:
    return Document(str(seed), "made", torch.tensor(tokens(LENGTH, seed), dtype=torch.int32))


@torch.inference_mode()
def test_errors_of_heads_are_those_of_the_layer_with_one_head_sparse(model) -> None:
    """One head reads less, all others everything: the layer's output differs by that head's error."""
    shape, chosen = attention_shape(model), contenders(model)
    pages = Pages(shape, rope_tables(model, LENGTH), LENGTH, BLOCK, next(model.parameters()), True)
    hidden = embed(model, document(0).tokens)
    errors = _Errors(pages, chosen[0], 2)
    with Taken(model, 0) as taken:
        run_layers(model, hidden, PromptPass(pages, errors.look), range(1))
    found = errors.measure(taken)
    assert list(found) == list(DENSITIES)
    outputs: list[torch.Tensor] = []
    keep = model.model.layers[0].self_attn.o_proj.register_forward_hook(lambda m, i, o: outputs.append(o))
    reads = []
    for density in (0.1, 0.4):
        for head in range(4):
            heads = tuple(density if one == head else 1.0 for one in range(4))
            amounts = {0: Amount(density=density, heads=heads)}
            step = PromptPass(pages, None, [chosen[0], None], Amount(density=density), 2, amounts)
            run_layers(model, hidden, step, range(1))
            read, error = found[density][head]
            reads.append(read)
            run_layers(model, hidden, PromptPass(pages), range(1))
            sparse, dense = outputs[-2:]
            expected = float((sparse - dense).double().square().sum()) / LENGTH
            assert error == pytest.approx(expected, rel=1e-3)
    keep.remove()
    assert max(reads[:4]) < min(reads[4:])


def test_shares_have_their_means_and_grow_with_them(model) -> None:
    found = share_density(
        model, [document(0), document(1)], contenders(model), block=BLOCK, sink=True, last_blocks=2
    )
    assert (found.layers, found.budgets) == ((0, 1), MEANS)
    for density in (0.1, 0.17, 0.3, 0.65, 1.0):
        heads = [one for own in found.densities(density).values() for one in own]
        assert sum(heads) / len(heads) == pytest.approx(density, rel=1e-6) and max(heads) <= 1
    low, high = (sum(found.densities(density).values(), ()) for density in (0.3, 0.5))
    assert all(a <= b for a, b in zip(low, high, strict=True))
    assert len({round(one, 6) for one in low}) > 1
    # Of densities that are two blocks of this length, the largest.
    assert min(found.tokens[0][0]) == max(d for d in DENSITIES if Amount(density=d).count(20) == 2)
