"""As ``test_crash``, for what is not a local disk: no sync, no lock of the kernel, errors from afar."""

from __future__ import annotations

import uuid
from collections import Counter
from typing import Any

import pyarrow.fs as pafs
import pytest
from results.sample import CONFIG, row

from seer_ray.results import lock
from seer_ray.results.folder import RunFolder

CHANGES = ("open_output_stream", "move", "delete_file")


class Cloud:
    """Counts the changes asked of fsspec filesystems; number ``fail_at`` and, if the process dies, all later
    ones fail, before or after they are done."""

    def __init__(self, patch: pytest.MonkeyPatch, fail_at: int, dies: bool, done: bool) -> None:
        self.count, self.failed = 0, False
        for name in CHANGES:
            real = getattr(pafs.FSSpecHandler, name)

            def change(handler: Any, *arguments: Any, real: Any = real) -> Any:
                number, self.count = self.count, self.count + 1
                if number == fail_at or (self.failed and dies):
                    if done and not self.failed:
                        real(handler, *arguments)
                    self.failed = True
                    raise OSError("the network is gone")
                return real(handler, *arguments)

            patch.setattr(pafs.FSSpecHandler, name, change)


def keys(folder: RunFolder) -> Counter[tuple[str, int]]:
    table = folder.read(["problem_id", "sample"])
    return Counter(zip(table["problem_id"].to_pylist(), table["sample"].to_pylist(), strict=True))


@pytest.mark.parametrize("dies", [True, False])
@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("compact", [True, False])
def test_each_row_once(monkeypatch: pytest.MonkeyPatch, compact: bool, done: bool, dies: bool) -> None:
    monkeypatch.setattr(lock.HeartbeatLock.__init__, "__defaults__", (1000.0, 60.0, 0.0))
    before = {("a", 0): 1, ("b", 0): 1}
    after = before if compact else before | {("c", 0): 1}
    for fail_at in range(100):
        uri = f"fsspec+memory://{uuid.uuid4().hex}/run"
        folder = RunFolder.open(uri, CONFIG)
        folder.commit([row("a")])
        folder.commit([row("b")])
        returned = True
        with monkeypatch.context() as patch:
            cloud = Cloud(patch, fail_at, dies, done)
            try:
                folder.compact() if compact else folder.commit([row("c")])
            except OSError:
                returned = False
        seen = keys(RunFolder.view(uri))
        assert seen == after if returned else seen in (before, after)
        if dies:
            folder.close()
            folder = RunFolder.open(uri, CONFIG)
        assert keys(folder) == seen
        if ("c", 0) not in folder.committed():
            folder.commit([row("c")])
        folder.compact()
        assert keys(folder) == keys(RunFolder.view(uri)) == before | {("c", 0): 1}
        assert len(folder.store.list("completions")) == len(folder.store.list("ledger")) == 1
        folder.close()
        if not cloud.failed:
            assert fail_at >= 4
            return
    raise AssertionError("never succeeded")
