"""From the spool to MLflow, which is imported only when there is something to send."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import tempfile
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from seer_ray.config.errors import ConfigError
from seer_ray.config.secrets import has_secret, redacted
from seer_ray.results.base import Folder
from seer_ray.results.folder import RunFolder
from seer_ray.results.store import shown
from seer_ray.tracking import completions
from seer_ray.tracking.address import sqlite_file
from seer_ray.tracking.connect import connect, fingerprint, load, reason
from seer_ray.tracking.spool import Event, Sent, Spool

log = logging.getLogger(__name__)

RUN_TAG = "seer_ray.run_id"
PARENT_TAG = "seer_ray.parent_run_id"
"""Of a run that is nested: the ``RUN_TAG`` of the run around it."""
READ_AHEAD = 200
PER_BATCH, PARAMS_PER_BATCH, VALUE_LENGTH = 1000, 100, 6000
"""MLflow's limits: metrics in a batch, params in a batch, characters of a param."""
TAG_LENGTH = 5000
"""Characters of a tag, of an older MLflow."""
NEVER = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
"""What MLflow answers to an update that it will never take."""
LACKING = ("ENDPOINT_NOT_FOUND", "NOT_FOUND", "NOT_IMPLEMENTED", "FEATURE_DISABLED")
"""What one answers that does not know such updates: an older one, or one without a database."""


