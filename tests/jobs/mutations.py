"""What can happen to a file of a folder, at random: ``from jobs.mutations import mutate``."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path

KINDS = ("bit", "bits", "cut", "empty", "delete", "swap", "duplicate", "foreign", "foreign other")


@dataclass(frozen=True)
class Mutation:
    """What was done to which files, relative to the folder."""

    kind: str
    files: tuple[str, ...]


def files_of(folder: Path) -> list[Path]:
    """All of them but locks, which hold nothing but who has them."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")


def mutate(folder: Path, kind: str, draw: random.Random, same: Path, other: Path) -> Mutation | None:
    """Does one thing to one file, or to two.

    Args:
        folder: a copy.
        same: folder of another run of the same settings.
        other: folder of a run of other settings.

    Returns:
        None: nothing would have been different.
    """
    # Each kind of file has the same chance, however many of it there are.
    kinds = sorted({(path.parent, path.suffix) for path in files_of(folder)})
    where, suffix = draw.choice(kinds)
    chosen = draw.choice([path for path in files_of(folder) if (path.parent, path.suffix) == (where, suffix)])
    content, touched = chosen.read_bytes(), [chosen]
    if kind == "delete":
        chosen.unlink()
    elif kind in ("bit", "bits", "cut", "empty"):
        changed = bytearray(content)
        for _ in range({"bit": 1, "bits": 8}.get(kind, 0) if content else 0):
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        if kind in ("cut", "empty"):
            del changed[draw.randrange(len(changed)) if kind == "cut" and changed else 0 :]
        if changed == content:
            return None
        chosen.write_bytes(changed)
    elif kind == "swap":
        second = draw.choice([path for path in files_of(folder) if path.suffix == suffix])
        if second.read_bytes() == content:
            return None
        chosen.write_bytes(second.read_bytes())
        second.write_bytes(content)
        touched.append(second)
    elif kind == "duplicate":
        copy = chosen.with_name(_another_name(chosen, draw))
        shutil.copyfile(chosen, copy)
        touched.append(copy)
    else:
        foreign = same if kind == "foreign" else other
        place = foreign / chosen.relative_to(folder)
        if not place.exists():  # its names are its own
            place = draw.choice(sorted(p for p in place.parent.iterdir() if p.suffix == suffix))
        if draw.random() < 0.5:
            touched[0] = chosen = chosen.with_name(place.name)
        shutil.copyfile(place, chosen)
    return Mutation(kind, tuple(str(path.relative_to(folder)) for path in touched))


def _another_name(path: Path, draw: random.Random) -> str:
    """Such as the folder's own files have."""
    number = draw.choice(["000001", "000002", "000009"])
    prefix = "part-" if path.name.startswith("part-") else ""
    if prefix or path.parent.name in ("ledger", "progress"):
        return f"{prefix}{number}-{draw.randrange(16**8):08x}{path.suffix}"
    return draw.choice([f"{path.stem}2{path.suffix}", f"copy_of_{path.name}"])
