"""`--optimizer pruned` with models that know nothing of it."""

import pytest
from cli_runs import run
from fairseq_runs import PRUNED, load, run_train, sparsity, train_arguments, train_with

LSTM = ("--arch", "lstm_lm", "--decoder-out-embed-dim", "12")
WEIGHTS = {
    "decoder.layers.0.weight_ih": "input",
    "decoder.layers.0.weight_hh": "recurrent",
    "decoder.additional_fc.weight": "linear",
    "decoder.fc_out.weight": "linear",
}


def pruned(state):
    return {name: state["model"][name] for name in WEIGHTS}


def test_an_lstm_of_fairseqs_is_pruned_and_resumes(data, tmp_path):
    whole = pruned(run_train(data, tmp_path / "whole", *PRUNED, *LSTM))
    assert all(0.78 < sparsity(w) <= 0.8 for w in whole.values())
    run_train(data, tmp_path, *PRUNED, *LSTM, "--max-update", "5")
    resumed = pruned(run_train(data, tmp_path, *PRUNED, *LSTM))
    assert all(resumed[name].equal(whole[name]) for name in WEIGHTS)


# fairseq's attention gives torch masks of two types.
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")
def test_a_transformer_of_fairseqs_is_pruned(data, tmp_path):
    more = ("--arch", "transformer_lm", "--decoder-layers", "1", "--decoder-attention-heads", "2")
    arguments = train_arguments(data, tmp_path, *PRUNED, *more, "--decoder-ffn-embed-dim", "16")
    # Of GRUs only.
    option = arguments.index("--decoder-hidden-size")
    del arguments[option : option + 2]
    train_with(arguments)
    model = load(tmp_path / "checkpoint_last.pt")["model"]
    matrices = {name: w for name, w in model.items() if w.dim() == 2 and "embed" not in name}
    assert {"fc1", "k_proj", "output_projection"} <= {name.split(".")[-2] for name in matrices}
    assert all(0.78 < sparsity(w) <= 0.8 for w in matrices.values())


def test_gates_of_an_lstm_are_reported(data, tmp_path, capsys):
    run_train(data, tmp_path, *PRUNED, *LSTM, "--prune-block-shape", "4,4")
    status, shown, _ = run(capsys, "report", tmp_path / "checkpoint_last.pt")
    assert status == 0
    for name, kind in WEIGHTS.items():
        row = next(line for line in shown.splitlines() if line.strip().startswith(name))
        assert kind in row
    assert "would run in a rnnprune_ model" in shown


def test_a_dense_optimizer_that_would_train_its_zeros_is_refused(data, tmp_path):
    run_train(data, tmp_path, *PRUNED, *LSTM)
    with pytest.raises(ValueError, match="as the checkpoint has masks"):
        run_train(data, tmp_path, *LSTM, "--optimizer", "adam", "--max-update", "12")
