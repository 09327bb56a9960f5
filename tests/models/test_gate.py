"""The gate against recorded numbers and against loops written by hand."""

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from seer_ray.config.errors import ConfigError
from seer_ray.models.gate import AttnGate
from seer_ray.models.rope import RopeTable

FIXTURES = sorted((Path(__file__).parent.parent / "fixtures" / "gate").glob("*.safetensors"))


def make_gate(heads: int = 4, kv_heads: int = 2, seed: int = 0, **settings: object) -> AttnGate:
    torch.manual_seed(seed)
    shape = {"head_dim": 8, "gate_dim": 12, "block_size": 5, "rope_theta": 1e4} | settings
    gate = AttnGate(num_query_heads=heads, num_kv_heads=kv_heads, **shape)
    with torch.no_grad():
        for name, weight in gate.named_parameters():
            if "norm" in name:
                weight.uniform_(0.5, 1.5)
    return gate


# -- recorded numbers --------------------------------------------------------------------------------


def load_fixture(path: Path) -> tuple[AttnGate, dict, dict[str, Tensor]]:
    with safe_open(path, "pt") as file:
        meta = {key: json.loads(value) for key, value in file.metadata().items()}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    gate = AttnGate(
        num_query_heads=meta["num_query_heads"],
        num_kv_heads=meta["num_kv_heads"],
        head_dim=meta["head_dim"],
        gate_dim=meta["gate_hidden_size"],
        block_size=meta["block_size"],
        rope_theta=meta["rope_theta"],
        use_qk_norm=meta["use_qk_norm"],
        q_pooling=meta["q_head_pooling_type"],
        k_pooling=meta["k_seq_pooling_type"],
    )
    gate.load_state_dict({k.removeprefix("gate."): v for k, v in tensors.items() if k.startswith("gate.")})
    return gate, meta, tensors


def test_there_are_fixtures() -> None:
    assert len(FIXTURES) == 3


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
@torch.no_grad()
def test_recorded_numbers(path: Path) -> None:
    gate, meta, expected = load_fixture(path)
    compressed = gate.compress_keys(expected["k_nope"])
    last = torch.full((meta["batch"],), meta["seq_len"] - 1)
    logits = gate.score(expected["q_nope"], last, compressed)
    torch.testing.assert_close(compressed, expected["k_compressed"], atol=1e-5, rtol=0)
    torch.testing.assert_close(logits, expected["block_logits"], atol=1e-5, rtol=0)

    # The record has the open block at the end, with a zero key and so a logit of 0. Selection leaves it out.
    with_open = torch.cat([logits, torch.zeros_like(logits[..., :1])], dim=-1)
    probabilities = with_open.softmax(-1)
    torch.testing.assert_close(probabilities, expected["block_probs"], atol=1e-5, rtol=0)
    chosen = probabilities > meta["threshold"]
    chosen[..., -1] = True
    assert torch.equal(chosen, expected["threshold_mask"].bool())


# -- loops -------------------------------------------------------------------------------------------


def loop_rope(x: list[float], position: int, theta: float) -> list[float]:
    half = len(x) // 2
    out = [0.0] * len(x)
    for i in range(half):
        angle = position / theta ** (2 * i / len(x))
        out[i] = x[i] * math.cos(angle) - x[half + i] * math.sin(angle)
        out[half + i] = x[half + i] * math.cos(angle) + x[i] * math.sin(angle)
    return out


def loop_norm(x: list[float], weight: Tensor) -> list[float]:
    root = math.sqrt(sum(v * v for v in x) / len(x) + 1e-6)
    return [v / root * w for v, w in zip(x, weight.tolist(), strict=True)]


def loop_key(gate: AttnGate, k: Tensor, block: int, head: int, theta: float) -> list[float]:
    """Compressed key of one block and KV head of ``k [tokens, kv_heads, head_dim]``, in Python floats."""
    rows = k[block * gate.block_size : (block + 1) * gate.block_size, head].tolist()
    columns = list(zip(*rows, strict=True))
    kept = {"max": [max(c) for c in columns], "min": [min(c) for c in columns]}
    kept["avg"] = [sum(c) / len(c) for c in columns]
    x = [v for name in ("max", "min", "avg") if name in gate.k_pooling for v in kept[name]]
    weight = gate.attngate_linear_k.weight[head].tolist()
    y = [sum(v * row[o] for v, row in zip(x, weight, strict=True)) for o in range(gate.gate_dim)]
    if gate.use_qk_norm:
        y = loop_norm(y, gate.attngate_knorm.weight)
    return loop_rope(y, block * gate.block_size, theta)


