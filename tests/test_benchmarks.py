"""The benchmarks run, and their figures belong together; sizes here say nothing about speed."""

import json
import subprocess
import sys

import pytest


def test_pruning_cost(root, tmp_path):
    sizes = ["--hidden", "8", "--vocabulary", "20", "--batch", "2", "--time", "4", "--updates", "4"]
    sizes += ["--methods", "cubic", "lasso-ramp-4x4"]
    script = [sys.executable, str(root / "benchmarks" / "pruning_cost.py"), *sizes]
    done = subprocess.run([*script, "--results", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("h8-b2-s0", "h8-b2-lasso-ramp-4x4-s0"):
        figures = json.loads((tmp_path / f"{name}.json").read_text())["figures"]
        assert figures["mask_change_ms"] > 0 and figures["tokens_per_update"] == 8
        assert figures["pruned_ms"] == pytest.approx(
            (figures["while_ms"] + figures["after_ms"]) / 2
        )
        per_update = figures["pruned_ms"] + figures["mask_change_ms"] / 200
        assert figures["cost_percent"] == pytest.approx(
            100 * (per_update / figures["dense_ms"] - 1)
        )
