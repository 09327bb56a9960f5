"""A sweep folder: its settings, and an index of the run folders of its points."""

from __future__ import annotations

import json
import uuid
from typing import Any

from seer_ray.config.compose import to_yaml
from seer_ray.config.identity import Identity, plain
from seer_ray.config.options import SweepConfig
from seer_ray.config.secrets import redacted
from seer_ray.results.base import CONFIG, RESTORE, Folder
from seer_ray.results.seal import seal
from seer_ray.results.store import Store, join

INDEX = "sweep.json"
POINTS = "points"


class SweepFolder(Folder):
    """Points are ordinary run folders below.

    ``sweep.json`` holds ``points`` (a list of mappings with ``slug``, ``overrides``, ``baseline``, ``plan``,
    ``state``, ``error`` and more: see ``sweeps.monitor``) and what identifies the sweep. A sweep may get
    other points: ``sweeps.points.merged`` says what must stay.
    """

    mark, folders, fixed = INDEX, (POINTS,), False
    keys = frozenset({"version", "sweep_id", "points"})

    @classmethod
    def _about(cls, identity: Identity) -> dict[str, Any]:
        return {"sweep_id": uuid.uuid4().hex, "config": identity.config, "points": []}

    @classmethod
    def _unused(cls, store: Store) -> bool:
        return not any(
            point.get("rows") for point in (store.read_json(INDEX, RESTORE) or {}).get("points", ())
        )

    @property
    def run_id(self) -> str:
        """Of this folder, for life."""
        return str(self.about["sweep_id"])

    @property
    def config(self) -> dict[str, Any]:
        """Resolved options of the sweep."""
        import yaml

        return self.about["config"] if self.sealed else yaml.safe_load(self.config_yaml)

    @property
    def points(self) -> list[dict[str, Any]]:
        """The points, as the index tells."""
        return list(self.about["points"])

    def write_config(self, config: SweepConfig) -> None:
        """The options with all points spelled out."""
        self._writing()
        if self.sealed:
            self._note(config=plain(config))
        self.store.write(CONFIG, to_yaml(config).encode())

    def write_points(self, points: list[dict[str, Any]]) -> None:
        """Bring the index up to date."""
        self._writing()
        self._note(points=points)

    def _note(self, **news: Any) -> None:
        about = redacted({**self.about, **news})
        self.about = seal(about) if self.sealed else about
        self.store.write(INDEX, json.dumps(self.about, indent=1).encode())


def point_uri(uri: str, slug: str) -> str:
    """The run folder of a point, given its sweep's."""
    return join(join(uri, POINTS), slug)
