"""A base model, its tokenizer and what it says about itself, from one ``ModelConfig``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from seer_ray.config.errors import ConfigError, first_line
from seer_ray.config.options import ModelConfig
from seer_ray.kernels import compiled
from seer_ray.models.architecture import check_config, max_context
from seer_ray.models.families import TEXT_PARTS
from seer_ray.models.gate import AttnGate
from seer_ray.models.gates import load_gates, seer_without_gates
from seer_ray.models.generation import GenerationDefaults
from seer_ray.models.gguf import gguf_config
from seer_ray.models.group import ALONE, Group
from seer_ray.models.prefill_gate import PrefillGate
from seer_ray.models.prefill_gates import load_prefill_gates
from seer_ray.models.quantised import check_quantisation
from seer_ray.models.quiet import quiet
from seer_ray.models.shard import check_shards, shard_gates
from seer_ray.models.source import Source, locate
from seer_ray.models.tokenizer_files import REMEDY, check_encodes
from seer_ray.models.weights import LOAD_ERRORS, load_weights

if TYPE_CHECKING:
    # Two seconds to import, which the driver spares: it wants no weights.
    from transformers import PreTrainedModel

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be decoded."""

    model: PreTrainedModel
    """A causal language model in eval mode, without gradients."""
    tokenizer: PreTrainedTokenizerBase
    hf_config: PreTrainedConfig
    name: str
    dtype: torch.dtype
    device: torch.device
    gates: str | None = None
    """Where its gates are: ``model.gates`` of the config."""
    group: Group = ALONE
    """The ranks that hold it together; alone, all of it is here."""
    prefill_gates: str | None = None
    """Where its prefill gates are: ``model.prefill_gates`` of the config."""
    _gates: dict[int, tuple[AttnGate | None, ...]] = field(default_factory=dict, repr=False, compare=False)
    """Those that were loaded, by block size."""

    @property
    def max_context(self) -> int:
        """Longest sequence in tokens: see ``architecture.max_context``."""
        return max_context(self.hf_config)

    def load_gates(self, block_size: int) -> tuple[AttnGate | None, ...]:
        """The gates that the config names, one per layer.

        Raises:
            ConfigError: it names none, or they do not fit the model or the block size.
        """
        if self.gates is None:
            raise seer_without_gates(self.name)
        if block_size not in self._gates:
            # In float32 however they are stored: gates compute in it, and would cast their weights each step.
            gates = load_gates(self.gates, self.hf_config, block_size, torch.float32, self.device)
            if self.group.size > 1:
                shard_gates(gates, self.group)
            self._gates[block_size] = gates
        return self._gates[block_size]

    def load_prefill_gates(self, block_size: int) -> tuple[PrefillGate | None, ...]:
        """The prefill gates that the config names, one per layer.

        Raises:
            ConfigError: it names none, or they do not fit the model or the block size.
        """
        if self.prefill_gates is None:
            raise ConfigError(
                f"selector.prefill: {self.name} has no prefill gates, model.prefill_gates is not set; give "
                "it the hub id or folder of released ones, or of your own"
            )
        gates = load_prefill_gates(self.prefill_gates, self.hf_config, block_size, torch.float32, self.device)
        if self.group.size > 1:
            shard_gates(gates, self.group)
        return gates


def load_model(config: ModelConfig, group: Group = ALONE) -> LoadedModel:
    """Weights, config and tokenizer, on the device and in the dtype that the config says.

    Args:
        config: which, and where.
        group: ranks that share it: this one keeps its part, and only that reaches the device.

    Raises:
        ConfigError: the model, the dtype or the device cannot be had, or the architecture is not supported.
    """
    device = resolve_device(config.device)
    option = _option(config)
    # All that is small comes first: a model that is refused costs no download of weights.
    hf_config = load_config(config)
    check_shards(hf_config, group.size)
    tokenizer = load_tokenizer(config)
    if config.tokenizer is not None and len(tokenizer) > hf_config.vocab_size:
        sizes = f"{len(tokenizer)} tokens, {config.name} only {hf_config.vocab_size}"
        raise ConfigError(f"model.tokenizer={config.tokenizer}: has {sizes}")
    source = _locate(config, weights=True)
    dtype = stored_dtype(config, hf_config)
    if config.dtype == "auto" and device.type == "cpu":
        dtype = dtype_on_cpu(dtype)
    if source.gguf is None and not any(source.folder.glob("*.safetensors")):
        raise ConfigError(f"{option}: has no .safetensors weights, and other formats are not read")
    arguments = {"trust_remote_code": config.trust_remote_code, **source.arguments}
    if device.type == "cuda":
        torch.cuda.set_device(device)  # what names no device, graphs among it, means this one
    model: Any = load_weights(source.folder, hf_config, dtype, option, device, group, **arguments)
    model.config.name_or_path = config.name
    model.to(device).eval().requires_grad_(False)
    return LoadedModel(
        model,
        tokenizer,
        model.config,
        config.name,
        dtype,
        device,
        config.gates,
        group,
        config.prefill_gates,
    )


