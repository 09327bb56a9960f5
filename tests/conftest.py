"""What every test has: no network, Triton kernels that need no GPU, Ctrl-C, examples at any speed, a Ray."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("any speed", deadline=None)
settings.load_profile("any speed")

# A shell starts background jobs with SIGINT ignored, nohup any job with SIGHUP, and so would be every process
# that a test sends one.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Before transformers is imported anywhere: a test that would reach for the hub fails instead of hanging.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tests count what MLflow is told; the load of the machine comes when it comes.
os.environ.setdefault("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
# Before triton is imported anywhere. With a GPU, tests/gpu runs the same checks on it.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="all: twenty kills, 500 mutations, every variant")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what is marked as long, unless there is time."""
    if config.getoption("long"):
        return
    left_out = [item for item in items if item.get_closest_marker("long")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    """Whether there is time for all of it."""
    return bool(request.config.getoption("long"))


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """The one Ray of this process, which takes seconds to start: ``pytest.mark.usefixtures("local_ray")``."""
    import fake_engine

    with fake_engine.local_ray():
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have recorded of each model type."""
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    said = sorted(
        str(value) for report in reports for name, value in report.user_properties if name == "conformance"
    )
    if said:
        terminalreporter.section("largest difference of logits from transformers', of their spread")
        for line in said:
            terminalreporter.line(line)
