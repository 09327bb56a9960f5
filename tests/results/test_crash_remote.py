"""As ``test_crash``, for what is not a local disk: no sync, no lock of the kernel, errors from afar."""

from __future__ import annotations

import contextlib
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
                    first, self.failed = not self.failed, True
                    if done and first:
                        with contextlib.suppress(FileNotFoundError):
                            real(handler, *arguments)
                    raise OSError("the network is gone")
                return real(handler, *arguments)

            patch.setattr(pafs.FSSpecHandler, name, change)


def keys(folder: RunFolder) -> Counter[tuple[str, int]]:
    table = folder.read(["problem_id", "sample"])
    return Counter(zip(table["problem_id"].to_pylist(), table["sample"].to_pylist(), strict=True))


@pytest.mark.parametrize("dies", [True, False])
@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("retry", [True, False])
def test_each_row_once(monkeypatch: pytest.MonkeyPatch, retry: bool, done: bool, dies: bool) -> None:
    monkeypatch.setattr(lock, "SETTLE", 0.0)
    before = {("a", 0): 1, ("b", 0): 1}
    without = {("a", 0): 1} if retry else before
    after = before if retry else before | {("c", 0): 1}
    for fail_at in range(100):
        uri = f"fsspec+memory://{uuid.uuid4().hex}/run"
        folder = RunFolder.open(uri, CONFIG)
        folder.commit([row("a")])
        folder.commit([row("b")])
        returned = True
        with monkeypatch.context() as patch:
            cloud = Cloud(patch, fail_at, dies, done)
            try:
                if retry:
                    folder.withdraw([("b", 0)])
                folder.commit([row("b" if retry else "c")])
            except OSError:
                returned = False
        seen = keys(RunFolder.view(uri))
        assert seen == after if returned else seen in (before, without, after)
        if dies:
            folder.close()
            folder = RunFolder.open(uri, CONFIG)
        assert keys(folder) == seen
        folder.commit(row(name) for name in "bc" if (name, 0) not in folder.committed())
        assert keys(folder) == keys(RunFolder.view(uri)) == before | {("c", 0): 1}
        assert len(folder.store.list("completions")) == len(folder.store.list("ledger")) == 1
        folder.close()
        if not cloud.failed:
            assert fail_at >= 4
            return
    raise AssertionError("never succeeded")