def loop_query(gate: AttnGate, q: Tensor, head: int, position: int, theta: float) -> list[float]:
    """Gate query of one KV head for ``q [q_heads, head_dim]``, without the division by sqrt(dg)."""
    group = gate.num_query_heads // gate.num_kv_heads
    mine = q[head * group : (head + 1) * group].tolist()
    if gate.q_pooling == "Qproj":
        weight = gate.attngate_linear_q.weight[head].tolist()
        y = [
            sum(mine[j][i] * weight[j][i][o] for j in range(group) for i in range(gate.head_dim))
            for o in range(gate.gate_dim)
        ]
    else:
        y = [sum(column) / group for column in zip(*mine, strict=True)]
        if gate.q_pooling == "Qavgproj":
            weight = gate.attngate_linear_q.weight[head].tolist()
            y = [sum(v * row[o] for v, row in zip(y, weight, strict=True)) for o in range(gate.gate_dim)]
    if gate.use_qk_norm:
        y = loop_norm(y, gate.attngate_qnorm.weight)
    return loop_rope(y, position, theta)


@pytest.mark.parametrize(
    "group, tokens, settings",
    [
        (1, 5, {}),
        (3, 11, {"q_pooling": "Qavgproj", "k_pooling": "Kmaxmin"}),
        (4, 33, {"use_qk_norm": False, "rope_theta": 1e6}),
        (5, 29, {"q_pooling": "Qavg", "gate_dim": 8, "k_pooling": "Kavg"}),
        (8, 14, {"gate_dim": 6, "block_size": 3, "k_pooling": "Kminavg"}),
    ],
    ids=lambda value: str(value),
)
@torch.no_grad()
def test_against_loops(group: int, tokens: int, settings: dict) -> None:
    kv_heads, batch = 2, 2
    gate = make_gate(kv_heads * group, kv_heads, **settings)
    theta = settings.get("rope_theta", 1e4)
    k = torch.randn(batch, tokens, kv_heads, gate.head_dim)
    q = torch.randn(batch, kv_heads * group, gate.head_dim)
    positions = torch.tensor([tokens - 1, tokens + 700])
    compressed = gate.compress_keys(k)
    logits = gate.score(q, positions, compressed)
    blocks = tokens // gate.block_size
    assert compressed.shape == (batch, blocks, kv_heads, gate.gate_dim)
    assert logits.shape == (batch, kv_heads, blocks)
    for b, n, h in itertools.product(range(batch), range(blocks), range(kv_heads)):
        key = loop_key(gate, k[b], n, h, theta)
        query = loop_query(gate, q[b], h, int(positions[b]), theta)
        assert compressed[b, n, h].tolist() == pytest.approx(key, abs=1e-5)
        logit = sum(x * y for x, y in zip(query, key, strict=True)) / math.sqrt(gate.gate_dim)
        assert logits[b, h, n].item() == pytest.approx(logit, abs=1e-5)


# -- what must hold ----------------------------------------------------------------------------------


@torch.no_grad()
def test_a_page_from_anywhere_gets_the_key_of_its_place() -> None:
    """Pages that fill during generation, one at a time, have the keys that a prefill would have made."""
    gate = make_gate()
    k = torch.randn(1, 23, 2, 8)
    compressed = gate.compress_keys(k)
    assert compressed.shape[1] == 4
    for block in (3, 0, 2):
        first = block * gate.block_size
        page = gate.compress_pages(k[:, first : first + gate.block_size], torch.tensor([first]))
        torch.testing.assert_close(page[0], compressed[0, block], atol=1e-6, rtol=0)


@torch.no_grad()
def test_less_than_a_block_has_no_keys() -> None:
    gate = make_gate()
    compressed = gate.compress_keys(torch.randn(3, 4, 2, 8))
    assert compressed.shape == (3, 0, 2, 12)
    assert gate.score(torch.randn(3, 4, 8), torch.tensor([3, 3, 3]), compressed).shape == (3, 2, 0)


