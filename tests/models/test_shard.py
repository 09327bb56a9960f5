"""Parts of models, and their sums; whole models over real ranks are in ``tests/engine/test_parallel.py``."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from families import make_family
from tiny import FAMILIES, make_tiny, tiny_tokenizer

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import ModelConfig
from seer_ray.models import group, shard
from seer_ray.models.group import Group
from seer_ray.models.load import load_model
from seer_ray.models.shard import check_shards, shard_model


def test_a_rank_loads_its_part() -> None:
    """The second KV head with its two query heads, its gate, and half of the MLP."""
    config = ModelConfig(name="reasoner", gates="reasoner", device="cpu")
    whole, part = load_model(config), load_model(config, Group(1, 2))
    model: Any = whole.model
    half: Any = part.model
    for layer, mine in zip(model.model.layers, half.model.layers, strict=True):
        for owner, name in (
            ("self_attn", "q_proj"),
            ("self_attn", "k_proj"),
            ("self_attn", "v_proj"),
            ("mlp", "gate_proj"),
            ("mlp", "up_proj"),
        ):
            weight, kept = (getattr(getattr(one, owner), name).weight for one in (layer, mine))
            assert torch.equal(kept, weight[len(weight) // 2 :])
        for owner, name in (("self_attn", "o_proj"), ("mlp", "down_proj")):
            weight, kept = (getattr(getattr(one, owner), name).weight for one in (layer, mine))
            assert torch.equal(kept, weight[:, weight.shape[1] // 2 :])
    assert torch.equal(half.lm_head.weight, model.lm_head.weight)
    block = 8  # of the gates that come with the model
    for gate, mine in zip(whole.load_gates(block), part.load_gates(block), strict=True):
        assert gate is not None and mine is not None
        assert (mine.num_query_heads, mine.num_kv_heads) == (2, 1)
        for name, weight in gate.named_parameters():
            kept = mine.get_parameter(name)
            assert torch.equal(kept, weight if "norm" in name else weight[1:]), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.int64])
def test_a_sum_is_in_order_of_rank_and_rounded_once(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [(torch.randn(1, 5, 7) * 100).to(dtype) for _ in range(4)]
    monkeypatch.setattr(group, "_gather", lambda out, x: out.copy_(torch.cat(parts)))
    wide = [part.long() if dtype == torch.int64 else part.float() for part in parts]
    expected = (((wide[0] + wide[1]) + wide[2]) + wide[3]).to(dtype)
    for rank in range(4):
        total = Group(rank, 4).total(parts[rank])
        assert total.dtype == dtype and torch.equal(total, expected)


@pytest.mark.parametrize(
    ("ranks", "shape", "message"),
    [
        (3, {}, "engine.tensor_parallel=3: must divide the model's num_key_value_heads=8"),
        (4, {"intermediate_size": 130}, "tensor_parallel=4: must divide the model's intermediate_size=130"),
        (8, {"moe_intermediate_size": 12}, "=8: must divide the model's moe_intermediate_size=12"),
    ],
)
def test_models_that_cannot_be_cut(ranks: int, shape: dict[str, Any], message: str) -> None:
    config = {"model_type": "llama", "num_key_value_heads": 8, "intermediate_size": 128} | shape
    with pytest.raises(ConfigError, match=message):
        check_shards(SimpleNamespace(**config), ranks)


@pytest.mark.parametrize("family", ["llama", "qwen2", "mixtral", "qwen2_moe"])
def test_a_rank_reads_its_part_alone(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And has what would be left of the whole: biases, experts and what all ranks have included."""
    whole: Any = make_family(family) if family not in FAMILIES else make_tiny(family)
    whole.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    read: list[int] = []
    opened = shard.safe_open

    class Counting:
        def __init__(self, *arguments: Any, **named: Any) -> None:
            self._file = opened(*arguments, **named)

        def __enter__(self) -> Any:
            return SimpleNamespace(keys=self._file.keys, get_slice=self._slice)

        def __exit__(self, *_: Any) -> None: ...

        def _slice(self, name: str) -> Any:
            return Slice(self._file.get_slice(name))

    class Slice:
        def __init__(self, slice: Any) -> None:
            self._slice, self.get_shape = slice, slice.get_shape

        def __getitem__(self, at: Any) -> torch.Tensor:
            found: torch.Tensor = self._slice[at]
            read.append(found.numel())
            return found

    monkeypatch.setattr(shard, "safe_open", Counting)
    part: Any = load_model(ModelConfig(name=str(tmp_path), device="cpu", dtype="float32"), Group(1, 2)).model
    shard_model(whole, Group(1, 2))
    expected, found = whole.state_dict(), part.state_dict()
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name
    assert sum(read) <= sum(parameter.numel() for parameter in whole.parameters()) + 64
    assert part.config.num_key_value_heads == whole.config.num_key_value_heads
