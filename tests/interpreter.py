"""For tests that run Triton kernels on the CPU: ``from interpreter import need_interpreter``."""

from __future__ import annotations

import numpy
import pytest


def need_interpreter() -> None:
    """Skip the calling module, with the reason, where kernels cannot be interpreted."""
    pytest.importorskip("triton", reason="triton is not installed")
    from triton import knobs
    from triton.language import sum as a_function_of_the_language
    from triton.runtime.interpreter import InterpretedFunction

    if tuple(map(int, numpy.__version__.split(".")[:2])) >= (2, 4):
        pytest.skip("numpy 2.4 breaks loops of the Triton interpreter", allow_module_level=True)
    if not (knobs.runtime.interpret and isinstance(a_function_of_the_language, InterpretedFunction)):
        pytest.skip("no TRITON_INTERPRET=1 when triton was imported: tests/gpu", allow_module_level=True)
