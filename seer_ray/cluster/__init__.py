"""From requests to completions on a Ray cluster: who decodes what, and what happens when somebody dies."""

from __future__ import annotations
