"""What the recipes share, and the one of the language model: its text and its data folder."""

import argparse

import pytest
import torch
from example_scripts import load_script
from fairseq.optim.adam import FairseqAdam, FairseqAdamConfig
from fairseq.optim.lr_scheduler import cosine_lr_scheduler
from omegaconf import OmegaConf

import fairseq_rnnprune.recipe as recipe
from fairseq_rnnprune.experiment import CommandFailed, count_parameters


@pytest.fixture
def script():
    return load_script("language_model/run.py")


@pytest.fixture
def args(tmp_path):
    (tmp_path / "dense-s3").mkdir()
    (tmp_path / "dense-s3" / "checkpoint_last.pt").touch()
    return argparse.Namespace(run="ramp", seed=3, work=tmp_path)


def test_q_of_the_dense_run_takes_its_place(args, monkeypatch):
    asked = []
    monkeypatch.setattr(recipe, "calibrated_q", lambda path: asked.append(path) or "recurrent=0.5")
    options = ["--prune-q", recipe.CALIBRATED, "--lr", "1"]
    found = recipe.calibrate(argparse.ArgumentParser(), args, options, "dense")
    assert found == ["--prune-q", "recurrent=0.5", "--lr", "1"]
    assert asked == [args.work / "dense-s3" / "checkpoint_last.pt"]


def test_q_stays_as_the_run_began(args, monkeypatch):
    options = ["--prune-q", recipe.CALIBRATED]
    for q in ("recurrent=0.5", "recurrent=0.9"):
        monkeypatch.setattr(recipe, "calibrated_q", lambda path, q=q: q)
        found = recipe.calibrate(argparse.ArgumentParser(), args, options, "dense")
        assert found == ["--prune-q", "recurrent=0.5"]
    # Another seed has another dense model.
    args.seed = 4
    with pytest.raises(SystemExit):
        recipe.calibrate(argparse.ArgumentParser(), args, options, "dense")


def test_without_the_word_nothing_is_asked_for(args):
    assert recipe.calibrate(argparse.ArgumentParser(), args, ["--lr", "1"], "absent") == [
        "--lr",
        "1",
    ]


def test_a_run_begins_from_the_last_checkpoint_of_another(args, tmp_path, monkeypatch):
    options = ["--lr", "1", recipe.FROM_MODEL, "dense", "--seed", "3"]
    found = recipe.begin_from(argparse.ArgumentParser(), args, options)
    checkpoint = str(args.work / "dense-s3" / "checkpoint_last.pt")
    assert found == ["--lr", "1", recipe.FROM_MODEL, checkpoint, "--seed", "3"]
    assert recipe.begin_from(argparse.ArgumentParser(), args, ["--lr", "1"]) == ["--lr", "1"]
    # Whoever repeats it has another work folder.
    monkeypatch.setattr(recipe, "save_result", lambda *_, **more: more["fairseq_train"])
    runs = recipe.Recipe(tmp_path / "run.py", ("ramp",), "text", "TEXT", "a file")
    assert f"{recipe.FROM_MODEL} W/dense-s3/checkpoint_last.pt" in runs.save(args, found, {})
    args.seed = 4
    with pytest.raises(SystemExit):
        recipe.begin_from(argparse.ArgumentParser(), args, options)


@pytest.mark.parametrize("updates, warmup", [(13605, 400), (3180, 300), (60, 6), (61, 6), (62, 6)])
def test_the_learning_rate_rises_once_more_and_pruning_follows(updates, warmup):
    words = recipe.restarted(updates, warmup)
    options = dict(zip(words[::2], words[1::2], strict=True))
    cfg = cosine_lr_scheduler.CosineLRScheduleConfig(
        warmup_updates=warmup,
        lr=[1.0],
        max_update=updates,
        lr_period_updates=float(options["--lr-period-updates"]),
        t_mult=float(options["--t-mult"]),
        lr_shrink=float(options["--lr-shrink"]),
    )
    adam = OmegaConf.structured(FairseqAdamConfig(lr=[1.0], tpu=False))
    optimizer = FairseqAdam(adam, [torch.nn.Parameter(torch.ones(1))])
    scheduler = cosine_lr_scheduler.CosineLRSchedule(cfg, optimizer)
    rates = [scheduler.step_update(update) for update in range(updates + 1)]
    # Once after the warm-up, once a third of the way on.
    (restart,) = (i for i in range(warmup + 1, updates + 1) if rates[i] > rates[i - 1])
    assert rates[restart] == 1.0 and rates[restart - 1] < 0.05 and rates[-1] < 0.05
    assert abs((restart - warmup) / (updates - warmup) - 1 / 3) < 0.02
    start, end = int(options["--prune-start"]), int(options["--prune-end"])
    assert restart < start < end < restart + (updates - restart) // 2


