"""What every test has: no network, Triton kernels that need no GPU, Ctrl-C, and examples at any speed."""

import os
import signal
from pathlib import Path

from hypothesis import settings

settings.register_profile("any speed", deadline=None)
settings.load_profile("any speed")

# A shell starts background jobs with SIGINT ignored, and so would be every process that a test sends one.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Before transformers is imported anywhere: a test that would reach for the hub fails instead of hanging.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Before triton is imported anywhere. With a GPU, tests/gpu runs the same checks on it.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")
