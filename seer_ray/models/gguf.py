"""GGUF files as Hugging Face folders, converted once and kept in the user's cache.

Reading a GGUF file of 100 MB takes transformers 12 s for the weights and 4 s for the tokenizer, most of it
for parsing the vocabulary again and again; the converted folder loads in less than one.
"""

from __future__ import annotations

import importlib.util
import logging
import shutil
import uuid
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig

from seer_ray.config.cache import cache_folder, is_whole, note_digests, set_aside, sync
from seer_ray.config.errors import ConfigError, first_line
from seer_ray.models.content import digest
from seer_ray.models.gguf_config import config_of, read_metadata
from seer_ray.models.quiet import quiet
from seer_ray.models.weights import load_weights

logger = logging.getLogger(__name__)

FILES, WEIGHTS = "files.digests", "weights.digests"
"""What the files of a converted folder must be, weights apart: they come later, or never."""
VERSION = 2
"""Of the conversion: raised where another one comes of the same file."""
LARGEST_CACHED = 2**30
"""Weights of larger files are converted at each load: in float32 they would take eight times as much disk."""


def check_gguf(path: Path, option: str) -> None:
    """Raises ConfigError where ``path`` is no GGUF file, or the gguf package is not there to read it."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ConfigError(f"{option}: cannot read it: {error.strerror}") from None
    if magic != b"GGUF":
        raise ConfigError(f"{option}: not a GGUF file")
    if importlib.util.find_spec("gguf") is None:
        raise ConfigError(f"{option}: GGUF files need the gguf package: pip install gguf")


def converted(path: Path, option: str, weights: bool) -> Path | None:
    """Folder with config, tokenizer and, if asked for, float32 weights of a GGUF file.

    Several processes may ask at once: each converts, the first one's result stays.

    Returns:
        None where the cache cannot hold it; the file can still be loaded directly.

    Raises:
        ConfigError: not a GGUF file that transformers can read, or one that says of the computation what
            cannot be carried over.
    """
    folder = cache_folder() / "gguf" / _fingerprint(path)
    try:
        if not is_whole(folder, FILES):
            set_aside(folder)
            _make(folder, path, option)
        if weights and not is_whole(folder, WEIGHTS):
            if path.stat().st_size > LARGEST_CACHED:
                return None
            _add_weights(folder, path, option)
    except OSError:
        return None
    except ConfigError:
        raise
    except Exception as error:  # torn or unknown files make the reader fail in many ways
        raise ConfigError(f"{option}: cannot convert it: {first_line(error)}") from error
    return folder


def gguf_config(path: Path, option: str) -> PreTrainedConfig:
    """The config of a GGUF file, out of the file.

    Raises:
        ConfigError: see ``converted``.
    """
    try:
        return config_of(read_metadata(path))
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from None
    except Exception as error:  # as in ``converted``
        raise ConfigError(f"{option}: cannot convert it: {first_line(error)}") from error


def _fingerprint(path: Path) -> str:
    """Name and digest of what the conversion depends on."""
    return f"{path.stem}-{VERSION}-{transformers.__version__}-{digest(path)}"


def _make(folder: Path, path: Path, option: str) -> None:
    config = gguf_config(path, option)
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    temporary.mkdir(parents=True)
    try:
        with quiet():
            config.save_pretrained(temporary)
            AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).save_pretrained(temporary)
        note_digests(temporary, FILES)
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was first
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _add_weights(folder: Path, path: Path, option: str) -> None:
    logger.info("converting %s, once", path)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    cpu = torch.device("cpu")
    model = load_weights(path.parent, config, torch.float32, option, cpu, gguf_file=path.name)
    weights, seen = {}, set()
    for name, weight in model.state_dict().items():
        if weight.data_ptr() not in seen:  # a tied weight goes in once, under its first name
            seen.add(weight.data_ptr())
            weights[name] = weight.contiguous()
    temporary = folder / f".{uuid.uuid4().hex}"
    try:
        save_file(weights, temporary, metadata={"format": "pt"})
        sync([temporary])
        temporary.replace(folder / "model.safetensors")
        note_digests(folder, WEIGHTS, ["model.safetensors"])
    finally:
        temporary.unlink(missing_ok=True)
