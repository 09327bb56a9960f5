"""Checkpoints whose weights are stored in 8 bits with scales beside them, as ordinary weights.

A weight is what is stored, times its scale: one for all, one for each output channel, or one for each block.
That is how compressed-tensors, ModelOpt, FBGEMM and DeepSeek's fine-grained float8 write them, which calls
the scale ``weight_scale_inv`` and multiplies by it all the same. What is stored in any other way is refused.
Scales of activations and of the KV cache say how others compute, not what the weights are, and are left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from seer_ray.config.errors import ConfigError

METHODS = ("modelopt", "fp8", "fbgemm_fp8", "compressed-tensors")
"""Values of ``quant_method`` that store weights so."""
SCALES = ("weight_scale", "weight_scale_inv")
STORED = ("F8_E4M3", "F8_E5M2", "I8")
"""As safetensors names them."""
PLAIN = ("F64", "F32", "F16", "BF16")
COUNTS = ("I64", "I32", "BOOL")
"""Of buffers; no weight is stored so."""
_IGNORED = re.compile(r".*\.(input_scale|[qkv]_scale|[qkv]_proj\.output_scale)")
_REMEDY = "take the checkpoint in bfloat16 or float16"


def quantisation(config: Any, folder: Path) -> dict[str, Any]:
    """What a checkpoint says of its quantisation, in the form of ``quantization_config``; empty: nothing.

    Args:
        config: Hugging Face config.
        folder: where ModelOpt may have put a file of its own.
    """
    found = getattr(config, "quantization_config", None) or getattr(config, "compression_config", None) or {}
    if hasattr(found, "to_dict"):
        found = found.to_dict()
    if not found and (own := folder / "hf_quant_config.json").is_file():
        said = json.loads(own.read_text(encoding="utf-8"))
        found = {
            "quant_method": said.get("producer", {}).get("name", "modelopt"),
            **said.get("quantization", {}),
        }
    return dict(found)


def check_quantisation(config: Any, folder: Path, option: str) -> None:
    """That weights are stored in a way that is known, as far as no weight has to be read.

    Raises:
        ConfigError: names the method, or what of it is not supported.
    """
    said = quantisation(config, folder)
    if not said:
        return
    method = said.get("quant_method")
    if method not in METHODS:
        raise ConfigError(
            f"{option}: its weights are quantised, quant_method={method}; supported are {', '.join(METHODS)}"
            f" with weights in 8 bits: {_REMEDY}"
        )
    for name in ("transform_config", "sparsity_config"):
        if said.get(name):
            raise ConfigError(f"{option}: quant_method={method} with {name} is not supported; {_REMEDY}")


def dequantised(config: Any, files: list[Path], folder: Path, dtype: torch.dtype) -> dict[str, Tensor] | None:
    """All tensors of a checkpoint with its weights as they are meant; None: none is stored in 8 bits.

    Each is read, multiplied in float32 and rounded once, one after the other.

    Args:
        config: Hugging Face config.
        files: of safetensors.
        folder: of the checkpoint.
        dtype: of the weights.

    Raises:
        ConfigError: names the first weight that cannot be read so.
    """
    said, kinds, places = quantisation(config, folder), {}, {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118, no mapping
                kinds[name], places[name] = opened.get_slice(name).get_dtype(), file
    stored = [name for name, kind in kinds.items() if _is_weight(name, kind) and kind not in PLAIN]
    if not stored and not said:
        return None
    method = f"quant_method={said.get('quant_method')}" if said else "no quantization_config"
    if not stored:
        raise ConfigError(f"{method}, but no weight is stored in 8 bits; {_REMEDY}")
    scale_of = {name: _scale_of(name, kinds, method) for name in stored}
    scales = set(scale_of.values())
    block = said.get("weight_block_size") or _group_block(said)
    tensors: dict[str, Tensor] = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                if name in scales or _IGNORED.fullmatch(name):
                    continue
                tensor = opened.get_tensor(name)
                if (scale := scale_of.get(name)) is not None:
                    tensor = _scaled(tensor, _read(places[scale], scale), block, scale)
                tensors[name] = tensor.to(dtype)
    return tensors


def _is_weight(name: str, kind: str) -> bool:
    return not name.endswith(SCALES) and (name.endswith(".weight") or kind not in COUNTS)


def _scale_of(name: str, kinds: Mapping[str, str], method: str) -> str:
    """The name of a weight's scale.

    Raises:
        ConfigError: the weight is not stored in 8 bits with one scale beside it.
    """
    kind = kinds[name]
    if kind not in STORED or not name.endswith(".weight"):
        raise ConfigError(f"{name} is stored as {kind} ({method}), which is not supported; {_REMEDY}")
    beside = [scale for end in SCALES if (scale := name.removesuffix("weight") + end) in kinds]
    if len(beside) != 1:
        what = "both of its scales" if beside else f"no {' or '.join(SCALES)}"
        raise ConfigError(f"{name} is stored as {kind} ({method}) with {what} beside it; {_REMEDY}")
    return beside[0]


def _group_block(said: Mapping[str, Any]) -> list[int] | None:
    """The blocks that compressed-tensors says its weights have."""
    for group in (said.get("config_groups") or {}).values():
        if block := ((group or {}).get("weights") or {}).get("block_structure"):
            return list(block)
    return None


def _read(file: Path, name: str) -> Tensor:
    with safe_open(file, framework="pt") as opened:
        return opened.get_tensor(name)


def _scaled(weight: Tensor, scale: Tensor, block: list[int] | None, name: str) -> Tensor:
    """``weight [outputs, inputs]`` times its scale, in float32.

    Raises:
        ConfigError: it is not clear which scale belongs to which weight.
    """
    wide, scale = weight.float(), scale.float()
    outputs, inputs = weight.shape if weight.dim() == 2 else (0, 0)
    if scale.numel() == 1:
        return wide * scale.reshape(())
    if weight.dim() == 2 and scale.shape in ((outputs,), (outputs, 1)):
        return wide * scale.reshape(outputs, 1)
    if weight.dim() == 2 and scale.dim() == 2:
        rows, columns = block or (1, inputs // scale.shape[1])
        if tuple(scale.shape) == (-(-outputs // rows), -(-inputs // columns)) and (
            block or not inputs % columns
        ):
            grid = scale.repeat_interleave(rows, 0)[:outputs].repeat_interleave(columns, 1)[:, :inputs]
            return wide * grid
    sizes = f"{list(scale.shape)} beside a weight of {list(weight.shape)}"
    blocks = f"with blocks of {block}" if block else "and no block size in the config"
    raise ConfigError(f"{name}: {sizes} {blocks}: it is not clear what it scales; {_REMEDY}")