class Sender:
    """Sends one event after the other and notes how far it came.

    What is sent a second time, because the note was lost, changes nothing: MLflow keeps one of two equal
    metrics, params and datasets, and the run is found again by its tag.
    """

    def __init__(self, spool: Spool, folder: Folder, uri: str) -> None:
        self.spool, self.store, self.uri = spool, folder.store, uri
        self.sent = Sent()
        self._run_id = folder.run_id
        self._others: dict[str, Callable[[Event], None]] = {
            "artifact": self._artifact,
            "tags": self._tags,
            "completions": self._completions,
            "finish": self._finish,
        }
        self._lacks: set[str] = set()
        """Kinds of updates that this MLflow does not know."""
        self._ready = False
        self._client: Any = None

    def begin(self) -> bool:
        """Become the one that sends; False if another process is. Raises OSError."""
        if not self._ready:
            if not self.spool.acquire():
                return False
            self.sent, target = self.spool.sent(), fingerprint(self.uri)
            if self.sent.target != target:
                # Another server than before is told all from the beginning.
                self.sent = Sent(target, None if has_secret(self.uri) else self.uri)
                self.spool.save(self.sent)
            self._ready = True
        return True

    def send_all(self) -> bool:
        """All that there is now; False if another process sends it. Raises what ``step`` raises."""
        sends = self.begin()
        while sends and self.step():
            pass
        return sends

    def step(self) -> bool:
        """Send what comes next; False if nothing does. Raises what MLflow raises: try again later."""
        events = self.spool.read(self.sent.offset, READ_AHEAD)
        if not events:
            return False
        load()
        first, offset = events[0]
        kind = first.get("kind") if first else None
        if first is None or kind not in ("start", "metrics", *self._others):
            log.warning("%s: a line that cannot be read is left out", self.spool.path)
        elif kind == "start":
            if not self._start(first):
                offset = 0
        elif self.sent.run_id is None:
            log.warning("%s: an update of a run that was never begun is left out", self.spool.path)
        elif kind == "metrics":
            offset = self._metrics(events)
        else:
            self._send(self._others[kind], first)
        self.sent.offset = offset
        self.spool.save(self.sent)
        return True

    @property
    def client(self) -> Any:
        if self._client is None:
            self._client = connect(self.uri)
        return self._client

    def _send(self, action: Any, *arguments: Any) -> None:
        """Do it, unless MLflow says that it will never take it."""
        from mlflow.exceptions import MlflowException

        try:
            action(*arguments)
        except ConfigError as error:  # rows that are gone or torn
            log.warning("%s; MLflow misses an update", error)
        except MlflowException as error:
            if error.error_code not in NEVER:
                raise
            log.warning("MLflow at %s does not take an update: %s", shown(self.uri), reason(error, self.uri))

    def _optional(self, kind: str, action: Callable[[], None]) -> None:
        """What an MLflow may not know: without it a run is still told."""
        from mlflow.exceptions import MlflowException

        if kind in self._lacks:
            return
        try:
            action()
        except (MlflowException, NotImplementedError, AttributeError, ImportError) as error:
            if isinstance(error, MlflowException) and error.error_code not in LACKING:
                raise
            self._lacks.add(kind)
            log.warning(
                "MLflow at %s cannot take a %s (%s); one of version 3.1 or newer, with a database, can",
                shown(self.uri),
                kind,
                reason(error, self.uri),
            )

    def _start(self, event: Event) -> bool:
        """Make the run or go on with it. False: it is gone, all is to be told again from the first line."""
        run = self._get_run(self.sent.run_id) if self.sent.run_id else None
        if run is None:
            lost, self.sent.run_id = self.sent.run_id, None
            if lost and self.sent.offset > 0:
                return False
            self.sent.run_id = self._find_or_create(event)
            self.spool.save(self.sent)
            run = self.client.get_run(self.sent.run_id)
        run_id = run.info.run_id
        if run.info.status != "RUNNING":
            self.client.update_run(run_id, status="RUNNING")
        self._params(run_id, run.data.params, event["params"])
        if event["dataset"]:
            self._optional("dataset", lambda: self._dataset(run_id, event["dataset"]))
        return True

    def _get_run(self, run_id: str) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            run = self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return run if run.info.lifecycle_stage == "active" else None

    def _find_or_create(self, event: Event) -> str:
        experiment, tags = self._experiment(event["experiment"]), event["tags"]
        if found := self._find(experiment, tags[RUN_TAG]):
            return found
        nested = {}
        if around := tags.get(PARENT_TAG):
            parent = self._find(experiment, around)
            if parent is None:
                raise LookupError("the run around this one is not there yet")
            nested = {"mlflow.parentRunId": parent}
        run = self.client.create_run(
            experiment,
            start_time=event["time"],
            run_name=event["name"],
            tags={name: value[:TAG_LENGTH] for name, value in {**tags, **nested}.items()},
        )
        return run.info.run_id

    def _find(self, experiment: str, run_id: str) -> str | None:
        """MLflow's id of the run that belongs to a run folder."""
        found = self.client.search_runs(
            [experiment], filter_string=f"tags.`{RUN_TAG}` = '{run_id}'", max_results=1
        )
        return found[0].info.run_id if found else None

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        if found := self.client.get_experiment_by_name(name):
            return found.experiment_id
        # Beside the database, as MLflow itself does where the database is in the working directory.
        database = sqlite_file(self.uri)
        slug = re.sub(r"[^\w.-]", "_", name).strip(".") or "_"
        location = (database.parent / "mlruns" / slug).as_uri() if database else None
        try:
            return self.client.create_experiment(name, artifact_location=location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return self.client.get_experiment_by_name(name).experiment_id

    def _params(self, run_id: str, known: dict[str, str], params: dict[str, str]) -> None:
        from mlflow.entities import Param

        new = [Param(name, value) for name, value in params.items() if name not in known]
        for i in range(0, len(new), PARAMS_PER_BATCH):
            self.client.log_batch(run_id, params=new[i : i + PARAMS_PER_BATCH])
        changed = [f"{name}={value}" for name, value in params.items() if known.get(name, value) != value]
        if changed:
            self.client.set_tag(run_id, "seer_ray.resumed_with", " ".join(changed)[:VALUE_LENGTH])

    def _dataset(self, run_id: str, dataset: dict[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        columns = [{"name": name, **kind} for name, kind in dataset.get("columns", {}).items()]
        entity = Dataset(
            name=dataset["name"][:500],
            digest=dataset["digest"][:36],
            source_type=dataset.get("kind", "local"),
            source=json.dumps({"uri": dataset["source"], "path": dataset["source"]}),
            schema=json.dumps({"mlflow_colspec": columns}) if columns else None,
            profile=json.dumps({"num_rows": dataset["rows"]}),
        )
        self.client.log_inputs(
            run_id, datasets=[DatasetInput(entity, [InputTag("mlflow.data.context", "eval")])]
        )

    def _metrics(self, events: list[tuple[Event | None, int]]) -> int:
        """As many of the metrics that come next as fit in one batch. Returns the offset after them."""
        from mlflow.entities import Metric

        batch: list[Any] = []
        offset = self.sent.offset
        for event, end in events:
            if event is None or event.get("kind") != "metrics":
                break
            if batch and len(batch) + len(event["values"]) > PER_BATCH:
                break
            batch += [Metric(k, v, event["time"], event["step"]) for k, v in event["values"].items()]
            offset = end
        self._send(lambda: self.client.log_batch(self.sent.run_id, metrics=batch))
        return offset

    def _artifact(self, event: Event) -> None:
        name = Path(event["name"])
        folder = name.parent.as_posix() if name.parent != Path(".") else None
        if self.store.path is not None:
            if (self.store.path / name).is_file():
                self.client.log_artifact(self.sent.run_id, str(self.store.path / name), folder)
            return
        with contextlib.suppress(FileNotFoundError), tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch, name.name)
            copy.write_bytes(self.store.read(event["name"]))
            self.client.log_artifact(self.sent.run_id, str(copy), folder)

    def _tags(self, event: Event) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(name, value[:TAG_LENGTH]) for name, value in event["tags"].items()]
        self.client.log_batch(self.sent.run_id, tags=tags)

    def _completions(self, event: Event) -> None:
        folder = RunFolder.at(self.store)
        traced = {(str(problem), int(sample)) for problem, sample in event["traced"]}
        listed = set(completions.sample_of(folder.in_order(), completions.MOST_ROWS))
        rows = folder.pick(listed | traced, completions.COLUMNS).to_pylist()
        some = [redacted(row) for row in rows if completions.key(row) in listed]
        self._optional("table", lambda: self._table(some))
        for row in rows:
            if completions.key(row) in traced:
                self._optional("trace", partial(self._trace, redacted(row)))

    def _table(self, rows: list[completions.Row]) -> None:
        """In the form of ``mlflow.log_table``, which appends to what is there: this does not."""
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch, completions.FILE)
            file.write_text(completions.table(rows), encoding="utf-8")
            self.client.log_artifact(self.sent.run_id, str(file))
        said = json.dumps([{"path": completions.FILE, "type": "table"}])
        self.client.set_tag(self.sent.run_id, "mlflow.loggedArtifacts", said)

    def _trace(self, row: completions.Row) -> None:
        from mlflow.tracing.client import TracingClient

        assert self.sent.run_id is not None
        client = TracingClient(self.uri)
        info, spans = completions.trace(row, self._run_id, self.sent.run_id, self._experiment_id)
        client._upload_trace_data(client.start_trace(info), spans)

    @cached_property
    def _experiment_id(self) -> str:
        return str(self.client.get_run(self.sent.run_id).info.experiment_id)

    def _finish(self, event: Event) -> None:
        self.client.set_terminated(self.sent.run_id, event["status"], event["time"])
