"""Passwords and keys: out of everything that is written or said.

``redacted`` is for what is kept (options, parameters, JSON files): user and password of a URI, values of its
options that are called like keys, and tokens of well-known forms become ``***``. ``hidden`` is for what is
said (messages, logs): it also takes out, wherever they stand, the secrets that this process has met in its
options and those of its environment. ``config.reveal`` puts back what a folder does not keep.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"
SHORTEST = 6
"""Characters of a secret that is taken out wherever it stands: shorter ones would take words along."""

_QUOTES = "'\"<>`"
_URI = re.compile(rf"([A-Za-z][A-Za-z0-9+.-]*)://([^\s/?#{_QUOTES}]+)@")
_ODD = re.compile(rf"([A-Za-z][A-Za-z0-9+.-]*)://([^\s/?#@:{_QUOTES}]+:(?!\d+(?:[/?#\s]|$))[^\s{_QUOTES}]*)@")
"""A password with / ? or # in it, which no URI may have and people type."""
_NAMED = r"[^=&#\s]*(?:key|secret|token(?!iz)|passw|pwd|sig|credential|auth(?!or))[^=&#\s]*"
_OPTION = re.compile(rf"([?&;]{_NAMED}=)([^&#\s{_QUOTES}]+)", re.IGNORECASE)
_TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|gh[opsu]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|(?:AKIA|ASIA)[A-Z0-9]{16}|"
    r"sk-[A-Za-z0-9-]{20,})"
)
_NAMES_ONLY = ("abfs", "abfss", "wasb", "wasbs", "hdfs", "viewfs", "ssh", "sftp", "scp")
"""Where what stands before @ is a container or a user, unless there is a colon in it."""
_VARIABLE = re.compile(
    r"(?:^|_)(?:TOKEN|PASSWORD|PASSWD|SECRET|SECRET_KEY|ACCESS_KEY|ACCESS_KEY_ID|API_KEY|PRIVATE_KEY|"
    r"ACCOUNT_KEY|CREDENTIALS?)$",
    re.IGNORECASE,
)

_met: dict[str, str] = {}
"""What stands in its place -> a text with secrets."""
_values: set[str] = set()


def redacted(value: Any) -> Any:
    """Text or nested data, with ``***`` in place of the secrets that show as such. Twice is once."""
    if isinstance(value, str):
        if "://" in value:
            value = _OPTION.sub(lambda match: match[1] + HIDDEN, value)
            value = _ODD.sub(_without_user, _URI.sub(_without_user, value))
        return _TOKEN.sub(HIDDEN, value)
    return mapped(redacted, value)


def hidden(value: Any) -> Any:
    """The same for what is said: secrets that are known leave, wherever they stand."""
    if isinstance(value, str):
        text = redacted(value)
        for secret in sorted(_values.union(_of_environment()), key=len, reverse=True):
            if secret in text:
                text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)
        return text
    return mapped(hidden, value)


def has_secret(text: str | None) -> bool:
    return text is not None and redacted(text) != text


def remember(value: Any) -> None:
    """Notes the secrets in options, so that ``hidden`` knows them and ``revealed`` finds them."""
    for text in _texts(value):
        if has_secret(text):
            _met[redacted(text)] = text
            _values.update(_parts(text))


def revealed(text: str) -> str:
    """What a text was before it was redacted, if this process or its environment knows; else as it is."""
    if HIDDEN not in text:
        return text
    from_environment = (value for value in os.environ.values() if value != text and redacted(value) == text)
    return _met.get(text) or next(from_environment, text)


def _without_user(match: re.Match[str]) -> str:
    scheme, user = match[1], match[2]
    keep = scheme.lower() in _NAMES_ONLY and ":" not in user
    return match[0] if keep else f"{scheme}://{HIDDEN}@"


def _parts(text: str) -> Iterator[str]:
    """The secrets in a text, as they stand there and decoded."""
    for match in (*_URI.finditer(text), *_ODD.finditer(text)):
        if _without_user(match) != match[0]:
            user, colon, password = match[2].partition(":")
            # A user's name is no secret where there is a password; a key's name is.
            shown = colon and not match[1].lower().startswith(("s3", "gs", "gcs"))
            yield from _forms(password, "" if shown else user)
    yield from _forms(*(match[2] for match in _OPTION.finditer(text)))
    yield from _TOKEN.findall(text)


def _forms(*secrets: str) -> Iterator[str]:
    for secret in secrets:
        for form in (secret, unquote(secret)):
            if len(form) >= SHORTEST and form != HIDDEN:
                yield form


def _of_environment() -> set[str]:
    found: set[str] = set()
    for name, value in os.environ.items():
        if _VARIABLE.search(name):
            found.update(_forms(value))
        elif "://" in value and has_secret(value):
            found.update(_parts(value))
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)


def mapped(action: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, dict):
        return {name: action(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(action, value)) if type(value) in (list, tuple) else list(map(action, value))
    return value
