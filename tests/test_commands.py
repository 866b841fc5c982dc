"""fairseq's commands on a pruned model, dense and packed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq_cli import interactive, validate
from fairseq_runs import PRUNED, run_eval_lm, run_generate, run_train

from fairseq_rnnprune.models.gru_lm import GRULanguageModel

ROOT = Path(__file__).parent.parent
CHOICES = ("dense", "fp32", "bf16", "int16", "int8", "auto")


@pytest.fixture(scope="module")
def checkpoint(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pruned")
    run_train(data, folder, *PRUNED, "--max-update", "60")
    return folder / "checkpoint_last.pt"


def overrides(choice):
    return ("--model-overrides", f"{{'packed': '{choice}'}}")


def test_eval_lm_is_the_same_packed(data, checkpoint):
    ppl = {c: run_eval_lm(data, checkpoint, *overrides(c), "--batch-size", "4") for c in CHOICES}
    assert 2 < ppl["dense"] < 24
    assert ppl["fp32"] == pytest.approx(ppl["dense"], rel=1e-6)
    assert ppl["auto"] == pytest.approx(ppl["dense"], rel=1e-6)
    assert ppl["bf16"] == pytest.approx(ppl["dense"], rel=0.01)
    assert ppl["int8"] == pytest.approx(ppl["dense"], rel=0.02)


@pytest.mark.parametrize("how", [("--beam", "1"), ("--beam", "4"), ("--batch-size", "3")])
def test_generate_prints_the_same_text_packed(data, checkpoint, capsys, how):
    printed = {}
    for choice in ("dense", "fp32"):
        arguments = ("--sample-break-mode", "eos", "--prefix-size", "2", *how)
        run_generate(data, checkpoint, *arguments, *overrides(choice))
        printed[choice] = re.findall(r"^H-(\d+)\t[^\t]*\t(.*)$", capsys.readouterr().out, re.M)
    assert printed["dense"] == printed["fp32"]
    # 21 test sentences, which is no multiple of fairseq's 8: none is lost.
    assert sorted(int(i) for i, _ in printed["dense"]) == list(range(21))


def test_the_environment_chooses_where_the_model_says_auto(data, checkpoint, monkeypatch, caplog):
    monkeypatch.setenv("RNNPRUNE_PACKED", "bf16")
    with caplog.at_level("INFO"):
        run_eval_lm(data, checkpoint, "--batch-size", "4")
    assert "bf16" in "".join(m for m in caplog.messages if "decoder.gru" in m)
    monkeypatch.setenv("RNNPRUNE_PACKED", "fp7")
    with pytest.raises(ValueError, match="RNNPRUNE_PACKED.*fp7"):
        run_eval_lm(data, checkpoint, "--batch-size", "4")


def test_sampling(data, checkpoint, capsys):
    torch.manual_seed(0)
    arguments = ("--sampling", "--sampling-topk", "5", "--beam", "1", "--prefix-size", "2")
    run_generate(data, checkpoint, "--sample-break-mode", "eos", *arguments)
    assert len(re.findall(r"^H-", capsys.readouterr().out, re.M)) == 21


def test_interactive_answers_every_line_in_order(data, checkpoint, capsys, tmp_path):
    lines = ["the cat", "unknownword dog", "house"]
    (tmp_path / "input").write_text("\n".join(lines) + "\n")
    arguments = [str(data), "--task", "language_modeling", "--path", str(checkpoint), "--cpu"]
    arguments += ["--input", str(tmp_path / "input"), "--buffer-size", "2", "--max-len-b", "10"]
    parser = options.get_interactive_generation_parser()
    args = options.parse_args_and_arch(parser, arguments)
    interactive.main(convert_namespace_to_omegaconf(args))
    assert re.findall(r"^H-(\d+)\t", capsys.readouterr().out, re.M) == ["0", "1", "2"]


def test_validate(data, checkpoint, caplog, monkeypatch):
    # It would take pytest's own handlers off the root logger.
    monkeypatch.setattr(validate, "reset_logging", lambda: None)
    arguments = [str(data), "--task", "language_modeling", "--path", str(checkpoint), "--cpu"]
    arguments += ["--valid-subset", "valid", "--batch-size", "4", "--num-workers", "0"]
    args = options.parse_args_and_arch(options.get_validation_parser(), arguments)
    with caplog.at_level("INFO"):
        validate.main(convert_namespace_to_omegaconf(args))
    assert re.search(r"valid on 'valid' subset .* ppl", caplog.text)


def test_from_python(data, checkpoint):
    def load(choice):
        return GRULanguageModel.from_pretrained(
            str(checkpoint.parent), checkpoint.name, str(data), packed=choice
        )

    dense, packed = load("dense"), load("fp32")
    texts = [hub.sample(["the cat", "a dog"], beam=3, max_len_b=8) for hub in (dense, packed)]
    assert texts[0] == texts[1] and len(texts[0]) == 2
    assert texts[0][0].startswith("the cat")


def test_adaptive_softmax_trains_and_evaluates(data, tmp_path):
    options = ("--adaptive-softmax-cutoff", "8,24", "--criterion", "adaptive_loss")
    state = run_train(data, tmp_path, *PRUNED, *options, "--ddp-backend", "legacy_ddp")
    head = state["model"]["decoder.adaptive_softmax.head.weight"]
    assert float((head == 0).float().mean()) == pytest.approx(0.8, abs=0.01)
    found = [
        run_eval_lm(data, tmp_path / "checkpoint_last.pt", "--batch-size", "4", *overrides(packed))
        for packed in ("dense", "fp32")
    ]
    assert 2 < found[0] < 30 and found[1] == pytest.approx(found[0], rel=1e-6)


@pytest.mark.parametrize("user_dir", ["user_dir", "fairseq_rnnprune"])
def test_hydra_train(data, tmp_path, user_dir):
    settings = [
        f"task.data={data}",
        f"common.user_dir={ROOT / user_dir}",
        f"checkpoint.save_dir={tmp_path}",
        "optimization.max_update=12",
        "optimizer.prune_freq=2",
        "+optimizer.adam_betas=[0.5,0.9]",
        "lr_scheduler.warmup_updates=2",
        "model.decoder_hidden_size=16",
        "model.decoder_embed_dim=8",
        "dataset.disable_validation=true",
        "dataset.num_workers=0",
    ]
    command = [sys.executable, "-m", "fairseq_cli.hydra_train"]
    command += ["--config-dir", str(ROOT / "examples/language_model/config")]
    command += ["--config-name", "gru_lm", f"hydra.run.dir={tmp_path}", *settings]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    state = torch.load(tmp_path / "checkpoint_last.pt", weights_only=True)
    assert float((state["model"]["decoder.gru.weight_hh_l0"] == 0).float().mean()) > 0.85
    assert list(state["last_optimizer_state"]["param_groups"][0]["betas"]) == [0.5, 0.9]
