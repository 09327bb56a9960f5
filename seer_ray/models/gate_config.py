"""``config.json`` of a gate folder: the base model's config plus what describes the gates."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from seer_ray.config.errors import ConfigError
from seer_ray.models.gate import AttnGate
from seer_ray.models.layers import parse_layers
from seer_ray.models.mixers import layer_mixers
from seer_ray.models.plan import SELECTING
from seer_ray.models.rope import RopeTable, head_dim, rope_parameters, ropes

# Our names of the gates' settings, and those in the file.
_KEYS = {
    "block_size": "seerattn_gate_block_size",
    "gate_dim": "seerattn_gate_hidden_size",
    "q_pooling": "seerattn_q_head_pooling_type",
    "k_pooling": "seerattn_k_seq_pooling_type",
    "use_qk_norm": "seerattn_use_qk_norm",
    "use_rope": "seerattn_use_rope",
}
_LAYERS = "seerattn_gate_layers"  # ours: written only where some layers have no gate
_TEMPERATURE = "seerattn_gate_temperature"  # ours: written only where it was fitted
_PREFILL = "seerattn_gate_type"  # SeerAttention v1


@dataclass(frozen=True)
class GateConfig:
    """Settings that the gates of a model share."""

    block_size: int
    gate_dim: int
    q_pooling: str = "Qproj"
    k_pooling: str = "Kmaxminavg"
    use_qk_norm: bool = True
    use_rope: bool = True
    layers: tuple[int, ...] | None = None
    """Layers that have a gate; None: all of which blocks can be selected."""
    temperature: tuple[tuple[float, ...], ...] | None = None
    """Of each layer that has a gate, and of its KV heads; see ``AttnGate.temperature``. None: 1."""

    @classmethod
    def of(cls, gates: Sequence[AttnGate | None]) -> GateConfig:
        """Settings of gates that exist, one entry per layer."""
        layers = tuple(index for index, gate in enumerate(gates) if gate is not None)
        first = next(gate for gate in gates if gate is not None)
        return cls(
            block_size=first.block_size,
            gate_dim=first.gate_dim,
            q_pooling=first.q_pooling,
            k_pooling=first.k_pooling,
            use_qk_norm=first.use_qk_norm,
            use_rope=first.rope is not None,
            layers=None if len(layers) == len(gates) else layers,
            temperature=_temperature_of([gate for gate in gates if gate is not None]),
        )

    def build(
        self,
        model_config: PreTrainedConfig,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> tuple[AttnGate | None, ...]:
        """Gates with random weights, one per layer of the model; they share one rotary table, on the CPU.

        Raises:
            ConfigError: there is not one temperature for each gate and KV head.
        """
        rope = gate_rope(model_config, self.gate_dim) if self.use_rope else None
        layers = selecting_layers(model_config) if self.layers is None else self.layers
        gates = tuple(
            AttnGate(
                num_query_heads=model_config.num_attention_heads,
                num_kv_heads=model_config.num_key_value_heads,
                head_dim=head_dim(model_config),
                gate_dim=self.gate_dim,
                block_size=self.block_size,
                rope=rope,
                use_rope=rope is not None,
                use_qk_norm=self.use_qk_norm,
                q_pooling=self.q_pooling,
                k_pooling=self.k_pooling,
                dtype=dtype,
                device=device,
            )
            if layer in layers
            else None
            for layer in range(model_config.num_hidden_layers)
        )
        if self.temperature is not None:
            shape = [len(each) for each in self.temperature]
            if shape != [model_config.num_key_value_heads] * len(layers):
                raise ConfigError(
                    f"gates: {_TEMPERATURE} in their config.json must have, of each of {len(layers)} layers, "
                    f"{model_config.num_key_value_heads} numbers, one for each KV head"
                )
            for gate, temperature in zip(filter(None, gates), self.temperature, strict=True):
                gate.temperature = temperature
        return gates


def _temperature_of(gates: Sequence[AttnGate]) -> tuple[tuple[float, ...], ...] | None:
    """None: that of all is 1."""
    if all(gate.temperature is None for gate in gates):
        return None
    return tuple(gate.temperature or (1.0,) * gate.num_kv_heads for gate in gates)


def gate_rope(model_config: PreTrainedConfig, gate_dim: int) -> RopeTable | None:
    """The model's RoPE over the gate's width; None: the model has none, and so its gates."""
    if not ropes(model_config)[-1]:
        return None
    # Angles in float64: right at any position.
    return RopeTable.from_config(model_config, dim=gate_dim, dtype=torch.float64)


def selecting_layers(model_config: PreTrainedConfig) -> tuple[int, ...]:
    """Layers of which blocks can be selected: those that attend to all of a sequence."""
    return tuple(layer for layer, name in enumerate(layer_mixers(model_config)) if name in SELECTING)


def gated_layers(text: str | None, model_config: PreTrainedConfig) -> tuple[int, ...]:
    """Layers that an option names for gates, such as ``"0-3,7"``; None: all of which blocks can be selected.

    Raises:
        ConfigError: not of this form, or a layer that is not there or selects nothing.
    """
    possible = selecting_layers(model_config)
    if not possible:
        raise ConfigError(
            f"gates: no layer of this {model_config.model_type} model attends to all of a sequence; there is"
            " nothing to select, run it with selector=dense"
        )
    if text is None:
        return possible
    layers = parse_layers(text, model_config.num_hidden_layers)
    if other := [layer for layer in layers if layer not in possible]:
        raise ConfigError(
            f"gates.layers={text}: layer {other[0]} of this model is {layer_mixers(model_config)[other[0]]},"
            f" of which nothing is selected; name some of {', '.join(map(str, possible))}"
        )
    return layers


def read_gate_config(file: Path, option: str) -> tuple[GateConfig, dict[str, Any]]:
    """The gates' settings, and all of the file.

    Args:
        file: ``config.json``.
        option: ``model.gates=...``, for errors.

    Raises:
        ConfigError: no JSON, no gates', or gates of sparse prefill.
    """
    data = read_json(file, option)
    if not any(key in data for key in (*_KEYS.values(), _PREFILL)):
        raise ConfigError(f"{option}: its config.json does not describe gates (no {_KEYS['block_size']})")
    if _PREFILL in data:
        raise ConfigError(prefill_gates(option))
    missing = [key for name, key in _KEYS.items() if key not in data and name != "use_rope"]
    if missing:
        raise ConfigError(f"{option}: its config.json lacks {', '.join(missing)}")
    settings = {name: data[key] for name, key in _KEYS.items() if key in data}
    layers = data.get(_LAYERS)
    settings |= {"layers": None if layers is None else tuple(layers), "temperature": None}
    if (found := data.get(_TEMPERATURE)) is not None:
        try:
            settings["temperature"] = tuple(tuple(float(each) for each in heads) for heads in found)
        except (TypeError, ValueError):
            raise ConfigError(
                f"{option}: {_TEMPERATURE} in its config.json must be lists of numbers"
            ) from None
        if not all(0 < each < math.inf for heads in settings["temperature"] for each in heads):
            raise ConfigError(f"{option}: {_TEMPERATURE} in its config.json must be above 0, and finite")
    return GateConfig(**settings), data


def read_settings_of_either(file: Path, option: str) -> None:
    """Raises ConfigError: a ``config.json`` of neither decode gates nor prefill gates."""
    if _PREFILL not in read_json(file, option):
        read_gate_config(file, option)


def read_json(file: Path, option: str) -> dict[str, Any]:
    """An object of JSON.

    Raises:
        ConfigError: it is none.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{option}: cannot read {file.name}: {error}") from None
    return data if isinstance(data, dict) else {}


