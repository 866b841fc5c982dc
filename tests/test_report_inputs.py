"""Kept weights per input and per symbol, and the dictionaries that name symbols."""

import pytest
import torch
from report_samples import checkpoint, model

from fairseq_rnnprune.pruning import find_prunable
from fairseq_rnnprune.report.dictionary import find_dictionaries, fitting, read_dictionary
from fairseq_rnnprune.report.inputs import count_inputs, count_symbols, spread


def inputs_of(tensors):
    return {(i.name, i.source): i for i in count_inputs(tensors, find_prunable(tensors))}


def symbols_of(tensors, dictionaries=()):
    return count_symbols(tensors, find_prunable(tensors), dictionaries)


def test_kept_weights_per_input_by_hand():
    found = inputs_of(model())
    ih, out = found["gru.weight_ih_l0", "embedding"], found["out.weight", "inputs"]
    # Gate r keeps nothing of columns 0 and 1, a row of gate z nothing of column 0.
    assert (ih.kept, ih.weights, ih.pruned) == ([3, 4, 6, 6], 6, 0)
    assert (out.kept, out.weights) == ([10, 10], 11)
    assert spread(ih.kept) == (3, 5, 6)
    tensors = model()
    tensors["gru.weight_ih_l0"][:, 1] = 0.0
    assert inputs_of(tensors)["gru.weight_ih_l0", "embedding"].pruned == 1


def test_the_directions_below_are_told_apart():
    tensors = {}
    for layer, width in enumerate((3, 4)):
        for end in ("", "_reverse"):
            tensors[f"rnn.weight_ih_l{layer}{end}"] = torch.ones(2, width)
            tensors[f"rnn.weight_hh_l{layer}{end}"] = torch.eye(2)
    tensors["rnn.weight_ih_l1"] = torch.tensor([[1.0, 1, 0, 0], [0, 1, 0, 1]])
    found = inputs_of(tensors)
    assert found["rnn.weight_ih_l1", "units of l0"].kept == [1, 2]
    assert found["rnn.weight_ih_l1", "units of l0_reverse"].kept == [0, 1]
    assert ("rnn.weight_ih_l0_reverse", "features") in found


def test_kept_weights_per_symbol_by_hand():
    weight = torch.tensor([[1.0, 1, 0], [0, 0, 0], [1, 1, 1], [0, 0, 1]])
    (embedding,) = symbols_of({"embed_tokens.weight": weight}, ["abcd", "too long"])
    assert (embedding.kept, embedding.weights, embedding.pruned) == ([2, 0, 3, 1], 3, 1)
    assert embedding.ranked(2, most=True) == [("c", 3), ("a", 2)]
    assert embedding.ranked(2, most=False) == [("b", 0), ("d", 1)]
    (unnamed,) = symbols_of({"embed_tokens.weight": weight})
    assert unnamed.ranked(1, most=True) == [("row 2", 3)]
    assert not unnamed.is_even


def test_an_embedding_that_keeps_all_but_padding_is_even():
    weight = torch.ones(4, 3)
    weight[1] = 0.0
    (embedding,) = symbols_of({"embed.weight": weight})
    assert embedding.is_even and embedding.pruned == 1


def test_which_matrices_have_symbols():
    tied = torch.ones(4, 2)
    tensors = {
        "embed_tokens.weight": tied,
        "output_projection.weight": tied,
        "output.weight": torch.ones(4, 3),
        "bridge.weight": torch.ones(4, 5),
    }
    assert [s.name for s in symbols_of(tensors)] == ["embed_tokens.weight"]
    names = [s.name for s in symbols_of(tensors, ["abcd"])]
    assert names == ["embed_tokens.weight", "output.weight"]


def test_which_of_two_dictionaries_fits():
    source, target = ["a", "b"], ["x", "y"]
    assert fitting([source, target], 2, "encoder.embed_tokens.weight") == source
    assert fitting([source, target], 2, "decoder.embed_tokens.weight") == target
    assert fitting([source, ["x"]], 2, "decoder.embed_tokens.weight") == source
    assert fitting([source], 3, "embed.weight") is None


def test_dictionaries_that_can_be_read(tmp_path):
    path = tmp_path / "dict.txt"
    path.write_text("the 12\n▁a 3\n\N{NO-BREAK SPACE} 2\n<unk> 1 #fairseq:overwrite\n\n", "utf-8")
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    assert read_dictionary(path) == [*special, "the", "▁a", "\N{NO-BREAK SPACE}", "<unk>"]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"the 12\nno count\n", "a symbol and a count in line 2 of .*, got 'no count'; name"),
        (b"12\n", "in line 1 of .*, got '12'"),
        (b"\xff 1\n", "expected a dict.txt of fairseq's, got .*: it is not UTF-8"),
        (None, "expected a dict.txt of fairseq's, got .*: No such file"),
    ],
)
def test_dictionaries_that_are_refused(tmp_path, content, message):
    path = tmp_path / "dict.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_dictionary(path)


def found_by(folder, **task):
    return find_dictionaries(checkpoint(config={"task": {"data": str(folder), **task}}))


def test_dictionaries_of_the_training_s_data(tmp_path):
    assert find_dictionaries(checkpoint()) == []
    assert found_by(tmp_path / "gone") == found_by(tmp_path) == []
    for name in ("dict.de.txt", "dict.en.txt", "dict.xx.txt"):
        (tmp_path / name).write_text(f"{name} 1\n")
    last = [d[-1] for d in found_by(tmp_path, source_lang="de", target_lang="en")]
    assert last == ["dict.de.txt", "dict.en.txt"]
    assert found_by(tmp_path) == []
    (tmp_path / "train.en-de.en.idx").touch()
    assert [d[-1] for d in found_by(f"{tmp_path}:other")] == ["dict.en.txt", "dict.de.txt"]
    (tmp_path / "dict.txt").write_text("only 1\n")
    assert found_by(tmp_path)[0][-1] == "only"
    (tmp_path / "dict.txt").write_text("broken\n")
    assert found_by(tmp_path) == []
