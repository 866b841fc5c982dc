"""Dropout that follows the density of a model."""

import pytest
import torch
from fairseq.modules import FairseqDropout
from fairseq_runs import PRUNED, run_train
from omegaconf import OmegaConf
from torch import nn

import fairseq_rnnprune.plugin  # noqa: F401
from fairseq_rnnprune.optim.pruned import PrunedOptimizer, PrunedOptimizerConfig
from fairseq_rnnprune.pruning import FollowingDropout, tag_prunable


def network() -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "embedding": FairseqDropout(0.4, "embedding"),
            "gru": nn.GRU(8, 8, num_layers=2, dropout=0.2),
            "output": nn.Sequential(nn.Dropout(0.1), nn.Linear(8, 8), nn.Dropout(0.0)),
        }
    )


def rates(model: nn.ModuleDict) -> list[float]:
    return [model["embedding"].p, model["gru"].dropout, model["output"][0].p, model["output"][2].p]


def test_all_rates_follow_the_density_and_come_back():
    model = network()
    dropout = FollowingDropout(model, 0.5)
    dropout.follow(0.25)
    assert rates(model) == pytest.approx([0.2, 0.1, 0.05, 0.0])
    dropout.follow(1.0)
    assert rates(model) == [0.4, 0.2, 0.1, 0.0]


def test_a_power_of_0_changes_nothing():
    model = network()
    FollowingDropout(model, 0.0).follow(0.1)
    assert rates(model) == [0.4, 0.2, 0.1, 0.0]


@pytest.mark.parametrize("power", [-0.5, float("nan"), float("inf")])
def test_a_strange_power_is_refused(power):
    with pytest.raises(ValueError, match="expected a power that is 0 or more, got"):
        FollowingDropout(network(), power)


def test_what_is_dropped_is_what_the_rate_says():
    model = network().train()
    FollowingDropout(model, 1.0).follow(0.0)
    x = torch.ones(64, 8)
    assert torch.equal(model["embedding"](x), x)


def test_a_pruned_training_has_less_dropout(data, tmp_path):
    options = (*PRUNED, "--dropout", "0.4")
    constant = run_train(data, tmp_path / "constant", *options)
    less = run_train(data, tmp_path / "less", *options, "--prune-dropout-power", "0.5")
    name = "decoder.gru.weight_hh_l0"
    assert not torch.equal(constant["model"][name], less["model"][name])


def test_a_model_without_dropout_is_told(data, tmp_path, caplog):
    run_train(data, tmp_path, *PRUNED, "--dropout", "0", "--prune-dropout-power", "0.5")
    assert "--prune-dropout-power 0.5: this model has no dropout" in caplog.text


def optimizer_of(model):
    tag_prunable(model)
    owned = {"lr": [0.1], "tpu": False, "max_update": 4, "max_epoch": 0}
    once = {"prune_schedule": "hard", "prune_start": "0", "prune_sparsity": "0.75"}
    structured = OmegaConf.structured(PrunedOptimizerConfig)
    cfg = OmegaConf.merge(structured, owned, once, {"prune_dropout_power": 0.5})
    optimizer = PrunedOptimizer(cfg, model.parameters())
    optimizer.adjust_dropout(model)
    return optimizer


def test_dropout_goes_by_saved_masks_and_by_zeros_where_there_are_none():
    model, resumed, sparse = (nn.GRU(8, 8, num_layers=2, dropout=0.2) for _ in range(3))
    optimizer = optimizer_of(model)
    model(torch.randn(3, 2, 8))[0].sum().backward()
    optimizer.step()
    assert model.dropout == pytest.approx(0.1, abs=0.001)
    # Of weights that are still dense.
    optimizer_of(resumed).load_state_dict(optimizer.state_dict())
    assert resumed.dropout == model.dropout
    sparse.load_state_dict(model.state_dict())
    optimizer_of(sparse).start([])
    assert sparse.dropout == model.dropout
