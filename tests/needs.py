"""Marks of tests that need what not every installation has; each says why it skips."""

from importlib.util import find_spec

import pytest

from fairseq_rnnprune.sparse import cpu

needs_kernels = pytest.mark.skipif(
    bool(cpu.unavailable_reasons()),
    reason="needs the native kernels: `make test` compiles them where there is g++ or clang++",
)
needs_triton = pytest.mark.skipif(
    not find_spec("triton"), reason="needs triton: pip install '.[triton]' (Linux only)"
)
