"""Where a model's files are: in the package, in that of an extra, in a folder, or on the hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seer_ray.config.errors import ConfigError
from seer_ray.config.selecting import AUTO, PACKAGED, UNIFORM, PrefillConfig, SelectorConfig
from seer_ray.config.selectors import traits_of
from seer_ray.models.smollm import smollm

REASONER = "reasoner"
"""The small reasoner of this package. The other of ``PACKAGED`` is of the extra, see ``models.smollm``."""
ASSETS = Path(__file__).parents[1] / "assets"
"""What the package has of these models, a folder each: all of the reasoner; gates."""

ALLOCATION = "allocation.json"
"""In a folder of gates, or alone in one of its own: see ``models.allocation``."""
GATES, PREFILL_GATES = "gates", "prefill_gates"
"""Of decoding, and of prompts: their folders there."""

# Everything but weights; `*.json` holds the index of the weights too.
_SMALL_FILES = ["*.json", "*.jinja", "tokenizer*", "*.model", "*.txt", "*.tiktoken", "*.py"]

GATE_WEIGHTS = ("attn_gate_weights.safetensors", "attn_gate_weights.pth")
"""Names of the weights in a gate folder; the first that is there counts."""


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


def find(name: str, option: str, revision: str | None = None, *, weights: bool = False) -> Path:
    """The folder of a model or its GGUF file; from the hub only if it has to be. Imports no torch.

    Args:
        name: hub id, folder, GGUF file, ``reasoner`` or ``smollm2``.
        option: ``model.name=...``, for errors.
        revision: on the hub.
        weights: whether the weights are wanted too.

    Raises:
        ConfigError: there is no such model, or it cannot be had now.
    """
    path = Path(name).expanduser()
    if name in PACKAGED:
        path = ASSETS / name if name == REASONER else smollm(option)
    if path.is_dir():
        if not (path / "config.json").is_file():
            hint = next(iter(sorted(path.glob("*.gguf"))), None)
            remedy = f"; to use its GGUF file, name it: {hint}" if hint else ""
            raise ConfigError(f"{option}: the folder has no config.json, so it is not a model{remedy}")
        return path
    if path.is_file():
        return path
    if path.suffix == ".gguf" or not is_hub_id(name):
        raise ConfigError(f"{option}: no such file or folder; is the path right, from here ({Path.cwd()})?")
    return _download(name, _SMALL_FILES + (["model*.safetensors"] if weights else []), option, revision)


def locate(name: str, option: str, revision: str | None = None, *, weights: bool) -> Source:
    """Files of a model, a GGUF file converted if the cache can hold that.

    Args:
        name, option, revision, weights: see ``find``.

    Raises:
        ConfigError: there is no such model, or it cannot be had now.
    """
    path = find(name, option, revision, weights=weights)
    if path.is_dir():
        return Source(path)
    # Brings torch and transformers along, which whoever only looks for files does not need.
    from seer_ray.models.gguf import check_gguf, converted

    check_gguf(path, option)
    folder = converted(path, option, weights)
    return Source(folder, path, True) if folder else Source(path.parent, path)


def find_gates(source: str, option: str, kind: str = GATES) -> Path:
    """The file of weights of gates; ``config.json`` belongs beside it.

    Args:
        source: a folder, a ``.pth`` or ``.safetensors`` file, a hub id, or a model of the package.
        option: ``model.gates=...``, for errors.
        kind: ``GATES``, or ``PREFILL_GATES``.

    Raises:
        ConfigError: there is none.
    """
    path = packaged_gates(source, kind) or Path(source).expanduser()
    if source in PACKAGED and not path.is_dir():
        raise ConfigError(f"{option}: this package has none for it; train some: seer-ray distill")
    if path.is_file():
        if path.suffix not in (".pth", ".safetensors"):
            raise ConfigError(f"{option}: must be a .pth or .safetensors file, a folder or a hub id")
        return path
    if not path.is_dir():
        if not is_hub_id(source):
            raise ConfigError(f"{option}: no such file or folder")
        path = _download(source, ["config.json", ALLOCATION, *GATE_WEIGHTS], option)
    for name in GATE_WEIGHTS:
        if (path / name).is_file():
            return path / name
    raise ConfigError(f"{option}: has none of {', '.join(GATE_WEIGHTS)}")


def find_allocation(selector: SelectorConfig, gates: str | None) -> Path | None:
    """The file that says how the budget of these options is shared; None: every head has the same.

    Args:
        selector: the options.
        gates: ``model.gates``.

    Raises:
        ConfigError: ``selector.allocation`` names none.
    """
    if selector.allocation == UNIFORM:
        return None
    if selector.allocation == AUTO:
        if gates is None or selector.amounts:
            return None
        return _beside(gates, f"model.gates={gates}", traits_of(selector.name).gates)
    return _named(selector.allocation, "selector", GATES, "seer-ray gates shares")


def find_prompt_allocation(prefill: PrefillConfig, gates: str | None) -> Path | None:
    """The same of prompts, whose query heads share a density.

    Args:
        prefill: the options.
        gates: ``model.prefill_gates``.

    Raises:
        ConfigError: ``selector.prefill.allocation`` names none.
    """
    if prefill.density is None or prefill.allocation == UNIFORM:
        return None
    if prefill.allocation == AUTO:
        if gates is None:
            return None
        return _beside(gates, f"model.prefill_gates={gates}", fetch=True, kind=PREFILL_GATES)
    return _named(prefill.allocation, "selector.prefill", PREFILL_GATES, "seer-ray gates prompts")


def _named(source: str, section: str, kind: str, writer: str) -> Path:
    option = f"{section}.allocation={source}"
    file = _beside(source, option, fetch=False, kind=kind)
    if file is None:
        raise ConfigError(
            f"{option}: must be {AUTO}, {UNIFORM}, or a folder with {ALLOCATION}, as {writer} writes it"
        )
    return file


def is_hub_id(name: str) -> bool:
    """Whether ``name`` has the form of a hub id, ``owner/name`` or ``name``."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", name, re.ASCII) is not None


def packaged_gates(name: str, kind: str = GATES) -> Path | None:
    """The folder of the gates that this package may have for a model, which are called as the model is."""
    return ASSETS / name / kind if name in PACKAGED else None


def _download(name: str, patterns: list[str], option: str, revision: str | None = None) -> Path:
    from seer_ray.models.hub import download

    return download(name, patterns, option, revision)


def _beside(source: str, option: str, fetch: bool, kind: str = GATES) -> Path | None:
    """The file that says how heads share a budget, of gates or of a folder of its own; None: there is none.

    Args:
        source: as in ``find_gates``, or the file itself.
        option: that names it, for errors.
        fetch: also of gates that are not here yet; else of those none is known.
        kind: of the gates.

    Raises:
        ConfigError: no such gates.
    """
    path = packaged_gates(source, kind) or Path(source).expanduser()
    if not path.exists():
        if not fetch:
            return None
        path = find_gates(source, option, kind)
    if path.is_file():
        if path.suffix == ".json":
            return path
        path = path.parent
    return file if (file := path / ALLOCATION).is_file() else None