def test_parameters_are_counted_once_and_zeros_are_not_kept(tmp_path):
    weight = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    # A state dict has another tensor over the same storage for each name.
    tied = {"embed.weight": weight, "output.weight": weight.detach()}
    model = {**tied, "bias": torch.zeros(3)}
    model["steps"] = torch.tensor(7)
    torch.save({"model": model}, tmp_path / "model.pt")
    found = count_parameters(tmp_path / "model.pt")
    assert found == {"parameters": 4 + 3, "kept_parameters": 2}


def test_a_missing_text_of_the_language_model_is_one_line(script, tmp_path, monkeypatch, capsys):
    arguments = ["run.py", "dense", "--text", str(tmp_path), "--work", str(tmp_path / "work")]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit):
        script.main()
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"--text: expected the file {tmp_path / 'train.txt'}, got none" in message


def test_a_language_model_from_a_dense_one_needs_that(script, tmp_path, monkeypatch, capsys):
    for path in script.text_files(tmp_path):
        path.touch()
    run = ("wide-fisher-90-from-dense", "--seed", "7")
    arguments = ["run.py", *run, "--text", str(tmp_path), "--work", str(tmp_path / "work")]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit):
        script.main()
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.endswith("got none; run wide-dense with --seed 7 first")


def test_the_language_models_data_is_of_one_text(script, tmp_path, monkeypatch):
    for path in script.text_files(tmp_path):
        path.write_text("a b\n")

    def fairseq(command, *arguments):
        data = arguments[arguments.index("--destdir") + 1]
        # fairseq's would refuse a folder with a dictionary.
        data.mkdir()
        (data / "dict.txt").touch()
        if interrupted.pop():
            raise KeyboardInterrupt
        (data / "test.idx").touch()

    monkeypatch.setattr(script, "fairseq", fairseq)
    work, interrupted = tmp_path / "work", [False, True]
    with pytest.raises(KeyboardInterrupt):
        script.preprocess(tmp_path, work)
    assert script.preprocess(tmp_path, work) == script.preprocess(tmp_path, work) == work / "data"
    (tmp_path / "valid.txt").write_text("c\n")
    with pytest.raises(SystemExit, match="expected the text that .*work was made from, got others"):
        script.preprocess(tmp_path, work)


def test_all_runs_in_turn_and_what_fails_is_said(monkeypatch, tmp_path, capsys):
    runs = recipe.Recipe(
        tmp_path / "run.py", ("first", "second", "third"), "text", "TEXT", "a file"
    )
    monkeypatch.setattr("sys.argv", ["run.py", "all", "--text", str(tmp_path), "--work", "w"])
    done = []

    def run(parser, args):
        if args.run == "third":
            raise CommandFailed("run: expected exit status 0, got 1")
        done.append((args.run, args.seed))

    with pytest.raises(SystemExit, match="^run.py: third: run: expected exit status 0, got 1$"):
        runs.main(runs.parser("Makes.\nMore."), lambda folder: [], run)
    assert done == [("first", 1), ("second", 1)]
    monkeypatch.setattr("sys.argv", ["run.py", "-h"])
    with pytest.raises(SystemExit):
        runs.parser("Makes.").parse_args()
    assert "first, second, third; all: one after another" in " ".join(
        capsys.readouterr().out.split()
    )
