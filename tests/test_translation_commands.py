"""fairseq's commands on a pruned translation model, dense and packed."""

import logging
import re

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.logging import metrics
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from fairseq_runs import PRUNED
from translation_runs import (
    TEST_LINES,
    make_pairs,
    printed,
    run_generate,
    run_interactive,
    train_pairs,
)

from fairseq_rnnprune.checkpoint import read_checkpoint
from fairseq_rnnprune.compat.translation import answer_every_line, log_bleu_of_empty_text

answer_every_line()
log_bleu_of_empty_text()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def checkpoint(data, tmp_path_factory):
    options = ("--prune-end", "40", "--max-update", "50")
    return train_pairs(data, tmp_path_factory.mktemp("pruned"), *PRUNED, *options)


def packed(choice):
    return ("--model-overrides", f"{{'packed': '{choice}'}}")


def test_training_prunes(checkpoint):
    model = torch.load(checkpoint, weights_only=True)["model"]
    for name in ("encoder.gru.weight_hh_l0_reverse", "decoder.gru.weight_ih_l0"):
        assert float((model[name] == 0).float().mean()) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(
    "how", [(), ("--beam", "1"), ("--batch-size", "1"), ("--prefix-size", "2")]
)
def test_generate_prints_the_same_text_packed(data, checkpoint, capsys, how):
    texts = []
    for choice in ("dense", "fp32", "auto"):
        run_generate(data, checkpoint, *packed(choice), *how)
        texts.append(printed(capsys.readouterr().out, "H"))
    assert texts[0] == texts[1] == texts[2]
    assert sorted(texts[0]) == list(range(TEST_LINES))


@pytest.mark.parametrize("choice", ["bf16", "int8"])
def test_generate_with_coarser_values(data, checkpoint, capsys, choice):
    run_generate(data, checkpoint, *packed(choice))
    assert len(printed(capsys.readouterr().out, "H")) == TEST_LINES


def test_the_side_of_the_padding_changes_nothing(data, checkpoint, capsys):
    # The option is on by default, and naming it turns it off.
    texts = []
    for how in ((), ("--left-pad-source",), ("--batch-size", "1")):
        run_generate(data, checkpoint, *how)
        texts.append(printed(capsys.readouterr().out, "H"))
    assert texts[0] == texts[1] == texts[2]


def test_a_prefix_is_kept(data, checkpoint, capsys):
    run_generate(data, checkpoint, "--prefix-size", "2")
    out = capsys.readouterr().out
    targets, texts = printed(out, "T"), printed(out, "H")
    assert all(texts[i].split()[:2] == targets[i].split()[:2] for i in range(TEST_LINES))


def test_sampling(data, checkpoint, capsys):
    run_generate(data, checkpoint, "--sampling", "--sampling-topk", "5", "--beam", "1")
    assert len(printed(capsys.readouterr().out, "H")) == TEST_LINES


def test_hard_alignment(data, checkpoint, capsys):
    alignments = []
    for size in ("1", "4"):
        run_generate(data, checkpoint, "--print-alignment", "hard", "--batch-size", size)
        out = capsys.readouterr().out
        alignments.append(printed(out, "A"))
    # Words are counted from the sentence's first, whatever padding stands before it.
    assert alignments[0] == alignments[1]
    sources, texts = printed(out, "S"), printed(out, "H")
    for i, alignment in alignments[0].items():
        pairs = [tuple(map(int, pair.split("-"))) for pair in alignment.split()]
        assert [target for _, target in pairs] == list(range(len(texts[i].split())))
        assert all(0 <= source < len(sources[i].split()) for source, _ in pairs)


def test_soft_alignment(data, checkpoint, capsys):
    run_generate(data, checkpoint, "--print-alignment", "soft")
    out = capsys.readouterr().out
    sources, texts, alignments = (printed(out, letter) for letter in "SHA")
    for i, alignment in alignments.items():
        rows = [list(map(float, row.split(","))) for row in alignment.split()]
        assert len(rows) == len(texts[i].split()) + 1
        for row in rows:
            assert len(row) == len(sources[i].split()) + 1
            assert sum(row) == pytest.approx(1, abs=1e-4)


def test_score_reference(data, checkpoint, capsys):
    run_generate(data, checkpoint, "--score-reference")
    out = capsys.readouterr().out
    assert printed(out, "H") == printed(out, "T")


LINES = ["the cat", "", "unknownword dog", "a bird is near the old house", "<pad> fish", "", " "]


@pytest.mark.parametrize("how", [(), ("--buffer-size", "4", "--batch-size", "2")])
def test_interactive_answers_every_line_in_order(data, checkpoint, capsys, tmp_path, how):
    (tmp_path / "input").write_text("\n".join(LINES) + "\n")
    run_interactive(data, checkpoint, tmp_path / "input", *packed("fp32"), *how)
    out = capsys.readouterr().out
    assert re.findall(r"^D-(\d+)\t", out, re.M) == [str(i) for i in range(len(LINES))]
    assert printed(out, "S")[0] == "the cat"


