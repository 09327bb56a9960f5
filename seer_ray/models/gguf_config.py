"""The Hugging Face config of a GGUF file, from all that its metadata and tensors say of the computation.

transformers reads some of the keys and passes by the others without a word. Here a key is carried over, or
known to change nothing at the value it has, or refused by its name.

Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; where one is missing, what llama.cpp takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from seer_ray.config.errors import ConfigError
from seer_ray.models.architecture import is_mixture
from seer_ray.models.gguf_rope import FACTORS, rope_of
from seer_ray.models.gguf_tensors import FAMILIES, check_tensors

REQUIRED = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
"""Key -> name in the config."""
DENSE = {"feed_forward_length": "intermediate_size"}
"""Likewise, of families without experts."""
MIXTURE = {
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
}
"""Likewise, of mixtures of experts."""
OPTIONAL = {
    "feed_forward_length": "intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
    "expert_weights_norm": "norm_topk_prob",
}
"""Likewise, of mixtures whose config has such a thing."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attn_logit_softcapping": (0.0,),
    "embedding_scale": (0.0, 1.0),
    "expert_count": (0,),
    "expert_gating_func": (0, 1),  # not said, softmax
    "expert_group_count": (0, 1),
    "expert_group_used_count": (0, 1),
    "expert_used_count": (0,),
    "expert_weights_norm": (False,),
    "expert_weights_scale": (0.0, 1.0),
    "final_logit_softcapping": (0.0,),
    "leading_dense_block_count": (0,),
    "logit_scale": (0.0, 1.0),
    "nextn_predict_layers": (0,),
    "pooling_type": (0,),
    "residual_scale": (0.0, 1.0),
    "router_logit_softcapping": (0.0,),
    "use_parallel_residual": (False,),
}
"""Values at which a key changes nothing."""
IDS = {"eos_token_id": "eos_token_id", "bos_token_id": "bos_token_id", "padding_token_id": "pad_token_id"}
"""Of the tokenizer, which the config has too."""


@dataclass(frozen=True)
class Metadata:
    """What stands before the weights of a GGUF file."""

    family: str
    """``general.architecture``."""
    keys: Mapping[str, Any]
    """Of the family, without its name before them."""
    tokens: int
    """Length of the vocabulary."""
    ids: Mapping[str, int]
    """Special tokens, by their names in the config."""
    tensors: Mapping[str, tuple[int, ...]]
    """Shapes as torch has them."""
    factors: tuple[float, ...] | None
    """What ``rope_freqs.weight`` holds, by which frequencies are divided."""


def read_metadata(path: Path) -> Metadata:
    """All that a GGUF file says of itself.

    Raises:
        ConfigError: it is one of several parts, or no model.
        Exception: whatever the reader raises for torn files.
    """
    from gguf import GGUFReader

    reader = GGUFReader(path)

    def value(key: str, default: Any = None) -> Any:
        field = reader.fields.get(key)
        return default if field is None else field.contents()

    family = value("general.architecture")
    if family not in FAMILIES:
        raise ConfigError(f"general.architecture={family}: must be one of {', '.join(FAMILIES)}")
    if (kind := value("general.type", "model")) != "model":
        raise ConfigError(
            f"general.type={kind}: must be model; an adapter is to be merged into its model first"
        )
    if value("split.count", 1) > 1:
        raise ConfigError(
            f"split.count={value('split.count')}: one of several parts; merge them into one file"
        )
    prefix = f"{family}."
    tokens = reader.fields.get("tokenizer.ggml.tokens")
    freqs = next((tensor for tensor in reader.tensors if tensor.name == FACTORS), None)
    return Metadata(
        family,
        {key.removeprefix(prefix): value(key) for key in reader.fields if key.startswith(prefix)},
        len(tokens.data) if tokens is not None else 0,
        {
            name: int(value(f"tokenizer.ggml.{key}"))
            for key, name in IDS.items()
            if f"tokenizer.ggml.{key}" in reader.fields
        },
        {tensor.name: tuple(int(size) for size in reversed(tensor.shape)) for tensor in reader.tensors},
        None if freqs is None else tuple(float(factor) for factor in freqs.data.reshape(-1)),
    )