@torch.no_grad()
def test_one_sequence_serves_many_query_rows() -> None:
    gate = make_gate()
    compressed = gate.compress_keys(torch.randn(1, 20, 2, 8))
    q, positions = torch.randn(7, 4, 8), torch.arange(13, 20)
    together = gate.score(q, positions, compressed)
    for row in range(7):
        alone = gate.score(q[row : row + 1], positions[row : row + 1], compressed)
        torch.testing.assert_close(together[row], alone[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_low_precision_weights_compute_in_float32(dtype: torch.dtype) -> None:
    gate = make_gate().to(dtype)
    exact = make_gate()
    exact.load_state_dict({name: weight.float() for name, weight in gate.state_dict().items()})
    k, q = torch.randn(2, 20, 2, 8, dtype=dtype), torch.randn(2, 4, 8, dtype=dtype)
    positions = torch.tensor([19, 5000])
    logits = gate.score(q, positions, gate.compress_keys(k))
    assert gate.dtype == dtype and logits.dtype == torch.float32
    expected = exact.score(q.float(), positions, exact.compress_keys(k.float()))
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(gate.score(q, positions, gate.compress_keys(k)), logits)


def test_gradients_reach_every_weight_and_are_right() -> None:
    gate = make_gate(head_dim=4, gate_dim=4, block_size=3)
    k, q, positions = torch.randn(1, 7, 2, 4), torch.randn(2, 4, 4), torch.tensor([5, 6])

    def loss() -> Tensor:
        return gate.score(q, positions, gate.compress_keys(k)).log_softmax(-1)[..., 0].sum()

    loss().backward()
    for name, weight in gate.named_parameters():
        assert weight.grad is not None
        direction = torch.randn_like(weight)
        step = 1e-2
        with torch.no_grad():
            weight += step * direction
            above = loss()
            weight -= 2 * step * direction
            below = loss()
            weight += step * direction
        slope = (above - below).item() / (2 * step)
        assert (weight.grad * direction).sum().item() == pytest.approx(slope, rel=2e-2, abs=2e-3), name


def test_released_parameter_names() -> None:
    shapes = {name: tuple(weight.shape) for name, weight in make_gate(8, 2).state_dict().items()}
    assert shapes == {
        "attngate_linear_q.weight": (2, 4, 8, 12),
        "attngate_linear_k.weight": (2, 24, 12),
        "attngate_qnorm.weight": (12,),
        "attngate_knorm.weight": (12,),
    }


@torch.no_grad()
def test_without_rope_positions_do_not_matter() -> None:
    gate = make_gate(rope_theta=None, use_rope=False)
    k, q = torch.randn(1, 10, 2, 8), torch.randn(1, 4, 8)
    compressed = gate.compress_keys(k)
    assert torch.equal(
        gate.score(q, torch.tensor([9]), compressed), gate.score(q, torch.tensor([900]), compressed)
    )


@torch.no_grad()
def test_a_table_serves_as_well_as_a_theta() -> None:
    table = RopeTable.from_theta(1e4, 12, 64, torch.float64)
    one, other = make_gate(), make_gate(rope_theta=None, rope=table)
    k, q, position = torch.randn(1, 20, 2, 8), torch.randn(1, 4, 8), torch.tensor([19])
    assert torch.equal(
        one.score(q, position, one.compress_keys(k)), other.score(q, position, other.compress_keys(k))
    )


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"heads": 5}, "5 query heads, 2 KV heads"),
        ({"q_pooling": "Qmax"}, "Qmax: must be one of"),
        ({"q_pooling": "Qavg"}, "gate dim 12 to be head dim 8"),
        ({"k_pooling": "Kavgmax"}, "Kavgmax"),
        ({"k_pooling": "K"}, "k pooling K:"),
        ({"rope_theta": None}, "rope_theta"),
        ({"use_rope": False}, "use_rope"),
        ({"rope_theta": None, "rope": RopeTable.from_theta(1e4, 8)}, "RoPE over 8 channels"),
    ],
)
def test_shapes_that_make_no_gate(settings: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_gate(**settings)
