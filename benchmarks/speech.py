"""Real-time factor of speech models: audio to text, features included, one utterance at a time.

    OMP_NUM_THREADS=1 python benchmarks/speech.py --checkpoint MODEL.pt --name trained
    OMP_NUM_THREADS=1 python benchmarks/speech.py --size 3x2560

A size is one of `rnnprune_deepspeech2`, with random weights pruned to 90 % in blocks of 16 x 4; a
checkpoint's mask is its own. The audio is noise: the time does not depend on what is said. Every
variant's log-probabilities must agree with float64 before it is timed.
"""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Callable, Iterator

# One thread (set before torch is loaded).
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from harness import RESULTS, Candidate, block_mask, parser, timed  # noqa: E402
from quantized_rnn import LinearRNN  # noqa: E402
from subjects import quantize  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import fairseq_rnnprune.plugin  # noqa: E402, F401
from fairseq_rnnprune.bench.variants import plain_layer  # noqa: E402
from fairseq_rnnprune.experiment import save_result  # noqa: E402
from fairseq_rnnprune.layers import GRU  # noqa: E402
from fairseq_rnnprune.models.deepspeech2 import (  # noqa: E402
    SIZES,
    DeepSpeech2,
    DeepSpeech2Config,
)
from fairseq_rnnprune.pruning import prunable_parameters  # noqa: E402
from fairseq_rnnprune.sparse import SparseLinear  # noqa: E402
from fairseq_rnnprune.speech.config import SpeechConfig  # noqa: E402
from fairseq_rnnprune.speech.ctc import greedy  # noqa: E402
from fairseq_rnnprune.speech.features import log_mel, normalize  # noqa: E402

# Largest error of the log-probabilities, which pass through all layers, over the root mean square
# of how far they are from their means over time.
LIMITS = {"dense": 1e-4, "dense-torch": 1e-4, "dense-bf16": 0.2, "dense-int8": 0.5}
LIMITS |= {"fp32": 1e-4, "bf16": 0.1, "int8": 0.5}
CLASSES = 32
# The first is what speed-ups are over.
DENSE = ("dense", "dense-torch", "dense-bf16", "dense-int8")
BLOCK = (16, 4)


@torch.no_grad()
def main() -> None:
    options = parser(__doc__, seconds=60.0, turn=0.3)
    options.add_argument("--size", choices=SIZES)
    options.add_argument("--checkpoint", help="of a trained rnnprune_deepspeech2")
    options.add_argument("--name", help="of the checkpoint's result")
    options.add_argument("--sparsity", type=float, default=0.9, help="of a size")
    options.add_argument("--audio-seconds", type=float, default=4.0)
    arguments = options.parse_args()
    if (arguments.size is None) == (arguments.checkpoint is None):
        options.error("expected either --size or --checkpoint")
    torch.manual_seed(arguments.seed)
    if arguments.size:
        name, config = arguments.size, SpeechConfig()
        model = random_model(arguments.size, config, arguments.sparsity)
        what = f"--size {name} --sparsity {arguments.sparsity:g}"
    else:
        name = arguments.name or "checkpoint"
        model, config = load(arguments.checkpoint)
        what = f"--checkpoint MODEL.pt --name {name}"
    noise = np.random.default_rng(arguments.seed).standard_normal
    audio = 0.1 * noise(round(arguments.audio_seconds * config.sample_rate)).astype(np.float32)
    exact = transcriber(copy.deepcopy(model).double(), config, audio)()
    mean = exact.mean(0)
    exact, sizes, candidates = exact - mean, {}, []
    for variant, prepared in variants(model):
        call = transcriber(prepared, config, audio, mean)
        candidates.append(Candidate(variant, call, exact, LIMITS[variant]))
        sizes[variant] = stored_bytes(prepared)
    rows = timed(candidates, arguments, baselines=DENSE)
    for variant, row in rows.items():
        row["rtf"] = row["us"] / 1e6 / arguments.audio_seconds
        row["megabytes"] = sizes[variant] / 1e6
        print(f"{name} {variant}: real-time factor {row['rtf']:.5f}, {sizes[variant]:,} bytes")
    best = min(row["rtf"] for variant, row in rows.items() if variant in DENSE)
    folder = RESULTS / ("speech" if arguments.size else "speech_trained")
    path = save_result(
        arguments.out or folder,
        f"rtf-{name}",
        arguments.seed,
        f"OMP_NUM_THREADS=1 python benchmarks/speech.py {what} "
        f"--audio-seconds {arguments.audio_seconds:g} --seed {arguments.seed}",
        {"parameters": sum(p.numel() for p in model.parameters()), "best_dense": best, **rows},
    )
    print(f"written to {path}")


