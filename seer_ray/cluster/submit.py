"""The same job through Ray Jobs: on a cluster, without this machine once it has been sent.

What travels: the resolved options as a YAML file in the working directory, and this very package as a
Python module, so that the code that runs is the code that is here, with the Python that Ray has there
(``start/start.sh``), and the user's own modules that options name. What must be there: the packages that it
needs (``start/start.py`` looks), the model, the data and a place for results, all of them visible from the
cluster. Relative paths mean folders of this machine and are made absolute: right for a shared disk; else give
URIs.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import metadata, requires
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from packaging.requirements import Requirement

import seer_ray
from seer_ray.cluster.connect import require_reachable
from seer_ray.config.compose import to_yaml
from seer_ray.config.errors import ConfigError, JobError, first_line
from seer_ray.config.identity import Identity
from seer_ray.config.options import JobConfig, SweepConfig, options
from seer_ray.config.paths import absolute, absolute_value, path_options, with_absolute_paths
from seer_ray.config.secrets import has_secret, redacted
from seer_ray.tracking.address import resolve

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
JOB_FILE, NEEDS_FILE = "job.yaml", "needs.json"
START_FILES = ("start.sh", "start.py")
AGENT_TIMEOUT = 30.0
"""Seconds in which a new cluster must be able to run jobs."""
OWN = re.compile(r"[\w.]+:[A-Za-z_]\w*(:\d+)?")
"""What names something in a module of the user's."""
RECONNECT = 2.0
"""Seconds between two tries to get hold of a running job's log."""
C = TypeVar("C", bound=JobConfig)


def submit(
    config: JobConfig,
    address: str | None = None,
    write: Callable[[str], None] = lambda text: print(text, end="", flush=True),
    follow: bool = True,
) -> int:
    """Sends a job, or finds it if it is there already, and follows its log until it ends.

    Submitting is resuming: while a job of the same run is going on it is followed; one that has ended is
    submitted again under the next number, and the run goes on where it was.

    Args:
        config: The job's; its name must be set.
        address: Of the cluster's dashboard, ``http://HOST:8265``; None: RAY_API_SERVER_ADDRESS, else this
            machine's.
        write: Gets the log as it comes.
        follow: Without it, comes back when the job is sent.

    Returns:
        The job's exit code: 0 done, 1 failed or stopped, 2 bad options.

    Raises:
        ConfigError: The address does not answer as a Ray dashboard, or an option holds a password or a key.
        JobError: The cluster refused the job.
    """
    assert config.name, "a job that is submitted has a name"
    sent = made_absolute(config)
    refuse_secrets(sent)
    client = connect(address)
    base = f"seer-ray-{re.sub(r'[^A-Za-z0-9._-]', '-', config.name)}-{Identity.of(sent).digest[:8]}"
    id, running = _find(client, base)
    if running:
        write(f"{id} is there and goes on\n")
    else:
        _send(client, id, sent)
        place = redacted(client.get_address())
        write(f"submitted {id} to {place}; to stop it: ray job stop {id} --address {place}\n")
        if sent.tracking.enabled and has_secret(os.environ.get("MLFLOW_TRACKING_URI")):
            write("MLFLOW_TRACKING_URI holds a password and was not sent: the cluster's own is used\n")
    return follow_job(client, id, write) if follow else 0


def connect(address: str | None) -> JobSubmissionClient:
    """A client of a cluster's job server.

    Raises:
        ConfigError: Nobody there, or somebody else.
    """
    address = address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS
    url = address if "://" in address else f"http://{address}"
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"address={address}: jobs go to the dashboard, http://HOST:8265")
    default = "443" if url.startswith("https") else "80"
    require_reachable(url if re.search(r":\d+/?$", url) else f"{url.rstrip('/')}:{default}", "address")
    from ray.job_submission import JobSubmissionClient

    for module in (
        "dashboard.modules.dashboard_sdk",
        "dashboard.modules.job.sdk",
        "_private.runtime_env.packaging",
    ):
        logging.getLogger(f"ray.{module}").setLevel(logging.ERROR)
    try:
        return JobSubmissionClient(url)
    except Exception as error:
        raise ConfigError(f"address={address}: not a Ray dashboard ({first_line(error)})") from error


