"""The gates that a distillation begins with, of either kind, and their settings."""

from __future__ import annotations

from dataclasses import replace

import torch
from transformers import PreTrainedConfig

from seer_ray.config.errors import ConfigError
from seer_ray.config.training import DistillConfig, GatesConfig
from seer_ray.models.gate import Q_POOLINGS, AttnGate
from seer_ray.models.gate_config import GateConfig, gated_layers, selecting_layers
from seer_ray.models.gates import init_gates, load_gates, read_settings
from seer_ray.models.load import LoadedModel
from seer_ray.models.prefill_gate import PrefillGate
from seer_ray.models.prefill_gates import (
    PrefillGateConfig,
    init_prefill_gates,
    load_prefill_gates,
    poolings,
    read_prefill_settings,
)
from seer_ray.models.rope import head_dim

SETTINGS = ("block_size", "q_pooling", "k_pooling", "use_qk_norm", "use_rope")
Gates = tuple[AttnGate | PrefillGate | None, ...]
Shape = GateConfig | PrefillGateConfig


def initial_gates(config: DistillConfig, loaded: LoadedModel) -> tuple[Gates, Shape]:
    """The gates to begin with, in fp32: those of ``model.gates`` (for prompts ``model.prefill_gates``), else
    random ones; and their settings.

    Raises:
        ConfigError: gates of another model, or of a shape that the options contradict.
    """
    hf_config, seed, device = loaded.hf_config, config.train.seed, loaded.device
    shape, source = gate_shape(config, hf_config), begun_with(config)[1]
    if isinstance(shape, PrefillGateConfig):
        if source is None:
            return init_prefill_gates(hf_config, shape, seed, device), shape
        return load_prefill_gates(source, hf_config, shape.block_size, torch.float32, device), shape
    if source is None:
        return init_gates(hf_config, shape, seed, device), shape
    gates = load_gates(source, hf_config, shape.block_size, torch.float32, device)
    for gate in filter(None, gates):
        gate.temperature = None  # of what they were; what becomes of them has another
    return gates, shape


def begun_with(config: DistillConfig) -> tuple[str, str | None]:
    """The option that names gates to begin with, and what it says."""
    if config.gates.kind == "prefill":
        return "model.prefill_gates", config.model.prefill_gates
    return "model.gates", config.model.gates


def gate_shape(config: DistillConfig, hf_config: PreTrainedConfig) -> Shape:
    """Settings of the gates: those of the gates to begin with, else those of the options.

    Raises:
        ConfigError: the options contradict them, or are none.
    """
    options, (option, source) = config.gates, begun_with(config)
    prompts = options.kind == "prefill"
    if not prompts and options.q_pooling not in Q_POOLINGS:
        raise ConfigError(f"gates.q_pooling={options.q_pooling}: must be one of {', '.join(Q_POOLINGS)}")
    if source is None:
        layers = gated_layers(options.layers, hf_config)
        some = None if layers == selecting_layers(hf_config) else layers
        width = options.dim or head_dim(hf_config)
        if not prompts:
            named = {name: getattr(options, name) for name in SETTINGS}
            return GateConfig(gate_dim=width, layers=some, **named)
        q, k = poolings(f"{options.q_pooling}_{options.k_pooling}", "gates.q_pooling, gates.k_pooling")
        return PrefillGateConfig(options.block_size, width, q, k, layers=some)
    if prompts:
        found = read_prefill_settings(source)
        names = dict(zip(("q_pooling", "k_pooling"), found.type.split("_"), strict=True))
        theirs = {"block_size": found.block_size, **names, "dim": found.gate_dim}
        usual = replace(GatesConfig(), q_pooling="Qavg")
        shape: Shape = found
    else:
        shape = read_settings(source)
        theirs = {**{name: getattr(shape, name) for name in SETTINGS}, "dim": shape.gate_dim}
        usual = GatesConfig()
    for name, value in theirs.items():
        if getattr(options, name) not in (getattr(usual, name), value):
            raise ConfigError(
                f"gates.{name}={getattr(options, name)}: the gates of {option}={source} have {value};"
                f" leave it out, or begin anew with {option}=null"
            )
    return shape
