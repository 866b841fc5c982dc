"""Where and with what a figure was measured."""

import os
import subprocess
from pathlib import Path

import pytest
import torch

from fairseq_rnnprune import provenance


@pytest.mark.parametrize("said, threads", [("3", 3), ("4,2", 4), ("", None), ("many", None)])
def test_threads_that_openmp_is_asked_for(said, threads):
    assert provenance.threads_in({"OMP_NUM_THREADS": said}) == (threads or os.cpu_count())


def test_a_package_inside_another_repository_has_no_commit(tmp_path, monkeypatch):
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "theirs"]):
        names = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *names, *command], check=True)
    copy = tmp_path / "venv" / "fairseq_rnnprune" / "provenance.py"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(Path(provenance.__file__).read_bytes())
    monkeypatch.setattr(provenance, "__file__", str(copy))
    assert provenance.commit() == "unknown"


def test_a_result_names_the_gpu_that_torch_finds(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "gpu" not in provenance.machine()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GPU of a test")
    assert provenance.machine()["gpu"] == "GPU of a test"


def test_a_virtual_processor_is_known_by_its_family():
    x86 = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 2\n" + (
        "model name\t: AMD EPYC\nstepping\t: 1\n"
    )
    found = {"processor": "AMD EPYC", "family": "26", "model": "2"}
    assert provenance.processor_in(2 * x86) == found
    assert provenance.processor_in("processor\t: 0\nCPU architecture: 8\n") == {}
