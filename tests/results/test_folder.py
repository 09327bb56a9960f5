from __future__ import annotations

import json
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from results.sample import CONFIG, row

import seer_ray
from seer_ray.config.compose import to_yaml
from seer_ray.config.errors import ConfigError
from seer_ray.config.options import RunConfig
from seer_ray.results import ledger, lock, schema, view
from seer_ray.results.folder import RunFolder


@pytest.fixture(params=["path", "file", "memory"])
def uri(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "memory":
        monkeypatch.setattr(lock, "SETTLE", 0.0)
        return f"fsspec+memory://{uuid.uuid4().hex}/run"
    return f"file://{tmp_path}/run" if request.param == "file" else str(tmp_path / "run")


def refusal(action: object, *arguments: object) -> str:
    """The error's text: one line."""
    with pytest.raises(ConfigError) as caught:
        action(*arguments)  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_rows_come_back(uri: str) -> None:
    with RunFolder.open(uri, CONFIG) as folder:
        assert folder.read().num_rows == 0
        assert folder.read(["correct"]).column_names == ["correct"]
        folder.commit([row("a", 0), row("a", 1, correct=None, error="the worker died", worker=None)])
        folder.commit([])
        folder.commit([row("b", 0, completion="\ud800 is no text")])
        assert folder.committed() == {("a", 0), ("a", 1), ("b", 0)}
    view = RunFolder.view(uri)
    table = view.read()
    assert table.column_names == list(schema.NAMES)
    assert table["correct"].to_pylist() == [True, None, True]
    assert table["token_ids"].to_pylist() == [[1, 2, 3]] * 3
    assert table["completion"].to_pylist()[2] == "? is no text"
    assert view.read(["sample", "problem_id"]).column_names == ["sample", "problem_id"]
    assert view.config_yaml == to_yaml(CONFIG)


def test_a_view_sees_what_comes_later(uri: str) -> None:
    with RunFolder.open(uri, CONFIG) as folder:
        view = RunFolder.view(uri)
        assert view.committed() == set()
        folder.commit([row("a")])
        assert view.committed() == {("a", 0)}
        folder.commit([row("b")])
        assert view.read(["problem_id"])["problem_id"].to_pylist() == ["a", "b"]
        with pytest.raises(ValueError, match="opened to look"):
            view.commit([row("c")])


def test_a_row_is_committed_once(uri: str) -> None:
    with RunFolder.open(uri, CONFIG) as folder:
        folder.commit([row("a")])
        for rows in ([row("a")], [row("b"), row("b")], [row("c"), row("a")]):
            with pytest.raises(ValueError, match="committed already"):
                folder.commit(rows)
        assert folder.committed() == {("a", 0)}


def test_some_rows_are_picked_from_the_parts_that_hold_them(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "PART_BYTES", 1)
    with RunFolder.open(uri, CONFIG) as folder:
        for part in (("a", "b"), ("c",), ("d", "e")):
            folder.commit([row(problem, 0) for problem in part])
        found = RunFolder.view(uri).pick([("e", 0), ("a", 0), ("gone", 0)], ["problem_id", "completion"])
        assert found.column_names == ["problem_id", "completion"]
        assert found["problem_id"].to_pylist() == ["a", "e"]
        assert folder.pick([], ["sample"]).num_rows == 0


def test_a_part_grows_until_it_is_full(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunFolder.open(uri, CONFIG) as folder:
        folder.commit([row("a", sample) for sample in range(4)])
        monkeypatch.setattr(ledger, "PART_BYTES", folder.read().nbytes)
        for sample in range(4, 9):
            folder.commit([row("a", sample)])
        assert len(folder.store.list("completions")) == len(folder.store.list("ledger")) == 2
    with RunFolder.open(uri, CONFIG) as folder:
        folder.commit([row("a", 9)])
        assert folder.read(["sample"])["sample"].to_pylist() == list(range(10))
        assert len(folder.store.list("completions")) == 3


def test_rows_that_are_withdrawn_can_be_made_again(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunFolder.open(uri, CONFIG) as folder:
        folder.commit([row("a", sample, error="died") for sample in range(3)])
        monkeypatch.setattr(ledger, "PART_BYTES", 1)
        folder.commit([row("b")])
        folder.write_json("metrics.json", {"accuracy/avg": 1.0})
        folder.withdraw([("a", 0), ("a", 2), ("b", 0), ("never", 0)])
        assert folder.committed() == RunFolder.view(uri).committed() == {("a", 1)}
        assert folder.metrics() is None, "it is no finished run any more"
        folder.commit([row("a", 2)])
        assert RunFolder.view(uri).committed() == {("a", 1), ("a", 2)}
        assert RunFolder.view(uri).read(["error"])["error"].to_pylist() == ["died", None]


def test_rows_that_are_rewritten_are_so_once(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "PART_BYTES", 1)
    calls = 0

    def wrong(rows: pa.Table) -> pa.Table:
        nonlocal calls
        calls += 1
        place = rows.column_names.index("correct")
        return rows.set_column(place, "correct", pa.array([False] * rows.num_rows))

    with RunFolder.open(uri, CONFIG) as folder:
        for problem in "abc":
            folder.commit([row(problem)])
        for _ in range(2):
            folder.rewrite("other", wrong)
        assert calls == 3
        folder.commit([row("d")])
    with RunFolder.open(uri, CONFIG) as folder:
        folder.rewrite("other", wrong)
        assert calls == 4
        assert folder.read(["correct"])["correct"].to_pylist() == [False] * 4


def test_a_view_survives_a_change_in_its_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process replaces the part between any two of our looks."""
    with RunFolder.open(str(tmp_path / "run"), CONFIG) as folder:
        folder.commit([row("a", 0)])
        for number, moment in enumerate(("_see", "_rows", "_read_entry", "_open"), start=1):
            view = RunFolder.view(folder.uri)
            view._ledger._seen.clear()
            monkeypatch.undo()
            real = getattr(ledger.Ledger, moment)
            done = False

            def late(self: ledger.Ledger, *arguments: object, real=real, view=view, number=number) -> object:
                nonlocal done
                if self is view._ledger and not done:
                    done = True
                    folder.commit([row("a", number)])
                    folder.withdraw([("a", number - 1)])
                return real(self, *arguments)

            monkeypatch.setattr(ledger.Ledger, moment, late)
            table = view.read(["problem_id", "sample"])
            assert done
            rows = list(zip(table["problem_id"].to_pylist(), table["sample"].to_pylist(), strict=True))
            assert rows == [("a", number)]


def test_a_listing_that_missed_a_part_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan may pass the place of a replaced file too early or too late."""
    with RunFolder.open(str(tmp_path / "run"), CONFIG) as folder:
        folder.commit([row("a")])
        view = RunFolder.view(folder.uri)
        real, scans = view.store.tags, 0

        def scan(name: str = "") -> dict[str, str]:
            nonlocal scans
            scans += name == "completions"
            return {} if scans == 1 else real(name)

        monkeypatch.setattr(view.store, "tags", scan)
        assert view.committed() == {("a", 0)}


def test_a_stream_reads_the_columns_that_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "PART_BYTES", 1)
    with RunFolder.open(str(tmp_path / "run"), CONFIG) as folder:
        for problem in "abc":
            folder.commit([row(problem)])
    asked: list[object] = []
    real = view.read_part
    monkeypatch.setattr(view, "read_part", lambda *a: asked.append(a[2]) or real(*a))
    stream = seer_ray.read(str(tmp_path / "run"), ["correct", "problem_id"])
    assert stream.schema.names == ["correct", "problem_id"] and asked == []
    first = stream.read_next_batch()
    assert first.to_pylist() == [{"correct": True, "problem_id": "a"}] and len(asked) <= 2
    assert stream.read_all()["problem_id"].to_pylist() == ["b", "c"]
    assert asked == [["correct", "problem_id"]] * 3
    with pytest.raises(ConfigError, match=r"corect: no such column .did you mean 'correct'"):
        seer_ray.read(str(tmp_path / "run"), ["corect"])
    part = max((tmp_path / "run/completions").iterdir())
    stream = seer_ray.read(str(tmp_path / "run"), ["correct"])
    part.unlink()
    with pytest.raises(ConfigError, match=f"{part.name}: missing"):
        stream.read_all()


def test_json_files(uri: str) -> None:
    with RunFolder.open(uri, CONFIG) as folder:
        assert folder.read_json("status.json") is None
        folder.write_json("status.json", {"done": 1})
        folder.write_json("status.json", {"done": 2})
        assert RunFolder.view(uri).read_json("status.json") == {"done": 2}
        for name in ("../status.json", "run.json", "config.yaml"):
            with pytest.raises(ValueError, match="not a name"):
                folder.write_json(name, {})
        folder.store.write("metrics.json", b'{"a": 1')
        assert "metrics.json: torn" in refusal(folder.read_json, "metrics.json")


def test_parts_say_what_they_are(tmp_path: Path) -> None:
    with RunFolder.open(str(tmp_path / "run"), CONFIG) as folder:
        folder.commit([row("a")])
    part = next((tmp_path / "run/completions").iterdir())
    footer = pq.read_schema(part)
    assert footer.metadata[b"seer_ray.run_id"].decode() == folder.run_id
    assert footer.metadata[b"seer_ray.config_digest"].decode() == folder.config_digest
    assert footer.metadata[b"seer_ray.schema_version"] == b"1"
    assert footer.field("decode_s").metadata[b"unit"] == b"s"
    assert json.loads(footer.metadata[b"seer_ray.columns"])["attended_kv"]["unit"] == "tokens"
    assert footer.field("completion").type == pa.large_string()
    assert footer.field("token_ids").type == pa.list_(pa.int32())
    assert pq.ParquetFile(part).metadata.row_group(0).column(0).compression == "ZSTD"


def test_parts_are_read_without_our_code(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    with RunFolder.open(str(tmp_path / "run"), CONFIG) as folder:
        folder.commit([row("a"), row("b", correct=False)])
        folder.commit([row("c")])
    query = f"select sum(correct::int), sum(len(token_ids)) from '{tmp_path}/run/completions/*.parquet'"
    assert duckdb.sql(query).fetchall() == [(2, 9)]


def test_rows_that_do_not_fit_the_schema_are_refused(tmp_path: Path) -> None:
    lacking = row("a")
    del lacking["seed"]
    with RunFolder.open(str(tmp_path / "run"), CONFIG) as folder:
        with pytest.raises(ValueError, match="seed: missing in the row of 'a'"):
            folder.commit([lacking])
        with pytest.raises(ValueError, match="no such column: colour"):
            folder.commit([row("a", colour="red")])
        assert folder.committed() == set()


def test_foreign_files_are_passed_by(uri: str) -> None:
    with RunFolder.open(uri, CONFIG) as folder:
        folder.commit([row("a")])
        strangers = (
            "notes.txt",
            "ledger/notes.json",
            "completions/mine.parquet",
            "progress/x",
            ".DS_Store",
            ".my.tmp",
        )
        for name in strangers:
            folder.store.write(name, b"mine")
    with RunFolder.open(uri, CONFIG) as folder:
        assert folder.committed() == {("a", 0)}
        assert folder.progress().chains == {}
        for name in strangers:
            assert folder.store.read(name) == b"mine"


@pytest.fixture
def two_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "run"
    monkeypatch.setattr(ledger, "PART_BYTES", 1)
    with RunFolder.open(str(path), CONFIG) as folder:
        folder.commit([row("a"), row("b")])
        folder.commit([row("c")])
    return path


def both_refuse(path: Path) -> str:
    message = refusal(RunFolder.view, str(path))
    assert refusal(RunFolder.open, str(path), CONFIG) == message
    return message


@pytest.mark.parametrize(
    "content", [b"", b'{"rows": 2, "si', b"[]", b'{"rows": 1, "size": 9, "keys": []}', b"\xff"]
)
def test_a_torn_ledger_entry_is_named(two_parts: Path, content: bytes) -> None:
    entry = min((two_parts / "ledger").iterdir())
    entry.write_bytes(content)
    message = both_refuse(two_parts)
    assert f"ledger/{entry.name}: torn ledger entry" in message
    part = two_parts / "completions" / f"part-{entry.stem}.parquet"
    assert part.name in message
    # The remedy works.
    entry.unlink()
    part.unlink()
    with RunFolder.open(str(two_parts), CONFIG) as folder:
        assert folder.committed() == {("c", 0)}


def test_a_missing_or_cut_part_is_named(two_parts: Path) -> None:
    part = min((two_parts / "completions").iterdir())
    content = part.read_bytes()
    part.write_bytes(content[:-7])
    assert f"{part.name}: {len(content) - 7} bytes, not {len(content)}; restore it" in both_refuse(two_parts)
    part.unlink()
    message = both_refuse(two_parts)
    assert f"{part.name}: missing; restore it" in message
    assert message.endswith("to decode 2 rows again")


def test_a_changed_part_is_named(two_parts: Path) -> None:
    part = min((two_parts / "completions").iterdir())
    content = bytearray(part.read_bytes())
    middle = content.index(b"\x28\xb5\x2f\xfd")  # a zstd frame: data, not footer
    content[middle + 8] ^= 0xFF
    part.write_bytes(content)
    assert f"{part.name}: cannot be read" in refusal(lambda: RunFolder.view(str(two_parts)).read())


def test_a_row_in_two_parts_is_named(two_parts: Path) -> None:
    for folder, prefix, end in (("completions", "part-", ".parquet"), ("ledger", "", ".json")):
        first = min((two_parts / folder).iterdir())
        (two_parts / folder / f"{prefix}000009{end}").write_bytes(first.read_bytes())
    message = both_refuse(two_parts)
    assert "ledger/000009.json: torn ledger entry (is ledger/000001" in message
    (two_parts / "ledger/000009.json").unlink()
    with RunFolder.open(str(two_parts), CONFIG) as folder:
        assert folder.read(["problem_id"])["problem_id"].to_pylist() == ["a", "b", "c"]
    assert not (two_parts / "completions/part-000009.parquet").exists()


@pytest.mark.parametrize("lost", [(0,), (0, 1)])
def test_a_lost_ledger_entry_is_made_again_from_its_part(two_parts: Path, lost: tuple[int, ...]) -> None:
    entries = sorted((two_parts / "ledger").iterdir())
    for index in lost:
        entries[index].unlink()
    assert f"ledger/{entries[0].name}: missing; give the run's command again" in refusal(
        RunFolder.view, str(two_parts)
    )
    with RunFolder.open(str(two_parts), CONFIG) as folder:
        assert list(folder.in_order()) == [("a", 0), ("b", 0), ("c", 0)]
    assert list(RunFolder.view(str(two_parts)).in_order()) == [("a", 0), ("b", 0), ("c", 0)]


def test_the_last_part_is_missed_unless_it_was_only_begun(two_parts: Path) -> None:
    """Of a commit that a crash ended, an entry is left whose part was never there."""
    last = max((two_parts / "completions").iterdir())
    last.unlink()
    assert RunFolder.view(str(two_parts)).committed() == {("a", 0), ("b", 0)}
    with RunFolder.open(str(two_parts), CONFIG) as folder:
        folder.commit([row("c")])
        folder.write_json("metrics.json", {"accuracy/avg": 1.0})
    last.unlink()
    assert f"{last.name}: missing; restore it" in both_refuse(two_parts)
    (two_parts / "metrics.json").unlink()
    assert f"{last.name}: missing; restore it" in both_refuse(two_parts)


def test_what_is_no_run_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("mine: true")
    assert "not a run folder: it has config.yaml" in refusal(RunFolder.open, str(tmp_path), CONFIG)
    assert "no run here" in refusal(RunFolder.view, str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
    (tmp_path / "run.json").write_text('{"mine": true}')
    assert "not written by seer-ray" in refusal(RunFolder.open, str(tmp_path), CONFIG)
    (tmp_path / "run.json").write_text('{"mine": ')
    assert "run.json: torn" in refusal(RunFolder.open, str(tmp_path), CONFIG)


def test_a_folder_without_a_token_takes_new_settings(uri: str) -> None:
    """The first command had a bad option; the corrected one must not be refused for it."""
    with RunFolder.open(uri, CONFIG) as folder:
        first = folder.run_id
    with RunFolder.open(uri, RunConfig(seed=5)) as folder:
        assert folder.config["seed"] == 5
        assert "seed: 5" in folder.config_yaml
        assert folder.run_id != first
        folder.commit([row("a", 0)])
    with pytest.raises(ConfigError, match="other settings"):
        RunFolder.open(uri, RunConfig(seed=6))


def test_a_newer_format_is_refused(two_parts: Path) -> None:
    about = json.loads((two_parts / "run.json").read_text())
    newer = {**about, "version": 99, "written_by": "seer-ray 9.0"}
    (two_parts / "run.json").write_text(json.dumps(newer))
    assert "made by seer-ray 9.0 (format 99); upgrade" in both_refuse(two_parts)
    del newer["written_by"]
    (two_parts / "run.json").write_text(json.dumps(newer))
    assert "made by a newer seer-ray (format 99)" in both_refuse(two_parts)


def test_an_unwritable_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "results.folder: cannot write" in refusal(RunFolder.open, str(tmp_path / "file/run"), CONFIG)
    assert "Unrecognized filesystem type" in refusal(RunFolder.open, "nonsense://x/y", CONFIG)
    assert "secret" not in refusal(RunFolder.view, "nonsense://user:secret@x/y?key=secret")


def test_a_missing_config_is_written_again(two_parts: Path) -> None:
    file = two_parts / "config.yaml"
    for spoil in (file.unlink, lambda: file.write_text("seed: 1"), lambda: file.write_bytes(b"\xff")):
        spoil()
        RunFolder.open(str(two_parts), CONFIG).close()
        assert file.read_text() == to_yaml(CONFIG)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"seed: 1",
            "not what the job was begun with: seed: 1 here, 0 in the folder; .*; delete it to go on",
        ),
        (to_yaml(CONFIG).replace("workers: 2", "workers: 3").encode(), r"cluster\.workers: 3 here, 2 in the"),
        (to_yaml(CONFIG).encode()[:-40], "not what the job was begun with: .*; delete it"),
        (b"", "it is no list of options"),
        (b"[1", "it is no list of options"),
        (b"\xff", "missing or torn; delete it"),
    ],
)
def test_a_changed_config_is_not_resumed(two_parts: Path, content: bytes, said: str) -> None:
    """An edit would mix the rows of two settings, and so would a flipped bit."""
    (two_parts / "config.yaml").write_bytes(content)
    view = RunFolder.view(str(two_parts))
    with pytest.raises(ConfigError, match=rf"config\.yaml: .*{said}"):
        _ = view.config_yaml
    (two_parts / "config.yaml").unlink()
    assert view.config_yaml == to_yaml(CONFIG), "the remedy works"


@pytest.mark.parametrize("file", ["run.json", "dataset.json", "status.json", "metrics.json"])
def test_a_flipped_bit_in_a_small_file_is_named(two_parts: Path, file: str) -> None:
    """Each bit of it: it is refused by name, or says the same."""
    content = {"digest": "abc", "problems": 3, "speed/tokens_per_s": 1.5, "text": "é\ud800"}
    with RunFolder.open(str(two_parts), CONFIG) as folder:
        if file != "run.json":
            folder.write_json(file, content)
            assert folder.read_json(file) == content
            content = folder.read_json(file)
    about, whole = folder.about, (two_parts / file).read_bytes()
    for at in range(0, len(whole) * 8, 7):
        changed = bytearray(whole)
        changed[at // 8] ^= 1 << at % 8
        (two_parts / file).write_bytes(changed)
        try:
            view = RunFolder.view(str(two_parts))
            assert (view.about if file == "run.json" else view.read_json(file)) in (about, content)
        except ConfigError as error:
            assert f"/{file}: " in str(error) and "\n" not in str(error)


def test_a_file_of_another_run_or_another_name_is_named(two_parts: Path, tmp_path: Path) -> None:
    with RunFolder.open(str(tmp_path / "other"), CONFIG) as other:
        other.write_json("metrics.json", {"a": 1})
    with RunFolder.open(str(two_parts), CONFIG) as folder:
        folder.write_json("status.json", {"a": 1})
    (two_parts / "metrics.json").write_bytes((tmp_path / "other/metrics.json").read_bytes())
    assert "metrics.json: of another run than run.json" in refusal(folder.read_json, "metrics.json")
    (two_parts / "metrics.json").write_bytes((two_parts / "status.json").read_bytes())
    assert "metrics.json: is status.json under another name" in refusal(folder.read_json, "metrics.json")
    (two_parts / "metrics.json").write_text('{"a": 1}')
    assert "metrics.json: has no checksum" in refusal(folder.read_json, "metrics.json")


def test_a_flipped_bit_in_a_ledger_entry_is_named(two_parts: Path) -> None:
    """It was believed: a changed key doubled one row and lost another."""
    entry = min((two_parts / "ledger").iterdir())
    whole = entry.read_bytes()
    for at in range(len(whole) * 8):
        changed = bytearray(whole)
        changed[at // 8] ^= 1 << at % 8
        entry.write_bytes(changed)
        try:
            found = RunFolder.view(str(two_parts)).committed()
        except ConfigError as error:
            assert f"/ledger/{entry.name}: torn ledger entry" in str(error) or "another run" in str(error)
        else:
            assert found == {("a", 0), ("b", 0), ("c", 0)}


def test_a_flipped_bit_in_a_footer_is_named(two_parts: Path) -> None:
    """Pages have checksums of their own, the footer has none: only its digest tells."""
    first = min((two_parts / "completions").iterdir())
    content = bytearray(first.read_bytes())
    content[-20] ^= 1
    first.write_bytes(content)
    assert f"{first.name}: cannot be read (is not as it was written)" in both_refuse(two_parts)


def test_what_another_run_left_among_the_parts_is_named(two_parts: Path, tmp_path: Path) -> None:
    with RunFolder.open(str(tmp_path / "other"), CONFIG) as other:
        for problem in "xyz":
            other.commit([row(problem)])
    part, entry = (max((tmp_path / "other" / name).iterdir()) for name in ("completions", "ledger"))
    (two_parts / "completions" / part.name).write_bytes(part.read_bytes())
    assert f"{part.name}: of another run; move it away" in both_refuse(two_parts)
    (two_parts / "ledger" / entry.name).write_bytes(entry.read_bytes())
    assert f"ledger/{entry.name}: of another run than run.json" in both_refuse(two_parts)
