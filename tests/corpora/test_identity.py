"""What the data of training holds: a change of a row is one, how its files lie is none."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from seer_ray.config.errors import ConfigError
from seer_ray.config.training import DistillConfig, PretrainConfig, SourceConfig
from seer_ray.corpora.documents import read_documents
from seer_ray.corpora.identity import data_contents, training_contents
from seer_ray.corpora.reference import REFERENCE
from seer_ray.models.identity import differences
from seer_ray.training.pretrain.tokenizer import make_tokenizer

RUN = Path(__file__).parents[1] / "fixtures" / "old_folders" / "job"


def test_files_by_what_they_hold(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"text": "{name}"}}\n')
    before = data_contents([str(tmp_path / "*.jsonl"), {"path": str(tmp_path / "a.jsonl"), "weight": 2.0}])
    assert before["data"].keys() == {"0/a.jsonl", "0/b.jsonl", "1/a.jsonl"}
    (tmp_path / "b.jsonl").write_text('{"text": "c"}\n')
    now = data_contents([str(tmp_path / "*.jsonl"), {"path": str(tmp_path / "a.jsonl"), "weight": 2.0}])
    assert [wrong.split()[1] for wrong in differences(now, before)] == ["0/b.jsonl"]
    with pytest.raises(ConfigError, match=r"^data=.*c.jsonl: no such file"):
        data_contents(str(tmp_path / "c.jsonl"))


def test_the_text_that_python_has_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents by topic; another text is another content; a Python without it is told of."""
    from pydoc_data import topics

    source = SourceConfig(REFERENCE)
    documents = list(read_documents(source, make_tokenizer(128), ""))
    assert len({document.id for document in documents}) == len(documents) > 50
    before = data_contents(REFERENCE, "data.text")
    assert before == data_contents(REFERENCE, "data.text")
    monkeypatch.setattr(topics, "topics", {"one": "text"})
    assert differences(data_contents(REFERENCE, "data.text"), before)
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(ConfigError, match=r"^data.text=python:reference: this Python came without"):
        data_contents(REFERENCE, "data.text")


def test_a_run_by_its_rows(tmp_path: Path) -> None:
    folder = shutil.copytree(RUN, tmp_path / "job")
    before = data_contents(str(folder))
    assert before["data"].keys() == {"0/job"}
    (folder / "status.json").write_text("{}")
    assert data_contents(str(folder)) == before
    for file in (*folder.glob("completions/*"), *folder.glob("ledger/*")):
        file.unlink()
    assert data_contents(str(folder)) != before


def test_all_that_a_job_reads(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    distill = DistillConfig(data=str(tmp_path / "a.jsonl"))
    distill.model.gates = "reasoner"
    assert training_contents(distill).keys() == {"model.name", "model.tokenizer", "model.gates", "data"}
    pretrain = PretrainConfig()
    assert training_contents(pretrain) == {}
    pretrain.architecture.tokenizer, pretrain.data.text = "reasoner", str(tmp_path / "a.jsonl")
    assert training_contents(pretrain).keys() == {"architecture.tokenizer", "data.text"}
