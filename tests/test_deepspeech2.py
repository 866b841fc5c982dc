"""The speech model: padding, lengths, training with fairseq's CTC, packing, options, sizes."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from fairseq.criterions.ctc import CtcCriterion, CtcCriterionConfig
from fairseq.dataclass.configs import EMAConfig
from fairseq.models.ema import EMA
from speech_models import MEL_BINS, STREAMING, build, padded_batch, speech_task
from tolerances import assert_close

from fairseq_rnnprune.models.front_end import conv1d, conv2d
from fairseq_rnnprune.pruning import read_tag

VARIANTS = [
    {},
    {"cell": "relu"},
    {"front_end": "conv2d"},
    {**STREAMING},
    {**STREAMING, "cell": "relu", "rnn_layers": 1, "front_end": "conv2d"},
]
each_variant = pytest.mark.parametrize("options", VARIANTS, ids=str)
LENGTHS = [17, 1, 23, 4, 23]


@each_variant
@pytest.mark.parametrize("packed", ["dense", "fp32"])
def test_an_utterance_does_not_depend_on_its_batch(options, packed):
    model = build(packed=packed, **options)
    exact = copy.deepcopy(model).double()
    model.make_generation_fast_()
    assert (model.rnn.sparse is None) == (packed == "dense")
    source, padding_mask = padded_batch(LENGTHS)
    with torch.no_grad():
        output = model(source, padding_mask)
        valid = ~output["padding_mask"]
        assert valid.sum(1).tolist() == [model.output_lengths(length) for length in LENGTHS]
        for b, length in enumerate(LENGTHS):
            alone = exact(source[b : b + 1, :length].double())["encoder_out"][:, 0]
            assert_close(output["encoder_out"][valid[b], b], alone)


@pytest.mark.parametrize("in_fp32", [False, True])
def test_averages_copy_what_is_a_count(in_fp32):
    model = build(cell="relu")
    average = EMA(model, EMAConfig(ema_decay=0.5, ema_fp32=in_fp32))
    state = model.state_dict()
    count = next(name for name in state if name.endswith("num_batches_tracked"))
    weight = next(name for name in state if "weight_hh" in name)
    before = state[weight].clone()
    with torch.no_grad():
        state[count].add_(7)
        state[weight].add_(1)
    average.step(model)
    averaged = average.get_model().state_dict()
    assert averaged[count] == state[count] >= 7
    assert_close(averaged[weight], before.double() + 0.5)


@each_variant
def test_a_halved_model_takes_single_features(options):
    # fairseq-generate --fp16 halves the model and not what the dataset gives.
    model = build(packed="fp32", **options)
    source, padding_mask = padded_batch(LENGTHS)
    with torch.no_grad():
        model.make_generation_fast_()
        expected = model(source, padding_mask)["encoder_out"]
        found = model.half()(source, padding_mask)["encoder_out"]
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0.02)


@each_variant
def test_output_lengths(options):
    model = build(**options)
    lengths = torch.arange(1, 40)
    for length in lengths.tolist():
        output = model(torch.zeros(1, length, MEL_BINS))
        assert output["encoder_out"].shape == (model.output_lengths(length), 1, 9)
        assert output["padding_mask"] is None
    as_tensor = model.output_lengths(lengths)
    assert as_tensor.dtype == torch.int64
    assert as_tensor.tolist() == [model.output_lengths(length) for length in lengths.tolist()]
    assert as_tensor.tolist() == [-(-length // model.frame_stride) for length in range(1, 40)]
    assert model.output_lengths(0) == 0 and model.max_positions() is None


def test_probabilities():
    model = build()
    output = model(torch.randn(2, 9, MEL_BINS))
    log_probs = model.get_normalized_probs(output, log_probs=True)
    probs = model.get_normalized_probs(output, log_probs=False, sample={})
    torch.testing.assert_close(log_probs.exp(), probs)
    torch.testing.assert_close(probs.sum(2), torch.ones(3, 2))
    half = {"encoder_out": output["encoder_out"].half()}
    assert model.get_normalized_probs(half, log_probs=True).dtype == torch.float32


def ctc_sample():
    source, padding_mask = padded_batch([24, 19, 24, 16])
    target = torch.full((4, 4), speech_task().target_dictionary.pad())
    target_lengths = torch.tensor([4, 2, 3, 3])
    for row, length in zip(target, target_lengths.tolist(), strict=True):
        row[:length] = torch.randperm(5)[:length] + 4
    return {
        "id": torch.arange(4),
        "net_input": {"source": source, "padding_mask": padding_mask},
        "target": target,
        "target_lengths": target_lengths,
        "nsentences": 4,
        "ntokens": int(target_lengths.sum()),
    }


@each_variant
def test_learns_four_utterances_by_heart(options):
    model = build(dropout=0.0, hidden_size=24, **options).train()
    criterion = CtcCriterion(CtcCriterionConfig(sentence_avg=True), speech_task())
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    sample = ctc_sample()
    for _ in range(60):
        optimizer.zero_grad()
        loss, size, _ = criterion(model, sample)
        (loss / size).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        _, _, logged = criterion(model, sample)
    assert logged["c_errors"] == 0 and logged["c_total"] == 12


@each_variant
def test_gradients_reach_every_parameter(options):
    model = build(dropout=0.1, **options).train()
    model(*padded_batch(LENGTHS))["encoder_out"].square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name


@each_variant
def test_packing_leaves_the_state_as_it_was(options):
    model = build(packed="int8", **options)
    before = copy.deepcopy(model.state_dict())
    model.make_generation_fast_()
    assert model.rnn.sparse is not None and model.output.sparse is not None
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@each_variant
def test_every_matrix_but_those_of_convolutions_is_tagged(options):
    model = build(**options)
    tags = {name: read_tag(parameter) for name, parameter in model.named_parameters()}
    gates = 1 if options.get("cell") == "relu" else 3
    for name, tag in tags.items():
        if "weight_hh" in name or "weight_ih" in name:
            assert (tag.type, tag.gates) == ("recurrent" if "hh" in name else "input", gates)
        else:
            assert (tag is not None) == (name == "output.weight"), name
    assert tags["output.weight"].type == "linear"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"conv_kernel": 4}, "conv1d: expected an odd kernel .* got kernel 4, stride 3; change"),
        ({"conv_stride": 7}, "conv1d: .* stride from 1 to it, got kernel 5, stride 7"),
        ({"lookahead": 2}, "--lookahead with --unidirectional only, got --lookahead 2 for both"),
        ({"lookahead": -1}, "expected --lookahead of at least 0, got -1"),
        ({"packed": "int4"}, "the option packed among auto, dense"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_bad_input():
    model = build()
    with pytest.raises(ValueError, match=r"expected source \[B, T, 6\], got \[2, 6\]"):
        model(torch.zeros(2, 6))
    with pytest.raises(ValueError, match="at least one frame of each utterance, got one without"):
        model(torch.zeros(2, 3, 6), torch.tensor([[False] * 3, [True] * 3]))
    with pytest.raises(ValueError, match="at least one frame"):
        model(torch.zeros(2, 0, 6))


def test_front_ends():
    assert conv1d(40, 192, 11, 3).stride == 3
    paper = conv2d(40).eval()
    assert (paper.stride, paper.width) == (2, 320)
    x = torch.randn(2, 9, 40)
    image = x.unsqueeze(1)
    for block, padding in zip(paper.blocks, ((5, 20), (5, 10)), strict=True):
        convolution = block.convolution
        image = F.conv2d(image, convolution.weight, None, convolution.stride, padding)
        image = (image / (1 + 1e-5) ** 0.5).clamp(0, 20)
    assert image.shape == (2, 32, 5, 10)
    torch.testing.assert_close(paper(x), image.transpose(1, 2).flatten(2))
    assert conv2d(1).eval()(torch.randn(1, 1, 1)).shape == (1, 1, 32)


@pytest.mark.parametrize("make", [partial(conv1d, MEL_BINS, 4, 5, 3), partial(conv2d, MEL_BINS)])
def test_padding_stays_zero_and_out_of_the_statistics(make):
    # Made here, where the seed is fixed: of four channels all may be 0 at a frame.
    front_end = make()
    source, _ = padded_batch(LENGTHS)
    lengths, longer = torch.tensor(LENGTHS), copy.deepcopy(front_end)
    out = front_end(source, lengths)
    more = longer(F.pad(source, (0, 0, 0, 12), value=1e3), lengths)
    for b, length in enumerate(front_end.output_lengths(lengths).tolist()):
        assert out[b, :length].any() and not out[b, length:].any() and not more[b, length:].any()
        torch.testing.assert_close(more[b, :length], out[b, :length])
    torch.testing.assert_close(longer.state_dict(), front_end.state_dict())


def test_options_of_the_other_front_end_are_told(caplog):
    build(front_end="conv2d")
    assert "--conv-channels, --conv-kernel: ignored with --front-end conv2d" in caplog.text
    caplog.clear()
    build()
    assert not caplog.records
