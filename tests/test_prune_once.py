"""examples/comparison/prune_once.py: losses of a trained model, pruned without training on."""

import json
import logging
import sys

import pytest
import torch
from example_scripts import load_script
from fairseq_runs import run_train


@pytest.fixture
def script(monkeypatch):
    script = load_script("comparison/prune_once.py")
    monkeypatch.setattr(script, "SHAPES", ((1, 1), (2, 2)))
    monkeypatch.setattr(script, "POWERS", (0, 0.5))
    monkeypatch.setattr(script, "SPARSITIES", (0.5, 0.9))
    logger = logging.getLogger("fairseq_rnnprune")
    level = logger.level
    yield script
    # Which the script has made silent; other tests read what it says.
    logger.setLevel(level)


def test_every_setting_starts_from_the_dense_weights(script, data, tmp_path, monkeypatch):
    run_train(data, tmp_path, "--optimizer", "adam")
    results = tmp_path / "results.jsonl"
    options = ("--data", str(data), "--name", "tiny", "--results", str(results))
    pruned = []
    prune = script.TrainedModel.prune

    def spy(trained, *arguments, **named):
        prune(trained, *arguments, **named)
        weights = torch.cat([weight.detach().flatten() for _, weight in trained.weights])
        pruned.append((arguments[0], int((weights == 0).sum()) / weights.numel()))

    monkeypatch.setattr(script.TrainedModel, "prune", spy)
    arguments = ["prune_once", str(tmp_path / "checkpoint_last.pt"), *options]
    monkeypatch.setattr(sys, "argv", arguments)
    script.main()
    # Masks only shrink: after 90 %, half could not come back but from the dense weights.
    assert [found for _, found in pruned] == pytest.approx([asked for asked, _ in pruned], abs=0.02)
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    axes = [tuple(row["axes"].values()) for row in rows]
    assert len(set(axes)) == len(axes) == 8 and axes[0] == ("tiny", "1x1", "uniform", 0, 1)
    losses = [row["figures"] for row in rows]
    assert len({loss["loss_0"] for loss in losses}) == 1
    assert len({loss["loss_90"] for loss in losses}) == 8
