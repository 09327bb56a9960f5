"""Whatever happens to a file of a run's folder: the right rows, or one line that names the file.

Two folders, a finished run's and an interrupted one's; each file that they have; each kind of damage. After
each, the folder is shown, exported, compared and resumed by the command line itself.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from jobs.here import command, decode_here, make_inputs
from jobs.mutations import KINDS, Mutation, files_of, mutate
from typer.testing import Result

from seer_ray.config.errors import ConfigError
from seer_ray.driver import run as run_driver
from seer_ray.results.folder import RunFolder

PROBLEMS = "abcd"
SAME_EACH_TIME = ("problem_id", "sample", "seed", "prompt", "completion", "token_ids", "finish_reason")
SAME_EACH_TIME += ("extracted_answer", "reference", "correct", "attended_kv", "available_kv", "error")


Folders = dict[str, Path]


@pytest.fixture(scope="module")
def prompts() -> dict[str, Any]:
    return {}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, prompts: dict[str, Any]) -> Iterator[Folders]:
    """Folders: finished and stopped; of other runs too, of the same and of other settings."""
    root = tmp_path_factory.mktemp("made")
    options = [*make_inputs(root, PROBLEMS), "engine.record_selection=1", "tracking.uri=http://127.0.0.1:9"]
    found: Folders = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seer_ray.tracking.mlflow_tracker.GRACE", 0.0)
        patch.setattr("seer_ray.tracking.sender.Sender.step", lambda self: False)
        for state, stop in (("finished", None), ("stopped", 3)):
            patch.setattr(run_driver, "_decode", decode_here(stop, prompts))
            for whose, seed in (("own", 0), ("foreign", 0), ("foreign other", 1)):
                place = root / f"{state} {whose}"
                result = command("run", *options, f"seed={seed}", f"results.folder={place}")
                assert result.exit_code == (0 if stop is None else 130), result.output
                found[f"{state} {whose}"] = place / "job"
    yield found


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch, made: Folders, prompts: dict[str, Any]) -> None:
    monkeypatch.setattr(run_driver, "_decode", decode_here(None, prompts))


def rows(folder: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """As a plain reader of Parquet finds them; each once."""
    table = ds.dataset(folder / "completions", format="parquet").to_table()
    found = {(row["problem_id"], row["sample"]): row for row in table.to_pylist()}
    assert len(found) == table.num_rows, "a row is doubled"
    return {key: {name: row[name] for name in SAME_EACH_TIME} for key, row in found.items()}


def exported(folder: Path, to: Path) -> tuple[Result, list[Any]]:
    result = command("export", str(folder), "--openai-batch", str(to))
    if result.exit_code:
        return result, []
    lines = [json.loads(line) for line in to.read_text().splitlines()]
    return result, sorted((line["custom_id"], line["response"]["body"]["choices"]) for line in lines)


def refused(result: Result, mutation: Mutation) -> bool:
    """Whether a command was refused; if so, in one line that names the file."""
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    if result.exit_code == 0:
        return False
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    # An entry and its part are a pair: that they do not fit is told of either.
    stems = [re.sub(r"^part-|\..*$", "", Path(file).name) for file in mutation.files]
    mark = "run.json" in mutation.files and ": of another run than run.json" in line
    deleted = mutation == Mutation("delete", ("run.json",)) and "no such run" in line
    assert mark or deleted or any(stem in line for stem in stems), (mutation, line)
    return True


def check(folder: Path, mutation: Mutation, before: Path, whole: dict[Any, Any], scratch: Path) -> bool:
    """Whether any command was refused."""
    refusals = 0
    result, lines = exported(folder, scratch / "rows.jsonl")
    if refused(result, mutation):
        refusals += 1
    else:
        there = exported(before, scratch / "before.jsonl")[1]
        lost = mutation.kind == "delete" or Path(mutation.files[0]).parent.name in ("ledger", "completions")
        # Of a run that goes on, the last part without its entry is one that is being committed.
        assert lines == there or (lost and "stopped" in str(before) and all(line in there for line in lines))
    result = command("status", str(folder), "--json")
    if refused(result, mutation):
        refusals += 1
    else:
        now, then = (json.loads(command("status", str(f), "--json").stdout) for f in (folder, before))
        assert now["metrics"] in (then["metrics"], {}), mutation
        assert now["state"] in (then["state"], "stopped"), mutation
    result = command("resume", str(folder), "tracking.enabled=false")
    if refused(result, mutation) or refused(exported(folder, scratch / "rows.jsonl")[0], mutation):
        refusals += 1
    else:
        assert rows(folder) == whole, mutation
        assert {(key[0], key[1]) for key in RunFolder.view(str(folder)).committed()} == set(whole), mutation
        check_recordings(folder, before, mutation)
    return bool(refusals)


def check_recordings(folder: Path, before: Path, mutation: Mutation) -> None:
    """Which blocks chains attended: as before, or refused by name."""
    view, undisturbed = RunFolder.view(str(folder)), RunFolder.view(str(before))
    for key in set(view.recorded()) & set(undisturbed.recorded()):
        try:
            found = view.read_selection(key)
        except ConfigError as error:
            assert any(Path(file).name in str(error) for file in mutation.files), (mutation, error)
        else:
            assert found == undisturbed.read_selection(key), mutation


def run_mutations(made: Folders, scratch: Path, count: int, seed: int) -> dict[str, int]:
    """So many at random; how many of each kind were refused."""
    draw, refusals = random.Random(seed), dict.fromkeys(KINDS, 0)
    whole = rows(made["finished own"])
    assert len(whole) == 2 * len(PROBLEMS)
    done = 0
    while done < count:
        state, kind = draw.choice(["finished", "stopped"]), KINDS[done % len(KINDS)]
        folder = scratch / "job"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(made[f"{state} own"], folder)
        same, other = made[f"{state} foreign"], made[f"{state} foreign other"]
        mutation = mutate(folder, kind, draw, same, other)
        if mutation is None:
            continue
        done += 1
        refusals[kind] += check(folder, mutation, made[f"{state} own"], whole, scratch)
    return refusals


def test_the_folders_are_what_they_are_meant_to_be(made: Folders) -> None:
    whole, part = rows(made["finished own"]), rows(made["stopped own"])
    assert len(whole) == 8 and part.items() < whole.items() and len(part) == 3
    names = {
        str(path.relative_to(made["stopped own"])).split("/")[0] for path in files_of(made["stopped own"])
    }
    assert names == {
        *("run.json", "config.yaml", "dataset.json", "prompts.json", "provenance.json", "status.json"),
        *("completions", "ledger", "progress", "selections", "tracking"),
    }


def test_a_stopped_run_goes_on_where_it_was(made: Folders, tmp_path: Path) -> None:
    shutil.copytree(made["stopped own"], tmp_path / "job")
    assert command("resume", str(tmp_path / "job"), "tracking.enabled=false").exit_code == 0
    assert rows(tmp_path / "job") == rows(made["finished own"])


def test_some_mutations(made: Folders, tmp_path: Path) -> None:
    run_mutations(made, tmp_path, 2 * len(KINDS), seed=1)


@pytest.mark.slow
def test_many_mutations(made: Folders, tmp_path: Path, long: bool) -> None:
    refusals = run_mutations(made, tmp_path, 500 if long else 150, seed=2)
    assert all(refusals.values()), f"each kind of damage is seen at times: {refusals}"
