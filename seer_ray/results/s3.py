"""A folder on S3, or what speaks like it: no renames, but writes that fail if another came between."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import pyarrow as pa

from seer_ray.config.errors import ConfigError
from seer_ray.results.store import ABSENT, Conflict, Store, shown

READ_AHEAD = 1 << 20
DELETE_AT_ONCE = 1000
CONFLICTS = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
GONE = ("NoSuchKey", "NotFound", "404")
OPTIONS = ("endpoint_override", "region", "scheme")
"""That a URI may have after ``?``, as pyarrow's have them."""

T = TypeVar("T")


class S3Store(Store):
    """Objects under a prefix of a bucket. Credentials and regions are found as by every AWS tool.

    An object's tag is its ETag. ``put`` is one request, which the store refuses if the tag is another
    (``If-Match``, ``If-None-Match``): a process that was asleep cannot write over what came since.

    Args:
        uri: for messages, without secrets.
        client: of boto3.
        bucket: that exists.
        prefix: of all names, without a slash at its end.
    """

    conditional = True

    def __init__(self, uri: str, client: Any, bucket: str, prefix: str) -> None:
        self.uri, self.root = uri, prefix
        self._client, self._bucket = client, bucket

    @classmethod
    def at(cls, uri: str) -> S3Store:
        """``s3://[key:secret@]bucket/path[?region=..&endpoint_override=..&scheme=http]``.

        Raises:
            ConfigError: no such address, or boto3 is not installed.
        """
        try:
            import boto3
            from botocore.config import Config
        except ImportError:
            raise ConfigError(
                f"results.folder={shown(uri)}: S3 needs boto3; pip install 'seer-ray[s3]'"
            ) from None
        parts = urlsplit(uri)
        options = dict(parse_qsl(parts.query))
        if not parts.hostname or (unknown := set(options) - set(OPTIONS)):
            wrong = f"?{sorted(unknown)[0]}" if parts.hostname else "no bucket"
            raise ConfigError(
                f"results.folder={shown(uri)}: {wrong}; must be s3://bucket/path, with {', '.join(OPTIONS)} "
                "after ? if need be"
            )
        endpoint = options.get("endpoint_override")
        if endpoint and "://" not in endpoint:
            endpoint = f"{options.get('scheme', 'https')}://{endpoint}"
        client = boto3.client(
            "s3",
            region_name=options.get("region"),
            endpoint_url=endpoint,
            aws_access_key_id=unquote(parts.username) if parts.username else None,
            aws_secret_access_key=unquote(parts.password) if parts.password else None,
            # Whoever writes rows tries again for as long as it takes, and has other work meanwhile.
            config=Config(
                retries={"max_attempts": 3, "mode": "standard"}, connect_timeout=10, read_timeout=30
            ),
        )
        return cls(shown(uri).rstrip("/"), client, parts.hostname, parts.path.strip("/"))

    def open(self, name: str) -> pa.NativeFile:
        head = self._ask(self._client.head_object, name)
        whole = _Object(self, name, head["ContentLength"], head["ETag"])
        return pa.PythonFile(io.BufferedReader(whole, READ_AHEAD), mode="r")

    def read(self, name: str) -> bytes:
        return self.read_tagged(name)[0]

    def read_tagged(self, name: str) -> tuple[bytes, str]:
        """A small file and its tag. Raises FileNotFoundError."""
        answer = self._ask(self._client.get_object, name)
        return self._body(answer), answer["ETag"]

    def read_range(self, name: str, tag: str, start: int, size: int) -> bytes:
        """Bytes of an object that still has this tag. Raises Conflict, FileNotFoundError, OSError."""
        where = f"bytes={start}-{start + size - 1}"
        return self._body(self._ask(self._client.get_object, name, IfMatch=tag, Range=where))

    def list(self, folder: str = "") -> dict[str, int]:
        return {name: found["Size"] for name, found in self._list(folder)[0].items()}

    def tags(self, folder: str = "") -> dict[str, str]:
        return {name: found["ETag"] for name, found in self._list(folder)[0].items()}

    def folders(self) -> set[str]:
        return self._list("")[1]

    def tag(self, name: str) -> str:
        try:
            return str(self._ask(self._client.head_object, name)["ETag"])
        except FileNotFoundError:
            return ABSENT

    def make_folder(self, folder: str = "") -> None:
        """There are none."""

    def write(self, name: str, data: bytes | pa.Buffer) -> None:
        self._ask(self._client.put_object, name, Body=_bytes(data))

    def put(self, name: str, data: bytes | pa.Buffer, tag: str) -> str:
        only = {"IfMatch": tag} if tag != ABSENT else {"IfNoneMatch": "*"}
        try:
            return str(self._ask(self._client.put_object, name, Body=_bytes(data), **only)["ETag"])
        except FileNotFoundError as error:
            raise Conflict(f"{self.locate(name)}: another process has deleted it") from error

    def delete(self, names: Iterable[str]) -> None:
        keys = [{"Key": self._key(name)} for name in names]
        for start in range(0, len(keys), DELETE_AT_ONCE):
            some = {"Objects": keys[start : start + DELETE_AT_ONCE], "Quiet": True}
            answer = self._call(self._client.delete_objects, "", Bucket=self._bucket, Delete=some)
            for error in answer.get("Errors", ()):
                raise OSError(f"{self.uri}: cannot delete {error['Key']}: {error.get('Code')}")

    def _list(self, folder: str) -> tuple[dict[str, dict[str, Any]], set[str]]:
        """Objects and folders by name."""
        prefix = f"{self._key(folder)}/".lstrip("/")
        found: dict[str, dict[str, Any]] = {}
        folders: set[str] = set()
        more: dict[str, str] = {}
        while True:
            where = {"Bucket": self._bucket, "Prefix": prefix, "Delimiter": "/"}
            answer = self._call(self._client.list_objects_v2, folder, **where, **more)
            for item in answer.get("Contents", ()):
                if name := item["Key"].removeprefix(prefix):
                    found[name] = item
            for item in answer.get("CommonPrefixes", ()):
                folders.add(item["Prefix"].removeprefix(prefix).rstrip("/"))
            if not answer.get("IsTruncated"):
                return found, folders
            more = {"ContinuationToken": answer["NextContinuationToken"]}

    def _key(self, name: str) -> str:
        return f"{self.root}/{name}".strip("/")

    def _ask(self, request: Callable[..., Any], name: str, **options: Any) -> Any:
        return self._call(request, name, Bucket=self._bucket, Key=self._key(name), **options)

    def _body(self, answer: Any) -> bytes:
        return bytes(self._call(answer["Body"].read, ""))

    def _call(self, request: Callable[..., T], name: str, **options: Any) -> T:
        """Raises OSError and its kin in place of the client's own."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return request(**options)
        except ClientError as error:
            said = error.response.get("Error", {})
            code, where = str(said.get("Code")), self.locate(name)
            if code in GONE:
                raise FileNotFoundError(f"{where}: not there") from error
            if code in CONFLICTS:
                raise Conflict(f"{where}: another process has written it") from error
            raise OSError(f"{where}: the store says {code} ({said.get('Message', '')})") from error
        except BotoCoreError as error:
            raise OSError(f"{self.locate(name)}: the store cannot be reached ({error})") from error


class _Object(io.RawIOBase):
    """An object as it was when it was opened, read in ranges."""

    def __init__(self, store: S3Store, name: str, size: int, tag: str) -> None:
        self._store, self._name, self._size, self._tag, self._at = store, name, size, tag, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self._size - self._at)
        if size <= 0:
            return 0
        data = self._store.read_range(self._name, self._tag, self._at, size)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _bytes(data: bytes | pa.Buffer) -> bytes:
    return data if isinstance(data, bytes) else data.to_pybytes()
