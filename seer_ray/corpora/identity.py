"""What the data of a training job holds: so that it is the same after a restart and on every node."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from seer_ray.config.options import ModelConfig
from seer_ray.config.training import DistillConfig, PretrainConfig
from seer_ray.corpora.documents import parse_sources, runs_of
from seer_ray.corpora.reference import REFERENCE, reference_digest
from seer_ray.models.content import digest_of
from seer_ray.models.identity import Content, Contents, contents
from seer_ray.results.folder import RunFolder
from seer_ray.tasks.sources import find_files, is_path


def training_contents(config: DistillConfig | PretrainConfig) -> Contents:
    """What a training job reads: model, gates and tokenizer, as far as it has them, and data.

    Raises:
        ConfigError: it is not there.
    """
    if isinstance(config, DistillConfig):
        return contents(config.model) | data_contents(config.data)
    found: Contents = {}
    if (tokenizer := config.architecture.tokenizer) is not None:
        found["architecture.tokenizer"] = contents(ModelConfig(tokenizer=tokenizer))["model.tokenizer"]
    if config.data.text is not None:
        found |= data_contents(config.data.text, "data.text")
    return found


def data_contents(data: Any, option: str = "data") -> Contents:
    """Files by their digests, runs by the rows that they have; of datasets of the hub nothing is known.

    Args:
        data: as ``parse_sources`` takes it.
        option: what it is called.

    Raises:
        ConfigError: it is not there.
    """
    found: Content = {}
    for number, source in enumerate(parse_sources(data, option)):
        if runs := runs_of(source.path):
            for run in runs:
                found[f"{number}/{run.rstrip('/').rpartition('/')[2]}"] = _rows(run)
        elif source.path == REFERENCE:
            found[f"{number}/{REFERENCE}"] = reference_digest(option)
        elif is_path(source.path):
            for filesystem, path in find_files(source.path, option):
                with filesystem.open_input_file(path) as file:
                    found[f"{number}/{path.rpartition('/')[2]}"] = digest_of(file, file.size())
    return {option: found}


def _rows(run: str) -> str:
    """Of the keys of a run's rows: files of rows are merged now and then, rows do not change."""
    keys = sorted(RunFolder.view(run).committed())
    return hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:16]
