"""A model fed in pieces gives what it gives for the whole utterance, and keeps little."""

import copy
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from speech_models import MEL_BINS, STREAMING, build, log_probabilities
from tolerances import assert_close

VARIANTS = [
    {},
    {"lookahead": 0, "conv_kernel": 3},
    {"cell": "relu", "lookahead": 1, "conv_stride": 1},
    {"front_end": "conv2d"},
]
each_form = pytest.mark.parametrize("packed", ["dense", "fp32"])
each_variant = pytest.mark.parametrize("variant", range(len(VARIANTS)))


@cache
def models(variant, packed):
    """The model as it runs, and in float64."""
    model = build(**{**STREAMING, **VARIANTS[variant], "packed": packed})
    exact = copy.deepcopy(model).double()
    model.make_generation_fast_()
    return model, exact


@each_variant
@each_form
@settings(max_examples=25)
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_pieces_equal_the_whole(variant, packed, sizes, seed):
    model, exact = models(variant, packed)
    features = torch.randn(sum(sizes), MEL_BINS, generator=torch.Generator().manual_seed(seed))
    stream = model.stream()
    pieces, received = [], 0
    for piece in features.split(sizes):
        pieces.append(stream.push(piece))
        received += len(piece)
        # Not one frame later than `latency_frames` says.
        due = (received - 1 - stream.latency_frames) // model.frame_stride + 1
        assert sum(map(len, pieces)) == max(0, due)
    streamed = torch.cat([*pieces, stream.finish()])
    assert streamed.shape == (model.output_lengths(len(features)), 9)
    if len(features):
        assert_close(streamed, log_probabilities(exact, features.double()))


def test_latency():
    # Half the kernel of 5, then 3 frames of lookahead at a stride of 3.
    assert build(**STREAMING).stream().latency_frames == 2 + 3 * 3
    assert build(**STREAMING, front_end="conv2d").stream().latency_frames == 5 + 5 * 2 + 3 * 2
    assert build(unidirectional=True).stream().latency_frames == 2


def kept_bytes(stream):
    """Bytes of the storages that the stages of a stream keep alive."""
    kept = [
        value
        for stage in stream._stages
        for value in vars(stage).values()
        if isinstance(value, torch.Tensor)
    ]
    assert kept
    return sum(tensor.untyped_storage().nbytes() for tensor in kept)


@each_variant
@each_form
def test_what_is_kept_does_not_grow(variant, packed):
    stream = models(variant, packed)[0].stream()
    sizes = []
    for _ in range(60):
        stream.push(torch.randn(6, MEL_BINS))
        sizes.append(kept_bytes(stream))
    assert max(sizes[30:]) == max(sizes[20:30])
    stream.push(torch.randn(600, MEL_BINS))
    assert kept_bytes(stream) <= max(sizes[20:30])


def test_streams_of_one_model_do_not_meet():
    model, exact = models(0, "dense")
    features = torch.randn(2, 20, MEL_BINS)
    streams = [model.stream(), model.stream()]
    parts = [[stream.push(frames[:11])] for stream, frames in zip(streams, features, strict=True)]
    for part, stream, frames in zip(parts, streams, features, strict=True):
        part += [stream.push(frames[11:]), stream.finish()]
        assert_close(torch.cat(part), log_probabilities(exact, frames.double()))


def test_no_gradient():
    model = build(**STREAMING)
    stream = model.stream()
    assert not stream.push(torch.randn(30, MEL_BINS, requires_grad=True)).requires_grad


def test_what_cannot_stream_is_refused():
    with pytest.raises(ValueError, match="expected a unidirectional model, .* --unidirectional"):
        build().stream()
    with pytest.raises(ValueError, match="expected a model in evaluation mode, .* call .eval"):
        build(**STREAMING).train().stream()
    stream = build(**STREAMING).stream()
    with pytest.raises(ValueError, match=r"push: expected features \[t, 6\], got \[1, 4, 6\]"):
        stream.push(torch.zeros(1, 4, 6))
    assert stream.finish().shape == (0, 9)
    for call in (stream.finish, lambda: stream.push(torch.zeros(1, 6))):
        with pytest.raises(ValueError, match="expected no call after finish"):
            call()
