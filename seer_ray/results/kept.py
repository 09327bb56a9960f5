"""Finished rows on this machine's disk, while the storage of their run is away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from seer_ray.config.errors import ConfigError, one_line
from seer_ray.results.store import LocalStore, is_temporary

FOLDER = "rows"


class KeptRows:
    """Tables of rows in files, in the order in which they came, with this user's state.

    Args:
        run_id: of the run.
    """

    def __init__(self, run_id: str) -> None:
        state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        self.path = Path(state).expanduser() / "seer-ray" / run_id / FOLDER
        self._store = LocalStore(self.path)
        self.files = sorted(name for name in self._store.list() if not is_temporary(name))

    def add(self, table: pa.Table) -> None:
        """Rows that are there to stay when this returns. Raises OSError."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as file:
            file.write_table(table)
        number = int(self.files[-1].partition(".")[0]) + 1 if self.files else 1
        self._store.make_folder()
        self._store.write(name := f"{number:06d}.arrow", sink.getvalue())
        self.files.append(name)

    def take(self) -> Iterator[pa.Table]:
        """One table after the other; each is removed when the next one is asked for.

        Raises:
            ConfigError: a file is torn.
        """
        while self.files:
            place = self.path / self.files[0]
            try:
                table = pa.ipc.open_file(self._store.read(self.files[0])).read_all()
            except (pa.ArrowException, OSError) as error:
                raise ConfigError(
                    f"{place}: rows that wait here cannot be read ({one_line(error)}); delete it, and they "
                    "are decoded again"
                ) from error
            yield table
            self._store.delete([self.files[0]])
            del self.files[0]
