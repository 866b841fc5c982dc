"""What fairseq-generate decodes a speech model with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .ctc import GreedySearch, Hypothesis
from .fusion import as_language_model
from .prefix_beam import TOKEN_THRESHOLD, PrefixBeamSearch

LM_WEIGHT = 0.5


class CTCGenerator:
    """Labellings of the utterances of a batch, by their models' mean log-probabilities.

    The best path with beam 1 and neither language model nor `length_bonus`, else prefix beam
    search with `beam` prefixes. `lm_model`: an `rnnprune_gru_lm` with the same dictionary or a
    fusion.LanguageModel. The blank is the dictionary's `<s>`; no special symbol is emitted.
    """

    def __init__(
        self,
        models: Sequence[Any],
        dictionary: Any,
        beam: int = 1,
        nbest: int = 1,
        lm_model: Any = None,
        lm_weight: float = LM_WEIGHT,
        length_bonus: float = 0.0,
        token_threshold: float = TOKEN_THRESHOLD,
    ):
        if not 1 <= nbest <= beam:
            raise ValueError(
                f"CTCGenerator: expected 1 <= nbest <= beam, got nbest {nbest} and beam {beam}; "
                "raise --beam"
            )
        self.models = list(models)
        self.nbest = nbest
        self.blank, self.eos = dictionary.bos(), dictionary.eos()
        # fairseq-generate asks for these when it prints.
        self.symbols_to_strip_from_output = {self.blank, self.eos, dictionary.pad()}
        self._forbidden = [dictionary.pad(), self.eos, dictionary.unk()]
        self._is_greedy = beam == 1 and lm_model is None and length_bonus == 0
        self._options: dict[str, Any] = {}
        if not self._is_greedy:
            self._options = {
                "beam": beam,
                "lm_weight": 0.0 if lm_model is None else lm_weight,
                "length_bonus": length_bonus,
                "token_threshold": token_threshold,
            }
            if lm_model is not None:
                self._options["language_model"] = as_language_model(lm_model, dictionary)
            # Before hours of decoding, not after them.
            self.search()

    def search(self) -> GreedySearch | PrefixBeamSearch:
        """A search for one utterance, which takes its log-probabilities at once or as they come."""
        if self._is_greedy:
            return GreedySearch(self.blank, self._forbidden)
        return PrefixBeamSearch(blank=self.blank, forbidden=self._forbidden, **self._options)

    def generate(
        self,
        models: Sequence[Any],
        sample: dict[str, Any],
        prefix_tokens: Tensor | None = None,
        constraints: Tensor | None = None,
        **unused: Any,
    ) -> list[list[dict[str, Any]]]:
        """By utterance, up to `nbest` hypotheses, best first; at least one, which may be empty.

        "tokens" int64 [U]; "score", of the search, float; "positional_scores" float [U], the
        log-probability of every token in the frame that first emits it; "frames" int64 [U], these
        frames. ValueError for prefix tokens and constraints, which CTC has no use for.
        """
        for name, value in (("prefix tokens", prefix_tokens), ("constraints", constraints)):
            if value is not None:
                raise ValueError(
                    f"CTCGenerator: expected no {name}, got some; CTC decodes all frames, leave "
                    "--prefix-size and --constraints out"
                )
        return [self._decode(rows) for rows in log_probs_of(models, sample["net_input"])]

    def _decode(self, rows: np.ndarray) -> list[dict[str, Any]]:
        search = self.search()
        search.push(rows)
        return [_as_output(hypothesis, rows) for hypothesis in search.results(self.nbest)]


@torch.no_grad()
def log_probs_of(models: Sequence[Any], net_input: dict[str, Any]) -> list[np.ndarray]:
    """Log-probabilities [T', C] of every utterance, float32: the models' mean, normalised again.

    ValueError if the models do not make the same number of frames.
    """
    outputs, lengths = [], []
    for model in models:
        model.eval()
        output = model(**net_input)
        log_probs = model.get_normalized_probs(output, log_probs=True)
        outputs.append(log_probs.transpose(0, 1).float())
        lengths.append(_lengths(output["padding_mask"], outputs[-1]))
    if any(other != lengths[0] for other in lengths):
        raise ValueError(
            "CTCGenerator: expected models with equally many frames per utterance, got "
            f"{', '.join(str(max(other)) for other in lengths)}; decode them one by one"
        )
    mean = outputs[0]
    if len(outputs) > 1:
        mean = torch.stack(outputs).mean(dim=0).log_softmax(dim=-1)
    rows = mean.cpu().numpy()
    return [utterance[:length] for utterance, length in zip(rows, lengths[0], strict=True)]


def _lengths(padding_mask: Tensor | None, log_probs: Tensor) -> list[int]:
    if padding_mask is None:
        return [log_probs.shape[1]] * log_probs.shape[0]
    return padding_mask.logical_not().sum(dim=1).tolist()


def _as_output(hypothesis: Hypothesis, rows: np.ndarray) -> dict[str, Any]:
    tokens = torch.tensor(hypothesis.tokens, dtype=torch.int64)
    frames = torch.tensor(hypothesis.frames, dtype=torch.int64)
    return {
        "tokens": tokens,
        "score": torch.tensor(hypothesis.score),
        "attention": None,
        # Empty rather than None: fairseq-generate iterates over it with --print-alignment.
        "alignment": torch.empty(0),
        # A copy: fairseq-generate converts it in place.
        "positional_scores": torch.tensor(rows[frames.numpy(), tokens.numpy()]),
        "frames": frames,
    }
