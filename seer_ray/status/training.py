"""How a training job stands, from its folder alone, and its options to go on with."""

from __future__ import annotations

from dataclasses import dataclass, field

from seer_ray.results.history import read_history
from seer_ray.results.job import STATUS, TrainFolder
from seer_ray.status.find import split
from seer_ray.status.pulse import Pulse, read_pulse


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
    from seer_ray.config.training import DistillConfig, PretrainConfig

    return {"pretrain": PretrainConfig, "distill": DistillConfig}


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
