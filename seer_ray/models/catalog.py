"""What is known of a model before its weights are there: how it runs, what it keeps, what it cannot do."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch

from seer_ray.config.options import EngineConfig, ModelConfig
from seer_ray.models.architecture import check_length, is_mixture, max_context
from seer_ray.models.families import family_of, lacking
from seer_ray.models.load import load_config, stored_dtype
from seer_ray.models.mixed.config import know_model
from seer_ray.models.mixers import MIXERS, layer_mixers
from seer_ray.models.quiet import quiet
from seer_ray.models.rope import head_dim
from seer_ray.models.shard import check_shards


@dataclass(frozen=True)
class Description:
    """Of one model."""

    name: str
    model_type: str
    runs: str
    """``ours`` or ``hosted``, see ``models.families``."""
    dtype: str
    layers: list[str]
    """How each mixes tokens, of ``models.mixers``."""
    window: int | None
    """Tokens that layers with a window look back."""
    max_context: int
    """Tokens of a sequence, at most."""
    kv_bytes_per_token: int
    """K and V of the layers that keep all tokens."""
    window_bytes: int
    """K and V of the layers with a window, once it is full, of one sequence."""
    state_bytes: int
    """States of one sequence."""
    experts: bool
    lacks: list[str]
    """What it cannot do, see ``lacking``."""

    @property
    def pattern(self) -> str:
        """The layers in a line, such as ``12 x (3 linear, 1 attention)``."""
        runs = [(len(list(same)), name) for name, same in groupby(self.layers)]
        for period in range(1, len(runs) // 2 + 1):
            times, rest = divmod(len(runs), period)
            if runs[: times * period] == runs[:period] * times:
                tail = "".join(f", {count} {name}" for count, name in runs[times * period :]) if rest else ""
                return f"{times} x ({_listed(runs[:period])}){tail}"
        return _listed(runs)

    def sequence_bytes(self, tokens: int) -> int:
        """Memory of a sequence of so many tokens, which fill its windows."""
        return tokens * self.kv_bytes_per_token + self.window_bytes + self.state_bytes


def _listed(runs: list[tuple[int, str]]) -> str:
    return ", ".join(f"{count} {name}" for count, name in runs)


def describe(config: ModelConfig) -> Description:
    """A model by its config; weights are not touched.

    Raises:
        ConfigError: there is no such model, or it is not supported.
    """
    hf_config: Any = load_config(config)
    mixers, dtype = layer_mixers(hf_config), stored_dtype(config, hf_config)
    token = 2 * hf_config.num_key_value_heads * head_dim(hf_config) * dtype.itemsize
    windowed = sum(MIXERS[name].windowed for name in mixers)
    growing = sum(MIXERS[name].attention is not None for name in mixers) - windowed
    window = hf_config.sliding_window if windowed else None
    family = family_of(hf_config)
    return Description(
        name=config.name,
        model_type=hf_config.model_type,
        runs=family.runs,
        dtype=str(dtype).removeprefix("torch."),
        layers=mixers,
        window=window,
        max_context=max_context(hf_config),
        kv_bytes_per_token=growing * token,
        window_bytes=windowed * token * min(window or 0, max_context(hf_config)),
        state_bytes=_state_bytes(hf_config, dtype),
        experts=is_mixture(hf_config),
        lacks=lacking(hosted=family.hosted, layers=mixers),
    )


def check_engine(hf_config: Any, engine: EngineConfig) -> None:
    """That a model can be decoded with these settings, by its config alone.

    Raises:
        ConfigError: says what it cannot.
    """
    check_shards(hf_config, engine.tensor_parallel)
    check_length(hf_config, engine.max_length)


def _state_bytes(hf_config: Any, dtype: torch.dtype) -> int:
    """Of one sequence, by running the modules that keep states without numbers."""
    if not (getattr(hf_config, "conv", 0) or any(MIXERS[name].state for name in layer_mixers(hf_config))):
        return 0
    from transformers import AutoModelForCausalLM

    from seer_ray.models.hosted import kept_states

    know_model(hf_config)
    with quiet(), torch.device("meta"):
        states = kept_states(AutoModelForCausalLM.from_config(hf_config, dtype=dtype))
    parts = [part for one in states if one is not None for part in one if part is not None]
    return sum(part.numel() * part.element_size() for part in parts)