def load_config(config: ModelConfig) -> PreTrainedConfig:
    """The model's own config, without its weights.

    Raises:
        ConfigError: there is no such model, or its architecture is not supported.
    """
    return _load_config(config, _locate(config, weights=False))


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The model's tokenizer, or the one that ``model.tokenizer`` names; weights are not touched.

    Raises:
        ConfigError: there is none.
    """
    if config.tokenizer is None:
        option, source = _option(config), _locate(config, weights=False)
    else:
        option = f"model.tokenizer={config.tokenizer}"
        source = locate(config.tokenizer, option, weights=False)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                source.folder, trust_remote_code=config.trust_remote_code, **source.arguments
            )
    except LOAD_ERRORS as error:
        raise ConfigError(f"{option}: cannot load its tokenizer ({first_line(error)}){REMEDY}") from error
    check_encodes(lambda text: tokenizer(text, add_special_tokens=False)["input_ids"], option)
    return tokenizer


def generation_defaults(config: ModelConfig) -> GenerationDefaults:
    """How the model is meant to be sampled, by its generation config; weights are not touched.

    Raises:
        ConfigError: there is no such model, or its architecture is not supported.
    """
    source = _locate(config, weights=False)
    hf_config = _load_config(config, source)
    if (source.folder / "generation_config.json").is_file():
        try:
            with quiet():
                generation = GenerationConfig.from_pretrained(source.folder, local_files_only=True)
        except LOAD_ERRORS as error:
            where = f"{_option(config)}: cannot read generation_config.json"
            raise ConfigError(f"{where}: {first_line(error)}") from error
    else:
        generation = GenerationConfig()
    return GenerationDefaults.of(generation, hf_config)


def stored_dtype(config: ModelConfig, hf_config: PreTrainedConfig) -> torch.dtype:
    """That of ``model.dtype``; auto: in which the weights are stored, GGUF files being converted to float32.

    Raises:
        ConfigError: no dtype that a model can be in.
    """
    if config.dtype in DTYPES:
        return DTYPES[config.dtype]
    if config.dtype != "auto":
        raise ConfigError(f"model.dtype={config.dtype}: must be one of auto, {', '.join(DTYPES)}")
    gguf = _locate(config, weights=False).gguf
    stored = torch.float32 if gguf is not None else getattr(hf_config, "dtype", None) or torch.float32
    if stored not in DTYPES.values():
        raise ConfigError(f"model.dtype=auto: {config.name} is stored as {stored}; set {' or '.join(DTYPES)}")
    return stored


def dtype_on_cpu(stored: torch.dtype) -> torch.dtype:
    """In which weights that are stored so are decoded fastest, of the dtypes that hold them exactly."""
    fast = stored == torch.bfloat16 and (compiled.binary() is not None or compiled.multiplies_bf16())
    return stored if fast else torch.float32


def resolve_device(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N`` -> a device that is there.

    Raises:
        ConfigError: it is not.
    """
    count = torch.cuda.device_count()
    if name == "auto":
        name = "cuda" if count else "cpu"
    kind, _, index = name.partition(":")
    if name == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or (index and not index.isdigit()) or name.endswith(":"):
        raise ConfigError(f"model.device={name}: must be auto, cpu, cuda or cuda:N")
    if count == 0:
        raise ConfigError(f"model.device={name}: no GPU is visible here; set model.device=cpu or auto")
    number = int(index) if index else torch.cuda.current_device()
    if number >= count:
        raise ConfigError(f"model.device={name}: only cuda:0 to cuda:{count - 1} are visible here")
    return torch.device("cuda", number)


def _option(config: ModelConfig) -> str:
    return f"model.name={config.name}"


def _locate(config: ModelConfig, *, weights: bool) -> Source:
    return locate(config.name, _option(config), config.revision, weights=weights)


def _load_config(config: ModelConfig, source: Source) -> PreTrainedConfig:
    option = _option(config)
    hf_config: Any
    if source.gguf is not None and not source.converted:
        hf_config = gguf_config(source.gguf, option)
    else:
        try:
            with quiet():
                hf_config = AutoConfig.from_pretrained(
                    source.folder, trust_remote_code=config.trust_remote_code, **source.arguments
                )
            check_quantisation(hf_config, source.folder, option)
        except LOAD_ERRORS as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{option}: cannot read its config: {first_line(error)}") from error
    if hf_config.model_type in TEXT_PARTS:
        hf_config = hf_config.get_text_config()
    hf_config.name_or_path = config.name
    check_config(hf_config, option)
    return hf_config
