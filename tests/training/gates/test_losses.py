"""Losses of gates and their gradients, against whole attention maps and autograd without chunks."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from engines import tokens
from tiny import make_tiny
from torch import Tensor

from seer_ray.config.training import ObjectiveConfig
from seer_ray.corpora.pack import Pack, Share, first_row
from seer_ray.models.gate import AttnGate
from seer_ray.models.gate_config import GateConfig
from seer_ray.models.gates import init_gates
from seer_ray.models.layers import parse_layers
from seer_ray.training.gates import imitation, soft_gate
from seer_ray.training.gates import losses as gate_training
from seer_ray.training.gates.losses import GateTraining
from seer_ray.training.gates.soft_gate import block_bias

BLOCK = 8
LENGTHS = (61, 16, 1, 33)
"""Of the documents: odd, two blocks, one token, a block begun."""


def documents(*lengths: int) -> list[Tensor]:
    return [torch.tensor(tokens(length, seed)) for seed, length in enumerate(lengths)]


def training(family: str = "qwen3", layers: tuple[int, ...] = (0, 1), **objective: Any) -> GateTraining:
    model: Any = make_tiny(family)
    gates = init_gates(model.config, GateConfig(block_size=BLOCK, gate_dim=8), seed=3)
    return GateTraining(model, gates, layers, ObjectiveConfig(**objective))


def gradients(trained: GateTraining) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in trained.module.named_parameters() if p.grad is not None}


class Captured:
    """q and k before rotation of every layer of one document, and Hugging Face's own attention maps."""

    def __init__(self, family: str, document: Tensor) -> None:
        model: Any = make_tiny(family)
        model.set_attn_implementation("eager")
        self.qk: list[tuple[Tensor, Tensor]] = []
        handles = [
            layer.self_attn.register_forward_pre_hook(self._project, with_kwargs=True)
            for layer in model.model.layers
        ]
        with torch.no_grad():
            self.maps = model(document[None], output_attentions=True).attentions  # [1, q_heads, rows, tokens]
        for handle in handles:
            handle.remove()

    def _project(self, attention: Any, args: Any, kwargs: Any) -> None:
        hidden = kwargs["hidden_states"][0]
        q, k = (
            project(hidden).view(len(hidden), -1, attention.head_dim)
            for project in (attention.q_proj, attention.k_proj)
        )
        if hasattr(attention, "q_norm"):
            q, k = attention.q_norm(q), attention.k_norm(k)
        self.qk.append((q, k))


def written_out(gate: AttnGate, captured: Captured, layer: int, kind: str, skip: float) -> tuple[Tensor, int]:
    """KL of a layer, summed over a document's rows, mean over KV heads; differentiable, nothing chunked."""
    p = captured.maps[layer][0].double()
    q, k = captured.qk[layer]
    length, heads = len(q), gate.num_kv_heads
    compressed = gate.compress_keys(k[None])
    total, rows = torch.zeros((), dtype=torch.float64), 0
    for row in range(first_row(length, BLOCK, skip), length):
        rows += 1
        before = row // BLOCK
        logits = gate.score(q[row : row + 1], torch.tensor([row]), compressed)[0, :, :before].double()
        blocks = p[:, row, : before * BLOCK].unflatten(1, (before, BLOCK)).unflatten(0, (heads, -1))
        shares = blocks.amax(3).amax(1) if kind == "max" else blocks.sum(3).sum(1)
        target = shares / shares.sum(1, keepdim=True)
        kl = (target * (target.log() - torch.log_softmax(logits, 1))).sum(1)
        total = total + kl.mean()
    return total, rows


