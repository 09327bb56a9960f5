"""What there is to say of a mixed model, in its ``config.json``. Once imported, ``AutoConfig`` knows it."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

MODEL_TYPE = "seer_mixed"


class MixedConfig(PreTrainedConfig):
    """RMSNorm before, and SwiGLU behind, one mixer in each layer; input and output embeddings are one.

    Names are those of Qwen3 where it has them; beside these:

    - ``mixers``: of each layer, of ``models.mixers.MIXERS``. Their inner widths are such that all have as
      many weights as attention (``sizes``).
    - ``conv``: tokens that a short convolution of every mixer's inputs spans; 0: there is none.
    - ``qk_norm``: RMSNorm of each head's queries and keys, in the mixers that have attention's.
    - ``state_dim``: channels of a key in the recurrences.
    """

    model_type = MODEL_TYPE

    vocab_size: int = 256
    hidden_size: int = 256
    intermediate_size: int = 640
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 4
    head_dim: int = 64
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    rope_parameters: dict[str, Any] | None = None
    tie_word_embeddings: bool = True
    sliding_window: int | None = None
    mixers: list[str] | None = None
    conv: int = 0
    qk_norm: bool = True
    state_dim: int = 32
    use_cache: bool = False
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None


AutoConfig.register(MODEL_TYPE, MixedConfig)


def know_model(config: PreTrainedConfig) -> None:
    """Before ``AutoModelForCausalLM`` is asked for a model of this config: that is two seconds of imports,
    which whoever only reads configs does not need."""
    if config.model_type == MODEL_TYPE:
        import seer_ray.models.mixed.model  # noqa: F401
