"""A real MLflow server in this process, on a loopback port, that can be made to behave badly.

``tests/`` is on ``sys.path`` of every test: ``from mlflow_server import Server``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

Mode = Literal["well", "slow", "silent", "read-only", "broken"]
PACE = 1.0
"""Seconds that a slow server takes for an answer."""


class Server:
    """Serves from now on; usable as a context manager.

    ``mode`` may be changed at any time: ``slow`` answers after a second, ``silent`` takes requests and never
    answers, ``read-only`` refuses with 403 whatever would write, ``broken`` answers 500 to everything.
    """

    def __init__(self, folder: Path) -> None:
        """Args: folder: for its database and artifacts."""
        from mlflow.server import app
        from mlflow.server.handlers import initialize_backend_stores
        from werkzeug.serving import make_server

        initialize_backend_stores(
            f"sqlite:///{folder}/mlflow.db", default_artifact_root=(folder / "artifacts").as_uri()
        )
        self.mode: Mode = "well"
        self.answered = 0
        """Requests that MLflow itself has answered."""
        self.held = 0
        """Requests that a silent server has taken."""
        self._app = app
        self._http = make_server("127.0.0.1", 0, self._serve, threaded=True)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, name="mlflow-server", daemon=True).start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.mode = "broken"
        self._http.shutdown()

    def _serve(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        if self.mode == "silent":
            self.held += 1
            while self.mode == "silent":
                time.sleep(0.02)
        if self.mode == "slow":
            time.sleep(PACE)
        reads = environ["REQUEST_METHOD"] == "GET" or environ["PATH_INFO"].endswith("/search")
        if self.mode == "broken" or (self.mode == "read-only" and not reads):
            status = "500 Internal Server Error" if self.mode == "broken" else "403 Forbidden"
            start(status, [("Content-Type", "text/plain")])
            return [b"not now"]
        self.answered += 1
        return self._app(environ, start)