@pytest.mark.parametrize("family", ["qwen3", "qwen2", "llama"])
@pytest.mark.parametrize("kind", ["max", "mass"])
def test_loss_and_gradient_equal_the_formula_on_whole_maps(
    family: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imitation, "NUMBERS", 40)  # chunks of a few rows
    found = training(family, target=kind)
    docs = documents(*LENGTHS)
    loss, values = found.loss([Pack.of(docs[:2]), Pack.of(docs[2:])])

    explicit = training(family, target=kind)
    captured = [Captured(family, document) for document in docs if len(document) > 1]
    means = []
    for layer, gate in explicit.trained.items():
        parts = [written_out(gate, one, layer, kind, 0.5) for one in captured]
        means.append(sum(part for part, _ in parts) / sum(rows for _, rows in parts))
        assert values[f"kl/layer_{layer:02d}"] == pytest.approx(means[-1].item(), rel=1e-4)
    torch.stack(means).sum().backward()
    assert loss.item() == pytest.approx(sum(means).item(), rel=1e-4)
    assert values["tokens"] == sum(LENGTHS)
    expected = gradients(explicit)
    assert gradients(found).keys() == expected.keys() and len(expected) == 8
    for name, gradient in gradients(found).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-5)


def test_only_the_chosen_gates_get_gradients() -> None:
    found = training(layers=(1,), lm=0.3)
    found.loss([Pack.of(documents(40))])
    assert all(p.grad is None and not p.requires_grad for p in found.model.parameters())
    other = found.gates[0]
    assert other is not None and all(p.grad is None for p in other.parameters())
    assert len(gradients(found)) == 4 and all(g.abs().max() > 0 for g in gradients(found).values())


@pytest.mark.parametrize("objective", [{}, {"distill": 0.0, "lm": 1.0}], ids=["distill", "lm"])
def test_documents_of_a_pack_do_not_see_each_other(objective: dict[str, float]) -> None:
    """A pack's loss is the mean over its documents' rows, whatever stands beside them."""
    a, b = documents(50, 37)
    name = "lm" if objective else "distill"

    def of(*docs: Tensor) -> tuple[float, int]:
        trained = training(**objective)
        soft = soft_gate.SoftGates(trained.trained, trained.shape, BLOCK, 0.5)
        rows = soft.targets(Pack.of(docs)) if objective else trained.rows([Pack.of(docs)])
        return trained.loss([Pack.of(docs)])[1][name], rows

    (alone_a, rows_a), (alone_b, rows_b), (both, rows) = of(a), of(b), of(a, b)
    assert rows == rows_a + rows_b
    assert both == pytest.approx((alone_a * rows_a + alone_b * rows_b) / rows, rel=1e-5)
    assert of(b, a)[0] == pytest.approx(both, rel=1e-5)


def test_packs_without_rows_and_documents_of_one_token() -> None:
    found = training(lm=0.1)
    loss, values = found.loss([Pack.of(documents(1, 5, 8))])
    assert loss.item() == 0.0 and values["distill"] == 0.0 and values["lm"] == 0.0


@pytest.mark.parametrize(
    ("length", "skip", "first"), [(100, 0.5, 50), (100, 0.0, 8), (12, 0.5, 8), (3, 0.5, 3)]
)
def test_first_row(length: int, skip: float, first: int) -> None:
    assert first_row(length, 8, skip) == first


def test_training_lowers_the_loss() -> None:
    found = training()
    optimizer = torch.optim.AdamW(found.module.parameters(), lr=0.02)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        losses.append(found.loss([Pack.of(documents(90))])[0].item())
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


# -- the next-token loss ----------------------------------------------------------------------------------


def test_bias_is_the_log_of_the_share_among_free_blocks() -> None:
    logits = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    bias = block_bias(logits, torch.tensor([0, 1, 3]))
    assert (bias[:2] == 0).all()  # no free block: the first and the own one are always read
    assert (bias[2, :, [0, 3]] == 0).all()
    torch.testing.assert_close(bias[2, :, 1:3], torch.log_softmax(logits[2, :, 1:3], -1))
    bias.sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all() and (logits.grad[:2] == 0).all()


