"""How a job stands, followed until it ends where that is asked for."""

from __future__ import annotations

import dataclasses
import time

from seer_ray.cli.terminal import console, print_json

INTERVAL = 1.0
"""Seconds between two looks at a folder."""


def show_status(uri: str, as_json: bool, watch: bool) -> None:
    """How the job in a folder stands; ``watch``: once it runs no more."""
    from seer_ray.cli.display.views import view_of
    from seer_ray.status.read import read_status

    now = read_status(uri)
    view = view_of(now.command)
    if watch and now.state == "running":
        follower = view.follower(console(stderr=True), None, now.name)
        follower.start(now.live)
        try:
            while now.state == "running":
                follower.update(now.live)
                time.sleep(INTERVAL)
                now = read_status(uri)
        finally:
            follower.close()
    if as_json:
        print_json({**dataclasses.asdict(now), "message": now.message})
    else:
        view.print_status(console(), now)
