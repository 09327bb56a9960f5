"""Files from the Hugging Face hub: its cache first, one short question when there is a network."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from seer_ray.config.errors import ConfigError, first_line


def download(name: str, patterns: list[str], option: str, revision: str | None = None) -> Path:
    """Local folder with the files of a repository that match ``patterns``.

    Args:
        name: hub id.
        patterns: shell patterns of file names.
        option: ``model.name=...``, for errors.
        revision: branch, tag or commit; None: the default branch.

    Raises:
        ConfigError: no such repository, no access, or no network and not in the cache.
    """
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except GatedRepoError:
        reason = "is gated: accept its terms on the hub and log in with `hf auth login`"
    except RepositoryNotFoundError:
        reason = "is not on the Hugging Face hub, or private"
    except RevisionNotFoundError:
        reason = f"has no revision {revision}"
    except Exception as error:  # network, proxy, disk, offline mode: many types, one consequence
        reason = f"is not in the local cache, and the hub did not answer ({first_line(error)})"
    raise ConfigError(f"{option}: no such file or folder here, and as a hub id it {reason}")
