"""Parts without a ledger entry: they have lost it, are copies, or are of another run."""

from __future__ import annotations

from collections.abc import Container, Iterable

import pyarrow as pa

from seer_ray.config.errors import ConfigError, one_line
from seer_ray.results.entry import ENTRIES, Entry, Part, entry_name, part_name, unnamed
from seer_ray.results.keys import Key
from seer_ray.results.store import Store

Verdict = ConfigError | None
"""Why a part cannot be helped; None: its entry can be made again."""


def judge(
    store: Store, stems: Iterable[str], committed: Container[Key], run_id: str, sealed: bool
) -> dict[str, Verdict]:
    """Those of the parts that hold rows which are nowhere else, or whose rows are not known.

    Args:
        committed: rows of parts that have entries.
        sealed: all parts of the run say that they are of it.
    """
    found: dict[str, Verdict] = {}
    for stem in stems:
        where = store.locate(part_name(stem))
        remedy = f"move it away, or restore {entry_name(stem)} if it is this run's"
        try:
            theirs, keys, _, _ = unnamed(store, stem)
        except FileNotFoundError:
            continue
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            found[stem] = ConfigError(
                f"{where}: not in the ledger, and cannot be read ({one_line(error)}); {remedy}"
            )
            continue
        there = [key for key in keys if key in committed]
        if theirs != run_id and (sealed or theirs is not None):
            found[stem] = ConfigError(f"{where}: of another run; {remedy}")
        elif not there:
            found[stem] = None
        elif len(there) < len(keys):
            found[stem] = _overlap(where, len(there), len(keys), remedy)
    return found


def restored(store: Store, stem: str, tag: str, committed: Container[Key]) -> Part:
    """A part with an entry made from it. Raises ConfigError: some of its rows are elsewhere too."""
    _, keys, content, marks = unnamed(store, stem)
    if there := sum(key in committed for key in keys):
        raise _overlap(store.locate(part_name(stem)), there, len(keys), f"restore {ENTRIES}/")
    return Part(stem, tag, Entry((content,), committed=True), content, keys, marks)


def _overlap(where: str, there: int, rows: int, remedy: str) -> ConfigError:
    return ConfigError(
        f"{where}: not in the ledger, and {there} of its {rows} rows are in other parts too; {remedy}"
    )
