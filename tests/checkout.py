"""Makes the package importable from a working tree where it is not installed: ``import checkout``.

Not by the repository root on ``sys.path``: its ``kernels`` must never be a top-level module.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

if find_spec("seer_ray") is None:
    sys.path.insert(0, str(ROOT))

    sys.path.remove(str(ROOT))
else:
    pass