@pytest.mark.parametrize("order", ["ordered", "unordered"])
def test_interactive_obeys_constraints(data, checkpoint, capsys, tmp_path, order):
    (tmp_path / "input").write_text("the cat\tgrass\thouse\nthe dog\n")
    run_interactive(data, checkpoint, tmp_path / "input", "--constraints", order)
    texts = printed(capsys.readouterr().out, "H")
    assert {"grass", "house"} <= set(texts[0].split())
    if order == "ordered":
        assert texts[0].index("grass") < texts[0].index("house")
    assert len(texts) == 2


@pytest.mark.parametrize("how", [(), ("--skip-invalid-size-inputs-valid-test",)])
def test_interactive_refuses_a_line_that_is_too_long(data, checkpoint, tmp_path, how):
    (tmp_path / "input").write_text("\n".join(LINES) + "\n")
    limit = ("--max-source-positions", "5", "--buffer-size", "7", *how)
    message = (
        r"at most 5 tokens, got 1 of 7 longer, the longest of 8: a bird is .* \.\.\.; cut them "
        "with --truncate-source"
    )
    with pytest.raises(ValueError, match=message):
        run_interactive(data, checkpoint, tmp_path / "input", *limit)


def test_interactive_cuts_a_line_that_is_too_long(data, checkpoint, capsys, tmp_path):
    limit = ("--max-source-positions", "5", "--truncate-source", "--buffer-size", "7")
    texts = []
    for line in ("a bird is near the old house", "a bird is near"):
        (tmp_path / "input").write_text("\n".join([*LINES[:3], line, *LINES[4:]]) + "\n")
        run_interactive(data, checkpoint, tmp_path / "input", *limit)
        texts.append(printed(capsys.readouterr().out, "D"))
    assert texts[0] == texts[1] and len(texts[0]) == len(LINES)


def test_lines_within_the_limit_are_left_alone():
    dictionary = Dictionary()
    task = TranslationTask(TranslationConfig(max_source_positions=3), dictionary, dictionary)
    line = torch.tensor([5, 6, 2])
    dataset = task.build_dataset_for_inference([line], [3])
    assert dataset.src[0] is line
    assert len(task.build_dataset_for_inference([], torch.tensor([]))) == 0


@pytest.mark.parametrize("unknown, warnings", [(2, 0), (3, 1)])
def test_many_unknown_tokens_are_one_warning(caplog, unknown, warnings):
    dictionary = Dictionary()
    task = TranslationTask(TranslationConfig(), dictionary, dictionary)
    # Ten tokens and two ends.
    tokens = torch.tensor([dictionary.unk()] * unknown + [5] * (10 - unknown))
    lines = [torch.cat([part, torch.tensor([dictionary.eos()])]) for part in tokens.split(5)]
    with caplog.at_level(logging.WARNING):
        task.build_dataset_for_inference(lines, torch.tensor([6, 6]))
    assert len(caplog.messages) == warnings
    expected = "3 of 10 source tokens are unknown: is this the sentencepiece model of the training"
    assert all(message.startswith(expected) for message in caplog.messages)


def bleu_log(correct, total):
    """What a batch of a validation logs: n-grams, as many right as given, and the lengths."""
    lengths = {"_bleu_sys_len": total[0], "_bleu_ref_len": 5}
    counts = {f"_bleu_counts_{i}": correct[i] for i in range(4)}
    return lengths | counts | {f"_bleu_totals_{i}": total[i] for i in range(4)}


EMPTY, RIGHT = bleu_log([0] * 4, [0] * 4), bleu_log([5, 4, 3, 2], [5, 4, 3, 2])


# fairseq leaves a batch of empty text out of the lengths.
@pytest.mark.parametrize(
    "batches, bleu",
    [([EMPTY], 0), ([EMPTY, RIGHT], 100), ([RIGHT, EMPTY], 100), ([{}], None)],
)
def test_bleu_of_a_validation_with_empty_text(monkeypatch, batches, bleu):
    dictionary = Dictionary()
    task = TranslationTask(TranslationConfig(eval_bleu=True), dictionary, dictionary)
    monkeypatch.setattr("fairseq.tasks.FairseqTask.reduce_metrics", lambda *arguments: None)
    with metrics.aggregate(new_root=True) as logged:
        for batch in batches:
            task.reduce_metrics([batch], None)
    assert logged.get_smoothed_values().get("bleu") == bleu


def test_the_best_checkpoint_by_bleu_when_the_model_says_nothing(data, tmp_path):
    generator = '{"min_len": 0, "max_len_a": 0, "max_len_b": 0, "beam": 1}'
    options = ("--eval-bleu", "--eval-bleu-args", generator)
    best = ("--best-checkpoint-metric", "bleu", "--maximize-best-checkpoint-metric")
    train_pairs(
        *(data, tmp_path, "--optimizer", "adam", "--max-update", "2", *options, *best),
        disable_validation=False,
    )
    # Its counts of n-grams are numpy arrays.
    assert read_checkpoint(tmp_path / "checkpoint_best.pt").updates == 2
    train_pairs(
        *(data, tmp_path, "--optimizer", "adam", "--max-update", "3", *options, *best),
        disable_validation=False,
    )
    assert read_checkpoint(tmp_path / "checkpoint_last.pt").updates == 3
