"""Documents from what people have, and mixtures of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from results.sample import row
from tiny import CHAT_TEMPLATE, tiny_tokenizer

from seer_ray.config.errors import ConfigError
from seer_ray.config.options import ModelConfig, RunConfig, SweepConfig
from seer_ray.config.training import SourceConfig
from seer_ray.corpora.documents import Document, parse_sources, read_documents
from seer_ray.corpora.mixture import Mixture
from seer_ray.corpora.split import split_documents
from seer_ray.results.folder import RunFolder
from seer_ray.results.sweep import SweepFolder, point_uri


def document(id: str, length: int, source: str = "made", value: int = 0) -> Document:
    return Document(id, source, torch.full((length,), value, dtype=torch.int32))


def written(folder: Path, *rows: dict[str, Any]) -> str:
    file = folder / "data.jsonl"
    file.write_text("\n".join(json.dumps(item) for item in rows))
    return str(file)


def texts(source: SourceConfig, model: str = "tiny") -> list[str]:
    tokenizer = tiny_tokenizer()
    return [tokenizer.decode(d.tokens) for d in read_documents(source, tokenizer, model)]


# -- sources ---------------------------------------------------------------------------------------------


def test_text_of_the_usual_or_the_named_column(tmp_path: Path) -> None:
    path = written(tmp_path, {"text": "one", "body": "eins"}, {"text": "", "body": "zwei"})
    assert texts(SourceConfig(path)) == ["one"]  # a row without text is passed by
    assert texts(SourceConfig(path, text="body")) == ["eins", "zwei"]
    assert texts(SourceConfig(path, text="body", limit=1)) == ["eins"]


def test_chats_by_the_template(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
    shared = [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]
    expected = "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n"
    assert CHAT_TEMPLATE
    assert texts(SourceConfig(written(tmp_path, {"messages": chat}))) == [expected]
    assert texts(SourceConfig(written(tmp_path, {"conversations": shared}))) == [expected]
    assert texts(SourceConfig(written(tmp_path, {"problem": "2+2?", "solution": "4", "answer": "no"}))) == [
        expected
    ]
    named = SourceConfig(written(tmp_path, {"q": "2+2?", "a": "4"}), question="q", answer="a")
    assert texts(named) == [expected]


def run_folder(folder: Path, **config: str) -> str:
    model = ModelConfig(**{"name": "tiny", **config})
    with RunFolder.open(str(folder / "run"), RunConfig(model=model)) as run:
        prompt = "<|im_start|>hi\n"
        there = {"prompt": prompt, "prompt_tokens": 4, "completion": "you", "token_ids": [104, 105]}
        run.commit([row("p0", **there), row("p0", 1, **there), row("p1", **(there | {"token_ids": []}))])
    return str(folder / "run")


def test_a_run_gives_prompts_and_completions_token_for_token(tmp_path: Path) -> None:
    """Rows without tokens, as errors are, are passed by; samples of a problem share its id."""
    tokenizer = tiny_tokenizer()
    found = list(read_documents(SourceConfig(run_folder(tmp_path)), tokenizer, "tiny"))
    assert [d.id for d in found] == ["p0", "p0"]
    assert found[0].tokens.tolist() == [*tokenizer("<|im_start|>hi\n")["input_ids"], 104, 105]


def test_a_sweep_gives_the_rows_of_its_points(tmp_path: Path) -> None:
    with SweepFolder.open(str(tmp_path / "sweep"), SweepConfig(name="sweep")) as sweep:
        for slug in ("dense", "quest-64"):
            Path(run_folder(tmp_path)).rename(point_uri(str(tmp_path / "sweep"), slug))
        sweep.write_points([{"slug": "dense"}, {"slug": "quest-64"}])
    found = texts(SourceConfig(str(tmp_path / "sweep")), "other")
    assert found == ["<|im_start|>hi\nyou"] * 4


def test_a_run_of_another_model_gives_its_text(tmp_path: Path) -> None:
    assert texts(SourceConfig(run_folder(tmp_path)), "other") == ["<|im_start|>hi\nyou"] * 2


def test_a_run_whose_tokenizer_has_changed_is_refused(tmp_path: Path) -> None:
    path = run_folder(tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["hi"])
    with pytest.raises(ConfigError, match=r"problem p0 has 4 tokens there and 3 here"):
        list(read_documents(SourceConfig(path), tokenizer, "tiny"))


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (
            [{"x": 1, "y": 2}],
            {},
            r"no text in .*data.jsonl:1; columns: x, y; name the one with text by text=",
        ),
        ([{"text": "a"}], {"text": "txt"}, r"data.text=txt: no column 'txt' .*\(did you mean 'text'\?\)"),
        ([{"messages": ["a"]}], {}, r"every message of the chat must have a role and a text"),
    ],
)
def test_data_without_text(tmp_path: Path, rows: list[Any], settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        texts(SourceConfig(written(tmp_path, *rows), **settings))


def test_missing_files_are_called_by_this_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^data=.*none.jsonl: no such file"):
        texts(SourceConfig(str(tmp_path / "none.jsonl")))


def test_sources_as_the_option_writes_them() -> None:
    assert parse_sources("a.jsonl") == [SourceConfig("a.jsonl")]
    assert parse_sources(["a", {"path": "b", "weight": 2, "text": "t"}]) == [
        SourceConfig("a"),
        SourceConfig("b", weight=2, text="t"),
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "data: not set; name what to train on"),
        ([], "data: not set"),
        ({"file": "a"}, "must be a path, or {path: ..., weight: ...}"),
        (["a", {"path": "b", "wieght": 2}], r"data\[1\].wieght=2: no such key \(did you mean 'weight'\?\)"),
        ({"path": "b", "weight": 0}, "data.weight=0: must be a number above 0"),
        ({"path": "b", "limit": 0}, "data.limit=0: must be a whole number above 0"),
    ],
)
def test_bad_data_options(data: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_sources(data)


# -- the split -------------------------------------------------------------------------------------------


def test_long_documents_are_cut_and_short_ones_counted() -> None:
    corpus = split_documents([document("a", 250), document("b", 15), document("c", 16)], 100, 8, 0.0, "data")
    assert [len(d.tokens) for d in corpus.train] == [100, 100, 50, 16]
    assert corpus.too_short == 1 and corpus.held_out == []


def test_nothing_long_enough() -> None:
    with pytest.raises(
        ConfigError, match=r"2 documents, the longest has 15 tokens; .* two blocks of 8, 16 tokens"
    ):
        split_documents([document("a", 15), document("b", 3)], 100, 8, 0.1, "data=x")


def test_the_split_goes_by_id_alone() -> None:
    ids = [f"problem-{number}" for number in range(200)]
    corpus = split_documents([document(id, 20) for id in ids for _ in range(2)], 100, 8, 0.1, "data")
    out = {d.id for d in corpus.held_out}
    assert 8 <= len(out) <= 32 and len(corpus.held_out) == 2 * len(out)
    assert not out & {d.id for d in corpus.train}
    again = split_documents([document(id, 50) for id in reversed(ids)], 30, 8, 0.1, "data")
    assert {d.id for d in again.held_out} == out


@pytest.mark.parametrize("count", [2, 3, 10])
def test_small_data_have_one_held_out(count: int) -> None:
    """At least one, never all."""
    corpus = split_documents([document(str(n), 20) for n in range(count)], 100, 8, 0.001, "data")
    assert len(corpus.held_out) == 1 and len(corpus.train) == count - 1


def test_one_document_is_for_training() -> None:
    corpus = split_documents([document("a", 300)], 100, 8, 0.5, "data")
    assert len(corpus.train) == 3 and not corpus.held_out


# -- the mixture -----------------------------------------------------------------------------------------


def mixture(*parts: tuple[list[Document], float], length: int = 400, seed: int = 0) -> Mixture:
    return Mixture(parts, length, 8, seed)


def test_weights_are_shares_of_the_tokens() -> None:
    """Whatever the lengths of the documents."""
    long = [document(f"a{n}", 160, value=1) for n in range(7)]
    short = [document(f"b{n}", 20, value=2) for n in range(50)]
    made = mixture((long, 1.0), (short, 3.0), length=2000)
    tokens = torch.cat([made.row(index).tokens for index in range(100)])
    assert (tokens == 2).float().mean().item() == pytest.approx(0.75, abs=0.03)


def test_a_row_is_a_function_of_its_number() -> None:
    documents = [document(str(n), 20 + n, value=n) for n in range(30)]
    one, other = mixture((documents, 1.0)), mixture((documents, 1.0))
    late = other.row(25)
    assert torch.equal(one.row(25).tokens, late.tokens) and one.row(25).bounds == late.bounds
    assert torch.equal(one.row(3).tokens, other.row(3).tokens)
    assert not torch.equal(mixture((documents, 1.0), seed=1).row(3).tokens, one.row(3).tokens)


def test_rows_are_whole_documents_but_the_last() -> None:
    documents = [document(str(n), 150, value=n) for n in range(9)]
    made = mixture((documents, 1.0), length=400)
    for index in range(6):
        row_of = made.row(index)
        assert row_of.bounds == (0, 150, 300, 400) and row_of.tokens.dtype == torch.int64
        for d in row_of.documents():
            assert len(set(row_of.tokens[d].tolist())) == 1
        assert row_of.positions.tolist() == [*range(150), *range(150), *range(100)]
    assert mixture((documents, 1.0), length=310).row(0).bounds == (0, 150, 300)  # no two blocks are left


def test_every_document_comes_once_a_round() -> None:
    documents = [document(str(n), 100, value=n) for n in range(12)]
    made = mixture((documents, 1.0), length=300)
    seen = [int(made.row(i).tokens[d][0]) for i in range(8) for d in made.row(i).documents()]
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12)) and seen[:12] != seen[12:]
