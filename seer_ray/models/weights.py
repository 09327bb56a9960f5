"""The weights of a model: all that it has, as they are meant, and nothing that it would not use."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, PreTrainedConfig
from transformers.utils import is_accelerate_available

from seer_ray.config.errors import ConfigError, first_line
from seer_ray.models.architecture import check_architecture
from seer_ray.models.content import weight_files
from seer_ray.models.group import ALONE, Group
from seer_ray.models.mixed.config import know_model
from seer_ray.models.quantised import dequantised
from seer_ray.models.quiet import quiet
from seer_ray.models.shard import join_ranks, part_config, read_parts, shard_model

if TYPE_CHECKING:
    # Two seconds to import, which the driver spares: it wants no weights.
    from transformers import PreTrainedModel

LOAD_ERRORS = (OSError, ValueError, KeyError, ImportError, RuntimeError, TypeError, SafetensorError)
_HARMLESS = re.compile(r".*(rotary_emb\.inv_freq|self_attn\.(bias|masked_bias))")
"""Buffers that older versions wrote, computed from the config."""
_TEXT_WEIGHTS = {
    r"^language_model\.model\.": "model.",
    r"^language_model\.lm_head\.": "lm_head.",
    r"^model\.language_model\.": "model.",
}
"""Names of the weights of a text part beside an image's -> those that it has alone."""
_OTHER_PARTS = re.compile(r"(model\.)?(vision_tower|visual|multi_modal_projector|vision_\w+|mtp)\..*")
"""Weights of what is beside the text part, and of drafting heads, which nothing here reads."""


def load_weights(
    folder: Path,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    option: str,
    device: torch.device,
    group: Group = ALONE,
    **arguments: Any,
) -> PreTrainedModel:
    """The model of a folder or GGUF file, or this rank's part of it. Weights go to the device one after the
    other as they are read, and a rank reads its part alone, unless they are stored in 8 bits or GGUF: those
    are read whole.

    Args:
        folder: where the files are.
        config: of the model.
        dtype: of the weights.
        option: ``model.name=...``, for errors.
        device: where they are to be.
        group: ranks that share the model.
        arguments: for ``from_pretrained``.

    Raises:
        ConfigError: weights are missing, of other shapes, stored in an unknown way, or more than the model
            has.
    """
    know_model(config)
    said = None
    try:
        plain = "gguf_file" not in arguments
        tensors = dequantised(config, weight_files(folder), folder, dtype) if plain else None
        parts = group.size > 1 and plain and tensors is None
        if parts:
            tensors = read_parts(weight_files(folder), group)
        with quiet() as said:
            settings: dict[str, Any] = {
                "dtype": dtype,
                "output_loading_info": True,
                "key_mapping": _TEXT_WEIGHTS,
                "ignore_mismatched_sizes": True,  # refused below, by name
            }
            if group.size == 1 and device.type != "cpu" and is_accelerate_available():
                settings["device_map"] = {"": device}  # else they pass through the host's memory, all at once
            if tensors is None:
                loaded: Any = AutoModelForCausalLM.from_pretrained(
                    folder, config=config, **settings, **arguments
                )
            else:
                family: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
                own = part_config(config, group) if parts else _plain(config)
                loaded = family.from_pretrained(None, config=own, state_dict=tensors, **settings)
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from None
    except LOAD_ERRORS as error:
        reported = said.first() if said is not None else ""
        raise ConfigError(f"{option}: cannot load the weights: {first_line(error)}{reported}") from error
    model, report = loaded
    wrong = _wrong(report)
    if wrong:
        raise ConfigError(f"{option}: {'; '.join(wrong)}")
    check_architecture(model, option)
    if parts:
        model.config = model.model.config = config
        join_ranks(model, group)
    elif group.size > 1:
        shard_model(model, group)
    return model


def _wrong(report: dict[str, Any]) -> list[str]:
    """What transformers has to report of what it loaded, if it is not as it should be."""
    wrong = []
    if missing := sorted(report["missing_keys"]):
        wrong.append(f"{len(missing)} weights are missing, first {missing[0]}")
    if extra := sorted(key for key in report["unexpected_keys"] if not _harmless(key)):
        wrong.append(f"{len(extra)} weights are in the files and not in the model, first {extra[0]}")
    if misshapen := sorted(report["mismatched_keys"]):
        name, found, wanted = misshapen[0]
        shapes = f"{list(found)}, must be {list(wanted)}"
        wrong.append(f"{len(misshapen)} weights are of another shape, first {name}: {shapes}")
    if errors := report.get("error_msgs"):
        wrong.append(first_line(errors[0] if isinstance(errors, list) else errors))
    return wrong


def _harmless(key: str) -> bool:
    return bool(_HARMLESS.fullmatch(key) or _OTHER_PARTS.fullmatch(key))


def _plain(config: PreTrainedConfig) -> PreTrainedConfig:
    """Of a model whose weights are ordinary ones."""
    config = copy.deepcopy(config)
    for name in ("quantization_config", "compression_config"):
        if hasattr(config, name):
            delattr(config, name)
    return config