def config_of(about: Metadata) -> PreTrainedConfig:
    """The config of the model that computes what the metadata says.

    Raises:
        ConfigError: names a key or a tensor that no config here can hold, or that is missing.
    """
    family = FAMILIES[about.family]
    keys = _Keys(about.family, about.keys)
    blank = AutoConfig.for_model(family.model_type)
    mixture = is_mixture(blank)
    required = REQUIRED | (MIXTURE if mixture else DENSE)
    settings: dict[str, Any] = {name: keys.required(key) for key, name in required.items()}
    settings |= family.settings
    for key, name in OPTIONAL.items() if mixture else ():
        if hasattr(blank, name) and (value := keys.take(key)) is not None:
            settings[name] = value
    settings["vocab_size"] = keys.take("vocab_size") or about.tokens
    settings["head_dim"] = width = _head_dim(keys, settings)
    settings["rope_parameters"] = rope_of(
        keys.take, keys.refuse, width, settings["max_position_embeddings"], about.factors
    )
    settings |= _window(keys, blank, settings) | check_tensors(about.family, about.tensors, settings)
    keys.finish({"attention.scale": (0.0, width**-0.5)})
    ids = dict.fromkeys(IDS.values()) | dict(about.ids)
    return AutoConfig.for_model(family.model_type, architectures=[family.architecture], **settings, **ids)


class _Keys:
    """The family's keys; what is taken is accounted for."""

    def __init__(self, family: str, keys: Mapping[str, Any]) -> None:
        self.family, self.left = family, dict(keys)

    def take(self, key: str, default: Any = None) -> Any:
        """The value of a key that one number says for all layers."""
        value = self.left.pop(key, default)
        if isinstance(value, list) and value and len(set(value)) == 1:
            return value[0]
        if isinstance(value, list):
            raise self.refuse(key, value, "differs between layers, which is not supported")
        return value

    def required(self, key: str) -> Any:
        value = self.take(key)
        if value is None:
            raise ConfigError(f"{self.family}.{key}: missing in the file's metadata")
        return value

    def refuse(
        self, key: str, value: Any, why: str = "changes the computation, and cannot be carried over"
    ) -> ConfigError:
        return ConfigError(f"{self.family}.{key}={_shown(value)}: {why}")

    def finish(self, more: Mapping[str, tuple[Any, ...]]) -> None:
        """That whatever was not taken changes nothing."""
        neutral = {**NEUTRAL, **more}
        for key, value in self.left.items():
            if not any(value == harmless or _close(value, harmless) for harmless in neutral.get(key, ())):
                raise self.refuse(key, value)


def _head_dim(keys: _Keys, settings: Mapping[str, Any]) -> int:
    usual = settings["hidden_size"] // settings["num_attention_heads"]
    width = keys.take("attention.key_length") or usual
    for key, what in (
        ("attention.value_length", "keys"),
        ("rope.dimension_count", "heads, which turn as a whole"),
    ):
        if (value := keys.take(key)) not in (None, width):
            raise keys.refuse(key, value, f"must be {width}, as wide as {what}")
    return width


def _window(keys: _Keys, blank: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The sliding window, off where the file names none."""
    window = keys.take("attention.sliding_window") or 0
    layers, pattern = settings["num_hidden_layers"], keys.left.pop("attention.sliding_window_pattern", None)
    has = hasattr(blank, "sliding_window")
    if not window or window >= settings["max_position_embeddings"]:
        return {"sliding_window": None} if has else {}
    if not has:
        raise keys.refuse("attention.sliding_window", window)
    if isinstance(pattern, int) and not isinstance(pattern, bool):  # every so many layers, one reaches far
        pattern = [(layer + 1) % pattern != 0 for layer in range(layers)] if pattern > 1 else None
    slides = pattern if pattern is not None else [True] * layers
    if len(slides) != layers:
        raise keys.refuse("attention.sliding_window_pattern", slides, f"must have {layers} entries")
    kinds = ["sliding_attention" if slide else "full_attention" for slide in slides]
    return {"sliding_window": window, "use_sliding_window": True, "layer_types": kinds}


def _close(value: Any, other: Any) -> bool:
    return isinstance(value, float) and abs(value - other) <= 1e-6 * abs(other)  # GGUF has float32


def _shown(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