def made_absolute(job: C) -> C:
    """The options of a job as a process somewhere else must read them."""
    config: Any = with_absolute_paths(job)
    if hasattr(config, "cluster"):  # a job that measures works where it is
        config.cluster.address = None  # the job's own cluster
    config.results.folder = absolute(config.results.folder, must_exist=False)
    if isinstance(config, SweepConfig):
        places = path_options(config)
        config.sweep.points = [
            {name: absolute_value(name, value) if name in places else value for name, value in point.items()}
            for point in config.sweep.points
        ]
    if not has_secret(config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")):
        # An address with a password is for the cluster's own environment, not for a file that is sent.
        config.tracking.uri = resolve(config.tracking.uri)
    return config


def refuse_secrets(config: JobConfig) -> None:
    """Raises ConfigError: an option holds a password or a key. What is sent with a job (its files, command,
    metadata and environment) is for everybody to read who can read the cluster's dashboard."""
    for name, value, _ in options(config):
        text = str(value)
        if not has_secret(text):
            continue
        remedy = "give it without, as an address that the cluster may read"
        if name == "tracking.uri":
            remedy = "leave it out, and set MLFLOW_TRACKING_URI in the environment of the cluster"
        elif "s3" in text.partition("://")[0]:
            remedy = "give it without, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY there"
        raise ConfigError(f"{name}={redacted(text)}: a job's description is no place for a secret; {remedy}")


def stage_package(folder: Path) -> Path:
    """A copy of this package as a plain folder: what is linked into it here lies in it there."""
    source, target = Path(seer_ray.__file__).parent, folder / "seer_ray"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    return target


def stage_modules(config: JobConfig, folder: Path) -> list[str]:
    """Copies the user's own modules that options name (``module:name``) and that lie where the command is
    run, as they are found there by the job. Their names."""
    found = []
    for module in sorted({spec.partition(":")[0] for spec in own_specs(config)}):
        top = module.partition(".")[0]
        if Path(top).is_dir():
            shutil.copytree(top, folder / top, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        elif Path(f"{top}.py").is_file():
            shutil.copy(f"{top}.py", folder)
        else:
            continue  # installed, there as here
        found.append(top)
    return found


def own_specs(config: JobConfig) -> Iterator[str]:
    """Values ``module:name`` of the options that take them."""
    if isinstance(config, SweepConfig):
        points = [value for point in config.sweep.points for value in dict(point).values()]
        yield from (text for text in points if OWN.fullmatch(str(text)))
    for name, value, about in options(config):
        if about["own"] or name in ("task.grader", "plan.cheap", "plan.anchor", "plan.repeat"):
            values = (
                value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
            )
            yield from (text for text in values if OWN.fullmatch(str(text)))


def needs() -> dict[str, Any]:
    """What a Python must have to run this package: see ``start/start.py``."""
    about = metadata("seer-ray")
    found = (Requirement(text) for text in requires("seer-ray") or ())
    python = re.search(r">=\s*([\d.]+)", about["Requires-Python"] or "")
    return {
        "version": about["Version"],
        "python": [int(part) for part in python[1].split(".")] if python else [],
        "requirements": {item.name: str(item.specifier) for item in found if item.marker is None},
    }


def follow_job(client: JobSubmissionClient, id: str, write: Callable[[str], None]) -> int:
    """Writes a job's log until the job ends; its exit code. Connections that break are made again."""
    written = 0
    while True:
        written = asyncio.run(_tail(client, id, written, write))
        status = client.get_job_status(id)
        if status.is_terminal():
            break
        time.sleep(RECONNECT)
    rest = client.get_job_logs(id)[written:]
    write(rest)
    if status == "SUCCEEDED":
        return 0
    info = client.get_job_info(id)
    reason = first_line(info.message or "no reason given").partition(", last available logs")[0]
    write(f"{id} {status.value.lower()}: {reason}\n")
    return info.driver_exit_code or 1


async def _tail(client: JobSubmissionClient, id: str, skip: int, write: Callable[[str], None]) -> int:
    """Writes a log from its ``skip``-th character on; how many there were when it ended or broke off."""
    seen = 0
    try:
        async for text in client.tail_job_logs(id):
            write(text[max(0, skip - seen) :])
            seen += len(text)
    except (RuntimeError, OSError):
        pass
    return max(seen, skip)


def _find(client: JobSubmissionClient, base: str) -> tuple[str, bool]:
    """The id to use, and whether a job of this id is going on."""
    taken = {job.submission_id: job.status for job in client.list_jobs()}
    number = 1
    while True:
        id = base if number == 1 else f"{base}-{number}"
        if id not in taken:
            return id, False
        if not taken[id].is_terminal():
            return id, True
        number += 1


def _send(client: JobSubmissionClient, id: str, config: JobConfig) -> None:
    with tempfile.TemporaryDirectory(prefix="seer-ray-") as folder:
        stage, work = Path(folder, "package"), Path(folder, "work")
        work.mkdir()
        Path(work, JOB_FILE).write_text(to_yaml(config), encoding="utf-8")
        Path(work, NEEDS_FILE).write_text(json.dumps(needs()), encoding="utf-8")
        stage_modules(config, work)
        for name in START_FILES:
            shutil.copy(Path(seer_ray.__file__).parent / "cluster" / "start" / name, work)
        environment: dict[str, Any] = {
            "working_dir": str(work),
            "py_modules": [str(stage_package(stage))],
        }
        deadline = time.monotonic() + AGENT_TIMEOUT
        while True:
            try:
                client.submit_job(
                    entrypoint=f"sh start.sh $PPID {config.command} --config {JOB_FILE}",
                    submission_id=id,
                    runtime_env=environment,
                    metadata={"seer-ray": str(config.name)},
                )
                return
            except Exception as error:
                # A cluster that has just come up answers before it can run anything.
                if "No available agent" not in str(error) or time.monotonic() > deadline:
                    raise JobError(f"the cluster refused the job: {first_line(error)}") from error
                time.sleep(RECONNECT)