def random_model(size: str, config: SpeechConfig, sparsity: float) -> DeepSpeech2:
    """A model of a named size, its recurrent layers pruned in random blocks.

    Norms get the statistics of noise, as in a training, and where there are none, what is left is
    larger by as much as keeps the variance of a product: otherwise states of random weights would
    shrink from layer to layer until no result depends on them.
    """
    model = DeepSpeech2(DeepSpeech2Config(**SIZES[size]), config.mel_bins, CLASSES).eval()
    for prunable, weight in prunable_parameters(model):
        if prunable.type in ("recurrent", "input"):
            weight *= block_mask(weight.shape, BLOCK, sparsity)
            if isinstance(model.rnn, GRU):
                weight /= (1 - sparsity) ** 0.5
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            norm.momentum = 1.0
    model.train()
    model(torch.randn(1, 400, config.mel_bins))
    return model.eval()


def load(checkpoint: str) -> tuple[DeepSpeech2, SpeechConfig]:
    from fairseq.checkpoint_utils import load_model_ensemble_and_task

    (model,), _, task = load_model_ensemble_and_task([checkpoint])
    return model.eval(), task.config


def variants(model: DeepSpeech2) -> Iterator[tuple[str, DeepSpeech2]]:
    """The model as it was trained, dense as torch runs it best, and packed in each format."""
    yield "dense", model
    yield "dense-bf16", copy.deepcopy(model).bfloat16()
    if not isinstance(model.rnn, GRU):
        # torch's own loop over the steps. It clips nothing, but no state comes near 20 here, or the
        # parity gate would say so.
        plain = copy.deepcopy(model)
        plain.rnn = Plain(plain_layer(model.rnn))
        yield "dense-torch", plain
    yield "dense-int8", quantized(copy.deepcopy(model))
    for dtype in ("fp32", "bf16", "int8"):
        packed = copy.deepcopy(model)
        packed.rnn.pack(dtype)
        yield dtype, packed


def quantized(model: DeepSpeech2) -> DeepSpeech2:
    """The model, changed into torch's dynamic int8, a ReLU RNN by its linear layers."""
    layer = plain_layer(model.rnn)
    model.rnn = Plain(LinearRNN(layer) if isinstance(layer, nn.RNN) else layer)
    return quantize(model, {nn.GRU, nn.Linear}, inplace=True)


class Plain(nn.Module):
    """A layer of torch's in the place of one of ours, for whole utterances."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, lengths: None = None) -> tuple[Tensor, Tensor]:
        return self.layer(x)


def transcriber(
    model: DeepSpeech2, config: SpeechConfig, audio: np.ndarray, mean: Tensor | float = 0.0
) -> Callable[[], Tensor]:
    """From audio to the units of the best path; returns the log-probabilities less `mean`."""
    dtype = next(model.front_end.parameters()).dtype

    def transcribe() -> Tensor:
        features = torch.from_numpy(normalize(log_mel(audio, config), config)).to(dtype)
        output = model(features.unsqueeze(0))
        log_probs = model.get_normalized_probs(output, log_probs=True)[:, 0]
        greedy(log_probs.numpy())
        return log_probs - mean

    return transcribe


def stored_bytes(model: DeepSpeech2) -> int:
    """Bytes of what this variant computes with: packed arrays, and what stays dense."""
    packed = [m.W for m in model.rnn.modules() if isinstance(m, SparseLinear)]
    if not packed:
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        return file.tell()
    rest = sum(p.numel() * p.element_size() for p in model.parameters())
    rest -= sum(p.numel() * p.element_size() for p in model.rnn.parameters())
    biases = sum(m.bias.nbytes for m in model.rnn.modules() if isinstance(m, SparseLinear))
    return rest + biases + sum(W.nbytes for W in packed)


if __name__ == "__main__":
    main()
