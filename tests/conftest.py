"""What every test has: no network."""

import os

# Before transformers is imported anywhere: a test that would reach for the hub fails instead of hanging.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
