"""Options of `--optimizer pruned` that cannot be meant so are refused at the start."""

import pytest
from fairseq.dataclass.configs import FairseqConfig
from fairseq_runs import PRUNED, run_train
from omegaconf import OmegaConf
from torch import nn

from fairseq_rnnprune.optim.options import PruningOptions
from fairseq_rnnprune.optim.pruned import PrunedOptimizer
from fairseq_rnnprune.optim.refused import check_training

BAD = [
    (["--prune-start", "-5"], "--prune-start: expected updates"),
    (["--prune-start", "8", "--prune-end", "4"], "0 <= start < end, got start=8, end=4"),
    (["--prune-start", "soon"], "--prune-start: expected updates .* got 'soon'"),
    (["--prune-schedule", "ramp", "--prune-score", "random"], "got random; take max, mean or l2"),
    (["--prune-schedule", "ramp", "--prune-fisher-power", "0.5"], "of 0 with a ramp, .* got 0.5"),
    (["--prune-score", "random", "--prune-fisher-power", "1"], "of 0 with random scores, got 1"),
    (["--prune-fisher-power", "-1"], r"a fisher_power in \[0, 1\], got -1"),
    (
        ["--prune-inner", "nag", "--prune-fisher-power", "0.5"],
        "without; optimise with adam",
    ),
    (["--prune-allocation", "lamp", "--prune-schedule", "ramp"], "with lamp allocation, got Quant"),
    (["--prune-allocation", "global", "--prune-sparsity", "0.9/0.9/0.8"], "give a .* single spars"),
    (["--prune-min-sparsity", "0.96"], r"min_sparsity in \[0, max_sparsity = 0.95\], got 0.96"),
    (["--prune-dropout-power", "-0.5"], "--prune-dropout-power: expected a power that is 0 or m"),
    (["--prune-penalty-strength", "0"], "--prune-penalty-strength: expected more than 0, got 0"),
    (["--prune-sparsity", "0.9/0.8"], "expected 3 sparsities, one per gate of"),
    (["--prune-sparsity", "0.9/0.9/0.8"], "expected 1 sparsities, one per gate of .*projection"),
    # A quarter of 4 x 4 is the diagonal.
    (
        ["--decoder-hidden-size", "4", "--prune-keep-diagonal", "--prune-sparsity", "0.9"],
        "expected a sparsity of at most 0.75 where the diagonal of decoder.gru.weight_hh_l0",
    ),
    (["--prune-types", "input", "--prune-keep-diagonal"], "expected recurrent weights, whose diag"),
    (["--prune-schedule", "ramp", "--prune-q", "0"], "expected q > 0, got 0"),
    (["--prune-schedule", "ramp", "--prune-q", "-1"], "expected q > 0, got -1"),
    (["--prune-schedule", "ramp", "--prune-q", "much"], "--prune-q: expected VALUE or TYPE=VALUE"),
    (["--prune-sparsity", "1.0"], r"expected final in \[0, 1\), got 1.0"),
    (["--prune-sparsity", "-0.1"], r"expected final in \[0, 1\), got -0.1"),
    (["--prune-sparsity", "recurrent=0.9"], "a value for each of recurrent,input,linear"),
    (["--prune-max-sparsity", "1"], "max_sparsity in"),
    (["--prune-block-shape", "64,1"], "got 64 x 1; choose a smaller block"),
    (["--prune-block-shape", "4"], "--prune-block-shape: expected VALUE or TYPE=VALUE"),
    (["--prune-sparsity", "input=0.9,input=0.5"], r"0.5' \(input twice\)"),
    (["--prune-types", "recurrent,gates"], "--prune-types: expected some of .*'recurrent,gates'"),
    (["--prune-types", ""], "--prune-types: expected some of"),
    (
        ["--prune-types", "embedding", "--share-decoder-input-output-embed"],
        r"of type embedding \(--prune-types\), got a model with input,linear,recurrent; prune ",
    ),
    (["--prune-freq", "100"], "a mask update between start=1 and end=9, got none with freq=100"),
    (["--prune-freq", "0"], "freq >= 1, got 0"),
    (["--prune-inner", "pruned"], "--prune-inner: expected one of .*adam"),
    (["--fp16"], "add --fp16-no-flatten-grads"),
    (["--memory-efficient-fp16"], "expected weights in fp32, got --memory-efficient-fp16"),
    (["--amp"], "expected checkpoints with the optimizer's masks, got --amp"),
    (["--use-bmuf"], "expected the updates of one optimizer, got --use-bmuf"),
    (["--ddp-backend", "slowmo"], "the updates of one optimizer, got --ddp-backend slowmo, which"),
    (["--zero-sharding", "os"], "expected whole moments in every process, got --zero-sharding"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=lambda v: " ".join(v)[:40])
def test_bad_input_is_refused_at_start(data, tmp_path, options, message):
    early = ("--save-interval-updates", "1")
    with pytest.raises(ValueError, match=message):
        run_train(data, tmp_path, *PRUNED, *early, *options)
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("common.quantization_config_path=q.yaml", "got --quantization-config-path, which makes"),
        ("distributed_training.ddp_backend=fully_sharded", "got --ddp-backend fully_sharded; take"),
    ],
)
def test_so_is_what_fairseq_needs_files_or_packages_for(option, message):
    cfg = OmegaConf.merge(OmegaConf.structured(FairseqConfig), OmegaConf.from_dotlist([option]))
    with pytest.raises(ValueError, match=message):
        check_training(cfg)


def test_a_model_without_matrices_is_refused():
    parameters = nn.Conv1d(3, 3, 1).parameters()
    with pytest.raises(ValueError, match="weights of type .* got a model with none that are prun"):
        PrunedOptimizer(OmegaConf.structured(PruningOptions), parameters)


def test_resuming_with_pruned_diagonals_is_refused(data, pruned, tmp_path):
    restore = ("--restore-file", str(pruned[0] / "checkpoint_last.pt"), "--max-update", "20")
    with pytest.raises(ValueError, match="use --prune-keep-diagonal as before"):
        run_train(data, tmp_path, *PRUNED, "--prune-keep-diagonal", *restore)


def test_resuming_under_another_block_shape_is_refused(data, pruned, tmp_path):
    restore = ("--restore-file", str(pruned[0] / "checkpoint_last.pt"), "--max-update", "20")
    with pytest.raises(ValueError, match=r"block shape \(1, 1\) for input .* got \(2, 2\)"):
        run_train(data, tmp_path, *PRUNED, "--prune-block-shape", "2,2", *restore)


@pytest.mark.parametrize(
    ("options", "warnings"),
    [
        ((), []),
        (
            ("--prune-types", "recurrent,embedding"),
            ["no embedding weights in this model: nothing of that type is pruned"],
        ),
        (("--prune-q", "0.1"), ["--prune-schedule cubic does not read --prune-q"]),
        (
            ("--prune-inner", "adam", "--momentum", "0", "--warmup-init", "--adam-eps", "1e-6"),
            ["--prune-inner adam does not read --momentum, --warmup-init"],
        ),
        (
            ("--prune-penalty-strength", "0.5"),
            ["--prune-penalty none does not read --prune-penalty-strength"],
        ),
    ],
)
def test_what_is_asked_for_in_vain_is_named(data, tmp_path, caplog, options, warnings):
    tied = ("--share-decoder-input-output-embed", "--max-update", "1")
    run_train(data, tmp_path, *PRUNED, *tied, *options)
    found = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert [m for m in found if m.startswith(("no ", "--prune-"))] == warnings
