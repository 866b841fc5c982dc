"""The dataset of a split: features and indices of units, in batches of similar length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from fairseq.data import Dictionary, FairseqDataset, data_utils
from fairseq.data.audio.feature_transforms.specaugment import SpecAugmentTransform

from .cache import FeatureCache
from .config import SpeechConfig
from .dictionary import encode
from .features import changed_length, frame_count, normalize
from .manifest import Utterance
from .padding import pad_sources
from .units import Units


class SpeechDataset(FairseqDataset):
    """Utterances as a model for CTC takes them; no audio is read before an item is asked for.

    `shuffle`: batches of similar length, made at random from `seed` (fairseq's iterator then
    shuffles the batches of every epoch); otherwise the order of the utterances. `spec_augment`
    (see `make_spec_augment`) and one of `speeds` are drawn anew from seed, epoch and index: an
    item does not depend on how many workers there are, nor on where a training was resumed.
    Lengths are in frames of `log_mel`, at the slowest speed, and come from `Utterance.samples`.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        config: SpeechConfig,
        dictionary: Dictionary,
        units: Units,
        cache: FeatureCache,
        *,
        shuffle: bool = False,
        seed: int = 1,
        spec_augment: Callable[[np.ndarray], np.ndarray] | None = None,
        speeds: Sequence[float] = (1.0,),
    ):
        if not speeds or min(speeds) <= 0:
            raise ValueError(f"SpeechDataset: expected speeds above 0, got {list(speeds)}")
        self.utterances = list(utterances)
        self.config, self.dictionary, self.units = config, dictionary, units
        self.cache, self.shuffle, self.seed = cache, shuffle, seed
        # Shared: fairseq keeps its worker processes, and calls set_epoch here only.
        self._epoch = torch.ones((), dtype=torch.int64).share_memory_()
        self.spec_augment, self.speeds = spec_augment, tuple(speeds)
        longest = (changed_length(u.samples, min(speeds)) for u in self.utterances)
        self.sizes = np.array([frame_count(n, config.sample_rate) for n in longest], dtype=np.int64)

    @property
    def epoch(self) -> int:
        """Of the training, from 1, in worker processes too."""
        return int(self._epoch)

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """{"row", "source": float32 [T, F], normalised, "target": int64 [U]}.

        The row is the manifest's, or the index of an utterance of no manifest.
        """
        index = int(index)
        utterance = self.utterances[index]
        with data_utils.numpy_seed(self.seed, self.epoch, index):
            # Drawn even if there is one only, so that what follows does not depend on it.
            speed = self.speeds[np.random.randint(len(self.speeds))]
            features = self.cache.features(utterance.path, self.config, speed)
            features = normalize(features, self.config)
            if self.spec_augment is not None:
                features = self.spec_augment(features)
        target = encode(utterance.text, self.units, self.dictionary)
        row = index if utterance.row < 0 else utterance.row
        return {"row": row, "source": torch.from_numpy(features), "target": target}

    def collater(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The batch of wav2vec's form: see the arguments of the `ctc` criterion; "id" has rows."""
        if not samples:
            return {}
        sources, targets = [s["source"] for s in samples], [s["target"] for s in samples]
        target_lengths = torch.tensor([len(t) for t in targets])
        return {
            "id": torch.tensor([s["row"] for s in samples]),
            "nsentences": len(samples),
            "ntokens": int(target_lengths.sum()),
            "net_input": pad_sources(sources),
            "target": torch.nn.utils.rnn.pad_sequence(
                targets, batch_first=True, padding_value=self.dictionary.pad()
            ),
            "target_lengths": target_lengths,
        }

    def num_tokens(self, index: int) -> int:
        """Frames of an utterance at the slowest speed: what --max-tokens counts."""
        return int(self.sizes[index])

    def num_tokens_vec(self, indices: np.ndarray) -> np.ndarray:
        """`num_tokens` of several utterances."""
        return self.sizes[indices]

    def size(self, index: int) -> int:
        """Frames of an utterance at the slowest speed."""
        return int(self.sizes[index])

    def ordered_indices(self) -> np.ndarray:
        """By length and otherwise at random for training, else as in the manifest."""
        if not self.shuffle:
            return np.arange(len(self), dtype=np.int64)
        order = np.random.default_rng(self.seed).permutation(len(self))
        return order[np.argsort(self.sizes[order], kind="stable")]

    def batch_by_size(
        self, indices: np.ndarray, max_tokens: int | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """fairseq's; ValueError, naming it, for a recording that is longer than a batch may be."""
        if max_tokens is not None and len(indices):
            longest = indices[self.sizes[indices].argmax()]
            if self.sizes[longest] > max_tokens:
                raise ValueError(
                    f"{self.utterances[longest].path}: expected at most --max-tokens {max_tokens} "
                    f"frames, got {self.sizes[longest]}; give more (for validation, as "
                    "--max-tokens-valid), or --batch-size alone (fairseq-generate without either "
                    "takes 12000)"
                )
        return super().batch_by_size(indices, max_tokens, *args, **kwargs)

    def set_epoch(self, epoch: int) -> None:
        """What is drawn for an item depends on the epoch; lengths, and so batches, do not."""
        self._epoch.fill_(epoch)


def make_spec_augment(
    mel_bins: int, freq_masks: int, freq_width: int, time_masks: int, time_width: int, share: float
) -> SpecAugmentTransform | None:
    """fairseq's SpecAugment (arXiv 1904.08779) without time warping, on normalised features.

    Masks are 0, the mean. Widths are below `freq_width` bins and `time_width` frames, the latter
    also below `share` of the utterance, in [0, 1]. None if there is no mask.
    """
    for name, masks, width in (("freq", freq_masks, freq_width), ("time", time_masks, time_width)):
        if masks < 0 or (masks and width < 1):
            raise ValueError(
                f"make_spec_augment: expected {name} masks >= 0 of a width >= 1, got {masks} of "
                f"width {width}"
            )
    # fairseq would then mask nothing at all, and not say so.
    if freq_masks and freq_width > mel_bins:
        raise ValueError(
            f"make_spec_augment: expected a width of frequency masks <= {mel_bins}, the mel bins, "
            f"got {freq_width}"
        )
    if not 0 <= share <= 1:
        raise ValueError(f"make_spec_augment: expected a share in [0, 1], got {share}")
    if not freq_masks and not time_masks:
        return None
    return SpecAugmentTransform(
        freq_mask_n=freq_masks,
        freq_mask_f=freq_width if freq_masks else 0,
        time_mask_n=time_masks,
        time_mask_t=time_width if time_masks else 0,
        time_mask_p=share,
        mask_value=0.0,
    )
