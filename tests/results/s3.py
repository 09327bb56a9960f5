"""A local S3, and what may happen to its requests: ``from results.s3 import serving``."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

from seer_ray.results.s3 import S3Store

CHANGES = ("put_object", "delete_objects")
"""Requests that change what is there."""


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """An S3 on loopback: the address of a run's folder, with a place for its name."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        client = boto3.client(
            "s3",
            endpoint_url=f"http://{host}:{port}",
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )
        client.create_bucket(Bucket="bucket")
        yield f"s3://key:secret@bucket/{{}}?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    finally:
        server.stop()


class Requests:
    """Counts the changes that a store asks for; at number ``at``, something happens first.

    Args:
        store: of one process.
        happens: instead of the request, which it is given.
    """

    def __init__(self, store: S3Store, at: int, happens: Callable[[Callable[[], Any]], Any]) -> None:
        self.at, self.count, self.happened = at, 0, False
        real = store._call

        def call(request: Callable[..., Any], name: str, **options: Any) -> Any:
            def ask() -> Any:
                return real(request, name, **options)

            if request.__name__ not in CHANGES:
                return ask()
            number, self.count = self.count, self.count + 1
            if number != self.at:
                return ask()
            self.happened = True
            return happens(ask)

        store._call = call  # type: ignore[method-assign]
