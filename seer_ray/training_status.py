"""How a training job stands, from its folder alone, and its options to go on with."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from seer_ray.config import ConfigError
from seer_ray.results.folder import CONFIG
from seer_ray.results.store import open_store
from seer_ray.status import Pulse, read_pulse, split
from seer_ray.training.folder import ABOUT, STATUS, TrainFolder
from seer_ray.training.history import read_history


@dataclass
class TrainStatus(Pulse):
    """A folder of training, read at one moment."""

    name: str = ""
    folder: str = ""
    job: str = ""
    """The command that made it, such as ``pretrain``."""
    step: int = 0
    """That was reported last."""
    steps: int | None = None
    """Of the whole job; None: it has none."""
    eta_s: float | None = None
    """Seconds that are left, as the job itself saw it last; None: nothing is, or it is not known."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The last of every metric; final ones of a job that is done."""

    @property
    def message(self) -> str:
        """The state in words, with what to do about it."""
        if self.job not in jobs():
            again = f"give the command again: seer-ray {self.job}"
            return {"done": "done", "running": self.describe(self.folder)}.get(self.state, again)
        return self.describe(self.folder)


def jobs() -> dict[str, type]:
    """Training jobs that can be resumed from their folder, and their options."""
    from seer_ray.training.options import DistillConfig, PretrainConfig

    return {"pretrain": PretrainConfig, "distill": DistillConfig}


def is_training(uri: str) -> bool:
    """Whether a folder is that of a training job."""
    return ABOUT in open_store(uri).list()


def read_training(uri: str, now: float | None = None) -> TrainStatus:
    """How the training job in a folder stands.

    Args:
        uri: As the user may write it.
        now: Seconds since the epoch; None: the clock's.

    Raises:
        ConfigError: No such folder, or a file in it is torn.
    """
    from seer_ray.tracking import unsent

    folder = TrainFolder.view(uri)
    status = TrainStatus(name=split(uri)[1], folder=uri, job=folder.job)
    status.steps = folder.config.get("train", {}).get("steps")
    said = folder.store.read_json(STATUS, "delete it")
    vars(status).update(vars(read_pulse(said, now)))
    for record in read_history(folder.store):
        status.step = int(record["step"])
        status.metrics |= {name: value for name, value in record.items() if name != "step"}
    if isinstance(said, dict):
        status.step = max(status.step, int(said.get("step") or 0))
    final = folder.metrics()
    if final is not None:
        status.state, status.metrics = "done", final
    elif status.state == "new" and status.step:
        status.state = "stopped"
    if status.state != "done":
        status.eta_s = status.metrics.get("time/eta_s")
    if status.state != "running":
        status.unsent = unsent(folder)
    return status


def resumed_training(uri: str, changes: list[str]) -> tuple[str, Any]:
    """The command of a training job that is there, and its options with changes that change no result.

    Raises:
        ConfigError: Its folder is torn, or it cannot be resumed so.
    """
    from seer_ray.compose import compose, from_yaml
    from seer_ray.results import identity

    folder = TrainFolder.view(uri)
    if (job := folder.job) not in jobs():
        raise ConfigError(f"{uri}: made by seer-ray {job}; give that command again to go on with it")
    before = from_yaml(folder.config_yaml, folder.store.locate(CONFIG), jobs()[job])
    before.results.folder, before.name = place, name = split(uri)
    after = compose(changes, jobs()[job], before)
    if after.name != name:
        raise ConfigError(f"name={after.name}: {uri} is resumed under its own name; leave this out")
    after.results.folder = place
    identity.refuse_differences(dataclasses.asdict(after), folder.config, uri, jobs()[job])
    return job, after
