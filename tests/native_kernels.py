"""What tests of the native kernels need: an installation that has compiled them."""

import pytest

from fairseq_rnnprune.sparse import cpu

needs_kernels = pytest.mark.skipif(
    bool(cpu.unavailable_reasons()), reason="the native kernels were not compiled"
)
