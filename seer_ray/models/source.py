"""Where a model's files are: in the package, in that of an extra, in a folder, or on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seer_ray.config.errors import ConfigError
from seer_ray.models.gguf import check_gguf, converted
from seer_ray.models.hub import download, is_hub_id
from seer_ray.models.smollm import smollm

REASONER = "reasoner"
"""The small reasoner of this package."""
SMOLLM = "smollm2"
"""The model of the extra, see ``models.smollm``."""
ASSETS = Path(__file__).parents[1] / "assets"
"""What the package has of these models, a folder each: all of the reasoner; gates."""

# Everything but weights; `*.json` holds the index of the weights too.
_SMALL_FILES = ["*.json", "*.jinja", "tokenizer*", "*.model", "*.txt", "*.tiktoken", "*.py"]


@dataclass(frozen=True)
class Source:
    """Files of one model on this machine."""

    folder: Path
    gguf: Path | None = None
    """The GGUF file, if the model is one."""
    converted: bool = False
    """``folder`` is what the GGUF file was converted to."""

    @property
    def arguments(self) -> dict[str, Any]:
        """For ``from_pretrained``, whose first argument is ``folder``."""
        if self.gguf is not None and not self.converted:
            return {"gguf_file": self.gguf.name, "local_files_only": True}
        return {"local_files_only": True}


def locate(name: str, option: str, revision: str | None = None, *, weights: bool) -> Source:
    """Files of a model; from the hub only if it has to be.

    Args:
        name: hub id, folder, GGUF file, ``reasoner`` or ``smollm2``.
        option: ``model.name=...``, for errors.
        revision: on the hub.
        weights: whether the weights are wanted too.

    Raises:
        ConfigError: there is no such model, or it cannot be had now.
    """
    path = Path(name).expanduser()
    if name in (REASONER, SMOLLM):
        path = ASSETS / name if name == REASONER else smollm(option)
    if path.is_dir():
        if not (path / "config.json").is_file():
            hint = next(iter(sorted(path.glob("*.gguf"))), None)
            remedy = f"; to use its GGUF file, name it: {hint}" if hint else ""
            raise ConfigError(f"{option}: the folder has no config.json, so it is not a model{remedy}")
        return Source(path)
    if path.is_file():
        check_gguf(path, option)
        folder = converted(path, option, weights)
        return Source(folder, path, True) if folder else Source(path.parent, path)
    if path.suffix == ".gguf" or not is_hub_id(name):
        raise ConfigError(f"{option}: no such file or folder; is the path right, from here ({Path.cwd()})?")
    patterns = _SMALL_FILES + (["model*.safetensors"] if weights else [])
    return Source(download(name, patterns, option, revision))


def packaged_gates(name: str) -> Path | None:
    """The folder of the gates that this package has for a model, which are called as the model is."""
    return ASSETS / name / "gates" if name in (REASONER, SMOLLM) else None
