"""What a job's folder notes of the files that it is made of."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import ModelConfig, RunConfig, SelectorConfig
from seer_ray.config.works import needs_gates
from seer_ray.driver import sources
from seer_ray.driver.sources import FILE, look, note_sources, noted, own_contents, refuse_other_sources
from seer_ray.models.identity import Contents
from seer_ray.results.folder import RunFolder

ONE = {"model.name": {"model.safetensors": "1" * 16, "config.json": "2" * 16}}
OTHER = {"model.name": {"model.safetensors": "9" * 16, "config.json": "2" * 16}}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    with RunFolder.open(str(tmp_path / "run"), RunConfig(name="run")) as opened:
        yield opened


def read(folder: RunFolder, contents: Contents) -> None:
    """What a session does before it decodes."""
    refuse_other_sources(folder, contents)
    note_sources(folder, contents)


def begun(folder: RunFolder) -> None:
    """Something is made of it."""
    folder.store.write("progress/000001-aaaaaaaa.segment", b"a chain")


def test_a_job_goes_on_with_the_same_files(folder: RunFolder) -> None:
    read(folder, ONE)
    begun(folder)
    read(folder, ONE)
    words = r"begun with other files, .*: model.name: model.safetensors \(9{16}, 1{16}\); restore them"
    with pytest.raises(ConfigError, match=words):
        read(folder, OTHER)
    assert noted(folder) == ONE


def test_until_something_is_made_files_may_change(folder: RunFolder) -> None:
    """A model that could not be loaded is mended, and the command given again."""
    read(folder, ONE)
    read(folder, OTHER)
    begun(folder)
    assert noted(folder) == OTHER


def test_a_folder_without_a_note_gets_it(folder: RunFolder) -> None:
    begun(folder)
    read(folder, ONE)
    with pytest.raises(ConfigError):
        read(folder, OTHER)


def test_a_note_of_other_digests_is_not_compared(folder: RunFolder) -> None:
    begun(folder)
    folder.write_json(FILE, {"version": 0, "sources": OTHER})
    read(folder, ONE)
    assert noted(folder) == ONE


@pytest.mark.parametrize("said", [{}, [], {"version": 1}, {"version": 1, "sources": {"model.name": "x"}}])
def test_a_torn_note_is_refused(said: object, folder: RunFolder) -> None:
    begun(folder)
    folder.write_json(FILE, said)
    with pytest.raises(ConfigError, match=r"sources.json: torn; restore it from a copy, or delete it"):
        read(folder, ONE)


def test_what_is_new_is_noted_too(folder: RunFolder) -> None:
    read(folder, ONE)
    begun(folder)
    read(folder, ONE | {"data": {"0/a.jsonl": "3" * 16}})
    assert noted(folder).keys() == {"model.name", "data"}


def test_gates_that_no_selector_reads_need_not_be_there(tmp_path: Path) -> None:
    config = RunConfig()
    config.model.gates = str(tmp_path / "nowhere")
    assert not needs_gates(config.selector, config.plan) and look(
        config.model, gated=False
    ).contents.keys() == {
        "model.name",
        "model.tokenizer",
    }
    config.selector.layers = {"3": "seer"}
    assert needs_gates(config.selector, config.plan)
    with pytest.raises(ConfigError, match=r"^model.gates=.*nowhere: no such file or folder"):
        look(config.model)


def test_a_commit_of_the_hub_stays(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its branch goes on meanwhile; the run does not."""
    branch = {"main": "aaaa"}

    def found(model: ModelConfig) -> dict[str, dict[str, str]]:
        return {"model.name": {"commit": branch.get(model.revision or "main", model.revision)}}

    monkeypatch.setattr(sources, "contents", found)
    monkeypatch.setattr(sources, "find_tokenizer", lambda model: tmp_path / "no folder")
    first = look(ModelConfig(name="me/tiny"), folder)
    assert first.model.revision == "aaaa"  # which workers get
    read(folder, first.contents)
    begun(folder)
    branch["main"] = "bbbb"
    again = look(ModelConfig(name="me/tiny"), folder)
    assert again == first
    assert look(ModelConfig(name="me/tiny")).model.revision == "bbbb"  # of a new run


def test_a_selector_of_one_s_own_is_a_source(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "ranking", raising=False)
    Path("ranking.py").write_text("class Top: ...")
    config = RunConfig(selector=SelectorConfig(name="ranking:Top", layers={"0": "quest"}))
    note_sources(folder, ONE | own_contents(config))
    begun(folder)
    refuse_other_sources(folder, ONE | own_contents(config))
    Path("ranking.py").write_text("class Top: ...  # another")
    with pytest.raises(ConfigError, match=r"begun with other files, .*: selector\.name: ranking\.py"):
        refuse_other_sources(folder, ONE | own_contents(config))
    assert own_contents(RunConfig()) == {}
