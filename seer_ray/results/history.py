"""The metrics of a training job by step, as JSON lines in its folder."""

from __future__ import annotations

import json

from seer_ray.config.errors import ConfigError, one_line
from seer_ray.results.store import Store

FILE = "metrics.jsonl"


class History:
    """One line a record: ``{"step": 10, "train/loss": 1.5, ...}``. Written by one process."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.records: list[dict[str, float]] = []

    def load(self, step: int) -> None:
        """What was recorded up to a step: what came after it is computed again."""
        self.records = [record for record in read_history(self.store) if record["step"] <= step]

    def add(self, step: int, metrics: dict[str, float]) -> None:
        """A record more, on disk when this returns. One for the same step and names is replaced."""
        same = set(metrics) | {"step"}
        self.records = [r for r in self.records if r["step"] != step or set(r) != same]
        self.records.append({"step": step, **metrics})
        lines = "".join(json.dumps(record) + "\n" for record in self.records)
        self.store.write(FILE, lines.encode())

    def last(self) -> dict[str, float]:
        """The last value of every metric."""
        values: dict[str, float] = {}
        for record in self.records:
            values |= record
        values.pop("step", None)
        return values


def read_history(store: Store) -> list[dict[str, float]]:
    """All records of a training job's folder, in the order of the steps. Raises ConfigError: it is torn."""
    try:
        records = [json.loads(line) for line in store.read(FILE).decode().splitlines()]
        if all(isinstance(record["step"], int) for record in records):
            return records
        raise ValueError("a step is no number")
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{store.locate(FILE)}: torn ({one_line(error)}); restore it from a copy, or delete it: the job "
            "goes on without what it says"
        ) from error