def test_next_token_loss_equals_the_model_with_the_bias_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against Hugging Face's attention with a mask of our own making, and the gradient by differences."""
    monkeypatch.setattr(soft_gate, "LOGITS", 4 * 60 * 7)  # chunks of 7 rows
    monkeypatch.setattr(soft_gate, "LOGIT_ROWS", 5)
    (document,) = documents(60)
    found = training(distill=0.0, lm=1.0)
    loss, values = found.loss([Pack.of([document])])
    assert loss.item() == pytest.approx(expected_loss(found.gates, document), rel=1e-4)
    assert loss.item() == pytest.approx(values["lm"])
    for layer in (0, 1):
        gate = found.trained[layer]
        weight, index = gate.attngate_linear_q.weight, (1, 0, 3, 2)
        assert weight.grad is not None
        sides = []
        for step in (1e-2, -1e-2):
            moved = copy.deepcopy(found.gates)
            with torch.no_grad():
                moved[layer].attngate_linear_q.weight[index] += step  # type: ignore[union-attr]
            sides.append(expected_loss(moved, document))
        assert weight.grad[index].item() == pytest.approx((sides[0] - sides[1]) / 2e-2, rel=0.05, abs=2e-4)


def expected_loss(gates: Any, document: Tensor) -> float:
    """Each layer's mask in turn: the gates see what the masked layers before them give."""
    model: Any = make_tiny("qwen3")
    model.set_attn_implementation("eager")
    length, heads = len(document), model.config.num_key_value_heads
    group = model.config.num_attention_heads // heads
    masks = [torch.full((length, length), float("-inf")).triu(1).expand(1, heads * group, -1, -1)] * 2

    def give(attention: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        gate, hidden = gates[attention.layer_idx], kwargs["hidden_states"][0]
        q, k = (
            norm(project(hidden).view(length, -1, attention.head_dim))
            for project, norm in ((attention.q_proj, attention.q_norm), (attention.k_proj, attention.k_norm))
        )
        rows = torch.arange(length // 2, length)
        bias = block_bias(gate.score(q[rows], rows, gate.compress_keys(k[None])), rows // BLOCK)
        by_token = bias.repeat_interleave(BLOCK, 2)[:, :, :length]
        mask = masks[attention.layer_idx].clone()
        width = by_token.shape[2]
        mask[0, :, length // 2 :, :width] += by_token.transpose(0, 1).repeat_interleave(group, 0)
        return args, kwargs | {"attention_mask": mask}

    for layer in model.model.layers:
        layer.self_attn.register_forward_pre_hook(give, with_kwargs=True)
    with torch.no_grad():
        logits = model(document[None]).logits[0, length // 2 : -1]
    return torch.nn.functional.cross_entropy(logits, document[length // 2 + 1 :]).item()


def test_layers_by_number_and_range() -> None:
    assert parse_layers("0-2,5, 4", 6) == (0, 1, 2, 4, 5)
    assert parse_layers(None, 3) == (0, 1, 2) and parse_layers("1,1", 3) == (1,)


def test_the_shares_of_a_batch_are_its_rows_and_one_pass_serves_them(monkeypatch: pytest.MonkeyPatch) -> None:
    packs = [Pack.of(documents(61, 1, 33)), Pack.of(documents(40))]
    whole = training()
    loss, values = whole.loss(packs)

    found, passes = training(), []
    teach = gate_training.teach
    monkeypatch.setattr(gate_training, "teach", lambda *given: (passes.append(given), teach(*given)))
    total, told = 0.0, []
    for part in range(3):
        share = Share(batch=7, part=part, parts=3)
        rows = found.rows(packs, share)
        partial, parts = found.loss(packs, share)
        total += partial.item() * rows
        told.append(parts["tokens"])
        assert parts.keys() == values.keys()
    assert len(passes) == len(packs)
    assert total / whole.rows(packs) == pytest.approx(loss.item(), rel=1e-5)
    assert sum(found.rows(packs, Share(7, part, 3)) for part in range(3)) == whole.rows(packs)
    assert told == [values["tokens"], 0, 0]
    # The gradients of the parts' sums add up to that of the sum over all rows.
    again, summed = training(), dict.fromkeys(gradients(whole), torch.zeros(()))
    for part in range(3):
        share = Share(batch=7, part=part, parts=3)
        again.module.zero_grad()
        again.loss(packs, share)
        for name, gradient in gradients(again).items():
            summed[name] = summed[name] + gradient * again.rows(packs, share)
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(summed[name] / whole.rows(packs), gradient, rtol=1e-3, atol=1e-5)

    passes.clear()
    found.loss(packs[:1], Share(batch=8, part=0, parts=3))
    assert len(passes) == 1