def write_gate_config(
    file: Path, gates: Sequence[AttnGate | None], model_config: PreTrainedConfig, base_model: str
) -> None:
    """``config.json`` in the released names, with RoPE also in the form that they have."""
    settings = GateConfig.of(gates)
    data = base_config(model_config, base_model, settings.use_rope)
    data |= {key: getattr(settings, name) for name, key in _KEYS.items()}
    if settings.layers is not None:
        data[_LAYERS] = list(settings.layers)
    if settings.temperature is not None:
        data[_TEMPERATURE] = [list(heads) for heads in settings.temperature]
    file.write_text(json.dumps(data, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")


def tempered(source: Path, target: Path, temperature: Sequence[Sequence[float]]) -> None:
    """A ``config.json`` of gates, written with another temperature."""
    data = json.loads(source.read_text(encoding="utf-8"))
    data[_TEMPERATURE] = [list(heads) for heads in temperature]
    target.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def base_config(model_config: PreTrainedConfig, base_model: str, rope: bool = True) -> dict[str, Any]:
    """The base model's part of the ``config.json`` of gates, with RoPE also in the form that released ones
    have; ``rope``: the gates turn."""
    turned = rope and bool(ropes(model_config)[-1])
    parameters = rope_parameters(model_config, whole=False) if turned else {"rope_type": "default"}
    data = model_config.to_dict() | {
        "base_model": base_model,
        "rope_theta": parameters.pop("rope_theta", None),
        "rope_scaling": None if parameters["rope_type"] == "default" else parameters,
    }
    for name in ("_name_or_path", "dtype", "transformers_version"):
        data.pop(name, None)
    return data


def check_base_model(data: dict[str, Any], model_config: PreTrainedConfig, option: str) -> None:
    """That gates were made for this model, as far as their ``config.json`` says.

    Raises:
        ConfigError: names all that differs.
    """
    heads, hidden = data.get("num_attention_heads"), data.get("hidden_size")
    derived = hidden // heads if heads and hidden else None
    theirs = {
        "layers": data.get("num_hidden_layers"),
        "query heads": heads,
        "KV heads": data.get("num_key_value_heads"),
        "head dim": data.get("head_dim") or derived,
        "hidden size": hidden,
        "RoPE theta": (data.get("rope_parameters") or {}).get("rope_theta", data.get("rope_theta")),
        "base model": _hub_name(data.get("base_model")),
    }
    ours = {
        "layers": model_config.num_hidden_layers,
        "query heads": model_config.num_attention_heads,
        "KV heads": model_config.num_key_value_heads,
        "head dim": head_dim(model_config),
        "hidden size": model_config.hidden_size,
        "RoPE theta": ropes(model_config)[-1].get("rope_theta"),
        "base model": _hub_name(model_config.name_or_path),
    }
    differ = [
        f"{name} {theirs[name]}, here {ours[name]}"
        for name in ours
        if theirs[name] is not None and ours[name] is not None and theirs[name] != ours[name]
    ]
    if differ:
        base = data.get("base_model") or "another model"
        raise ConfigError(f"{option}: these are gates of {base}: {'; '.join(differ)}")


def prefill_gates(option: str) -> str:
    return (
        f"{option}: these are SeerAttention v1 gates, for sparse prefill (model.prefill_gates); decoding"
        " needs SeerAttention-R gates, such as SeerAttention/SeerAttention-Decode-Qwen3-4B-AttnGates"
    )


def _hub_name(name: str | None) -> str | None:
    """``Qwen/Qwen3-4B`` -> ``qwen3-4b``, as mirrors keep the name; None for what is no hub id."""
    if not name or name.count("/") != 1 or Path(name).exists():
        return None
    return name.rpartition("/")[2].lower()
