"""What is a secret in a text, what is not, and how it comes back."""

from __future__ import annotations

import pytest

from seer_ray.config import secrets
from seer_ray.config.errors import ConfigError, JobError, one_line
from seer_ray.config.options import RunConfig, SweepConfig
from seer_ray.config.reveal import reveal
from seer_ray.config.secrets import hidden, redacted, remember


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_met", {})
    monkeypatch.setattr(secrets, "_values", set())


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("http://user:hunter2@host:5000/mlflow", "http://***@host:5000/mlflow"),
        ("https://hunter2@host/x", "https://***@host/x"),
        ("http://user:hun@ter2@host/a", "http://***@host/a"),
        ("http://user:hun/ter2@host/a", "http://***@host/a"),
        ("http://user:hun?ter2#@host/a", "http://***@host/a"),
        ("http://:hunter2@host", "http://***@host"),
        ("postgresql+psycopg2://me:hunter2@db:5432/mlflow", "postgresql+psycopg2://***@db:5432/mlflow"),
        ("mysql://me:hun%2Fter2@db/x", "mysql://***@db/x"),
        ("s3://KEY:hunter2@bucket/runs?region=eu", "s3://***@bucket/runs?region=eu"),
        ("s3://KEY:hun/ter2+=@bucket/runs", "s3://***@bucket/runs"),
        (
            "s3://b/r?access_key=KEY&secret_key=hunter2&region=eu",
            "s3://b/r?access_key=***&secret_key=***&region=eu",
        ),
        ("https://h/f.jsonl?X-Amz-Signature=hunter2&x=1", "https://h/f.jsonl?X-Amz-Signature=***&x=1"),
        (
            "https://acc.blob.core.windows.net/c/f?sv=2024&sig=hunter2%3D",
            "https://acc.blob.core.windows.net/c/f?sv=2024&sig=***",
        ),
        ("https://h/f?token=hunter2#part", "https://h/f?token=***#part"),
        ("https://h/f?API_KEY=hunter2", "https://h/f?API_KEY=***"),
        ("abfs://container:hunter2@acc/x", "abfs://***@acc/x"),
        ("model hf_hunterhunterhunter2222 here", "model *** here"),
        ("key AKIAHUNTERHUNTERHUNT.", "key ***."),
        ("a http://u:hunter2@h, b 's3://k:hunter2@b/x'", "a http://***@h, b 's3://***@b/x'"),
    ],
)
def test_secrets_leave_what_is_kept(text: str, kept: str) -> None:
    assert redacted(text) == kept
    assert redacted(kept) == kept, "twice is once"
    assert redacted({"a": [text, {"b": text}], "c": 1}) == {"a": [kept, {"b": kept}], "c": 1}


@pytest.mark.parametrize(
    "text",
    [
        *("runs", "sqlite:////data/a b/mlflow.db", "http://localhost:5000", "http://[::1]:5000/x"),
        *("s3://bucket/runs?region=eu&endpoint_override=localhost:9000", "gs://bucket/a@b", "me@example.org"),
        *(
            "abfs://container@account.dfs.core.windows.net/x",
            "hdfs://user@namenode:8020/x",
            "ssh://git@host/x",
        ),
        *("file:///a/key=1/b", "https://h/?tokenizer=x&author=me", "Qwen/Qwen3-8B", "http://host:80/a@b", ""),
        *("what is 1:2@3? see a://b", "${model.name}", "data/*.jsonl", "hf_short"),
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == hidden(text) == text


def test_what_is_said_has_no_secret_that_was_met() -> None:
    remember({"tracking": {"uri": "http://me:hun%2Fter2@host"}, "data": ["s3://AKEYID:s3cr3t@b/x"]})
    said = hidden("password hun/ter2 (hun%2Fter2) of me refused; AKEYID s3cr3t s3cr3ts xs3cr3t")
    assert said == "password *** (***) of me refused; *** *** s3cr3ts xs3cr3t"


@pytest.mark.parametrize(
    "variable",
    [
        *("HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY"),
        *("AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN", "OPENAI_API_KEY", "HUGGING_FACE_HUB_TOKEN"),
    ],
)
def test_secrets_of_the_environment_are_not_said(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "hunter2hunter2")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "parallel")
    assert hidden("401 for hunter2hunter2, parallel") == "401 for ***, parallel"
    for error in (ConfigError("no: hunter2hunter2"), JobError("no: hunter2hunter2")):
        assert str(error) == "no: ***"
    assert one_line(OSError("hunter2hunter2")) == "***"


def test_a_uri_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@host")
    assert hidden("hunter2 at http://me:hunter2@host") == "*** at http://***@host"


def test_what_a_folder_does_not_keep_is_given_again() -> None:
    config = RunConfig()
    config.tracking.uri, config.task.data = "http://***@host", "s3://***@b/x?a=1"
    remember(["http://me:hunter2@host", "s3://k:hunter2@b/x?a=1"])
    reveal(config, "runs/x")
    assert (config.tracking.uri, config.task.data) == ("http://me:hunter2@host", "s3://k:hunter2@b/x?a=1")
    sweep = SweepConfig()
    sweep.sweep.points = [{"task.data": "s3://***@b/x?a=1"}]
    reveal(sweep, "runs/x")
    assert sweep.sweep.points == [{"task.data": "s3://k:hunter2@b/x?a=1"}]


@pytest.mark.parametrize(
    ("option", "value", "variables", "comes_back"),
    [
        (
            "tracking.uri",
            "http://***@host",
            {"MLFLOW_TRACKING_URI": "http://a:hunter2@host"},
            "http://a:hunter2@host",
        ),
        (
            "tracking.uri",
            "https://***@host/m",
            {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "hunter2"},
            "https://host/m",
        ),
        (
            "task.data",
            "s3://***@b/x",
            {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "hunter2"},
            "s3://b/x",
        ),
        ("tracking.uri", "postgresql://***@db/x", {}, None),
        ("tracking.uri", "http://***@host", {"MLFLOW_TRACKING_URI": "http://a:hunter2@other"}, None),
        ("task.data", "https://h/x?token=***", {}, None),
        ("model.name", "https://***@h/x", {}, None),
        ("task.prompt", "*** {question}", {}, "*** {question}"),
    ],
)
def test_or_stands_in_the_environment(
    option: str,
    value: str,
    variables: dict[str, str],
    comes_back: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, setting in variables.items():
        monkeypatch.setenv(name, setting)
    config = RunConfig()
    section, name = option.split(".")
    setattr(getattr(config, section), name, value)
    if comes_back is not None:
        reveal(config, "runs/x")
        assert getattr(getattr(config, section), name) == comes_back
        return
    with pytest.raises(
        ConfigError, match=rf"^{option}=.*\*\*\*.*its secret is not kept in runs/x; give {option}"
    ):
        reveal(config, "runs/x")
