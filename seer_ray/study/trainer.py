"""A model of the grid from its first step to its figures: in a worker."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from seer_ray.config.errors import JobError
from seer_ray.config.options import EngineConfig, ModelConfig
from seer_ray.config.study import GridConfig, StudyTrainConfig
from seer_ray.config.training import PretrainConfig
from seer_ray.engine import Engine, Request, SamplingParams
from seer_ray.models.catalog import Description, describe
from seer_ray.models.load import load_model
from seer_ray.models.mixers import MIXERS
from seer_ray.results.store import Store, join, open_store
from seer_ray.study.cells import Cell, Row
from seer_ray.study.grid import learned, with_layers
from seer_ray.training.loop import TrainingError
from seer_ray.training.pretrain.alone import pretrain_alone
from seer_ray.training.pretrain.model import weights_of
from seer_ray.training.pretrain.objective import tokenizer_of

MODELS, MODEL = "models", "model"
"""Folders: of all cells' trainings, and of the model in each."""
TIMED, SECONDS = "decode/ms_a_step", "train/seconds"
"""Measures that another moment gives otherwise."""


def build(config: StudyTrainConfig, place: str, device: str) -> partial[list[Row]]:
    """What does a cell; see ``frame.Kind``."""
    settings = learned(config)
    return partial(_cell, config.study, settings, place, device)


def _cell(
    study: GridConfig, settings: Mapping[str, PretrainConfig], place: str, device: str, cell: Cell
) -> list[Row]:
    """``name`` and ``value`` of each measure of the trained model.

    Goes on where a worker that died has left its last checkpoint.
    """
    about = cell.about
    config = with_layers(settings[about["learn"]], tuple(about["layers"].split()), about["seed"])
    folder = join(place, f"{MODELS}/{cell.id}")
    try:
        result = pretrain_alone(config, folder, device)
    except TrainingError as error:
        raise JobError(f"{cell.label}: {error}") from None
    store = open_store(folder)
    found = {
        name.removeprefix("eval/"): value
        for name, value in result.metrics.items()
        if name.startswith("eval/")
    }
    found |= {"train/loss": result.metrics["train/loss"], "train/tokens": result.tokens}
    found[SECONDS] = result.seconds
    found["weights"] = weights_of(config.architecture, config.plan, tokenizer_of(config))
    with _here(store, MODEL) as path:
        found |= _memory(describe(ModelConfig(name=str(path))), study.lengths)
        if study.decode:
            found[TIMED] = _step_ms(path, device, study.decode)
    if study.keep_models:
        store.delete_folder("checkpoints")
    else:
        store.delete_folder()
    return [{"name": name, "value": float(value)} for name, value in found.items()]


def _memory(about: Description, lengths: list[int]) -> dict[str, float]:
    """Bytes of a sequence, states alone and all, and tokens that a step reads in a layer on average; K and V
    are of the dtype of the weights that were saved, states in fp32."""
    found: dict[str, float] = {"memory/state": about.state_bytes}
    for length in lengths:
        found[f"memory/at_{length}"] = about.sequence_bytes(length)
        read = sum(_read(about, name, length) for name in about.layers)
        found[f"reads/at_{length}"] = read / len(about.layers)
    return found


def _read(about: Description, mixer: str, length: int) -> int:
    traits = MIXERS[mixer]
    if traits.windowed:
        return min(length, about.window or length)
    return length if traits.attention is not None else 0


def _step_ms(path: Path, device: str, tokens: int) -> float:
    """Of one sequence alone, as this machine has it: the prompt is as long as what is decoded."""
    model = load_model(ModelConfig(name=str(path), device=device))
    count = max(2, min(tokens, model.max_context // 2))
    engine = Engine(model, EngineConfig(max_batch=1, block_size=16))  # contexts here are short
    prompt, took = tuple(1 + place % 16 for place in range(count)), 0.0
    for name in ("first", "timed"):  # the first makes what there is to make
        engine.submit(Request(name, prompt, SamplingParams(count), problem=name))
        began = time.perf_counter()
        for _ in engine.run():
            pass
        took = time.perf_counter() - began
    return 1000 * took / count


@contextmanager
def _here(store: Store, name: str) -> Iterator[Path]:
    """A folder of a store as one of this machine."""
    if store.path is not None:
        yield store.path / name
        return
    with tempfile.TemporaryDirectory() as scratch:
        for file in store.list(name):
            Path(scratch, file).write_bytes(store.read(f"{name}/{file}"))
        yield Path(scratch)
