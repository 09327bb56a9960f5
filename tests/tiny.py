"""Tiny random models and a byte-level tokenizer, made in code: no download, milliseconds.

``tests/`` is on ``sys.path`` of every test: ``from tiny import make_tiny, save_tiny, tiny_tokenizer``.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

FAMILIES = ("llama", "qwen2", "qwen3", "mistral")
_CONFIGS = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config, "mistral": MistralConfig}

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
ENDOFTEXT, IM_START, IM_END, PAD = range(256, 260)
VOCABULARY = 260  # 256 bytes and the four above

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)


def tiny_config(family: str, **overrides: object) -> PreTrainedConfig:
    """Config of a model with 2 layers, hidden size 64, 4 query and 2 KV heads of 16; ``overrides`` win."""
    settings: dict[str, object] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 1024,
        "initializer_range": 0.2,  # large: attention is peaked and greedy outputs vary
        "bos_token_id": None,
        "eos_token_id": IM_END,
        "pad_token_id": PAD,
    }
    if family == "mistral":
        settings["sliding_window"] = None
    return _CONFIGS[family](**(settings | overrides))


def make_tiny(family: str, seed: int = 0, **overrides: object) -> PreTrainedModel:
    """A random model, float32, in eval mode: the same for the same arguments.

    Biases and norm weights are random too, so that a forward which forgets them gives other numbers.
    """
    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(tiny_config(family, **overrides), dtype=torch.float32)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    parameter.normal_(0.0, 0.5)
                elif "q_norm" in name or "k_norm" in name:
                    parameter.uniform_(1.0, 2.5)
                elif "norm" in name:
                    parameter.uniform_(0.7, 1.4)
                elif name.endswith("o_proj.weight"):
                    parameter.mul_(3.0)  # the context outweighs the last token: greedy outputs do not loop
                elif name.endswith("embed_tokens.weight"):
                    parameter.normal_(0.0, 0.2)  # padding and unused tokens as well
    finally:
        torch.random.set_rng_state(state)
    return model.eval().requires_grad_(False)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, ChatML template with a thinking switch; any text survives encode and decode."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|pad|>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def save_tiny(folder: Path | str, family: str, seed: int = 0, **overrides: object) -> Path:
    """``make_tiny`` with its tokenizer as a folder that ``from_pretrained`` loads without a network."""
    folder = Path(folder)
    make_tiny(family, seed, **overrides).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
