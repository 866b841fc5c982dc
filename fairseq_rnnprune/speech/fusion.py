"""Language models for prefix beam search: a recurrent one over the same units, KenLM over words.

Shallow fusion: their log-probability, weighted, is added to a labelling's (arXiv 1408.2873, eq. 4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor


class LanguageModel(Protocol):
    """What the search asks of a language model; a state stands for a sequence of tokens.

    `end` is the column of `score` that ends the sentence.
    """

    end: int

    def start(self) -> Any:
        """The state of the empty sequence."""

    def advance(self, states: Sequence[Any], tokens: Sequence[int]) -> list[Any]:
        """The states of the sequences, each with one more token."""

    def score(self, states: Sequence[Any]) -> np.ndarray:
        """Log-probabilities (natural) of the next token [N, C] after each of N sequences."""


class _Recurrent(NamedTuple):
    hidden: Tensor
    scores: np.ndarray


class RecurrentLanguageModel:
    """An `rnnprune_gru_lm` over the dictionary of the speech model.

    A sequence begins after the end of another one, as in fairseq's language modelling. ValueError
    for another kind of model and for another dictionary: tokens would mean something else.
    """

    def __init__(self, model: Any, dictionary: Any):
        decoder = getattr(model, "decoder", None)
        if getattr(decoder, "gru", None) is None:
            raise ValueError(
                "RecurrentLanguageModel: expected an rnnprune_gru_lm, got "
                f"{type(model).__name__}; train one on the transcripts with --task "
                "language_modeling"
            )
        check_same_symbols(decoder.dictionary.symbols, dictionary.symbols)
        # Once prepared for inference, a model of fairseq returns nothing here.
        model.eval()
        self._model, self._decoder = model, decoder
        self._device = next(model.parameters()).device
        self.end = dictionary.eos()

    def start(self) -> _Recurrent:
        """As in LanguageModel."""
        return self._advance({}, [self.end])[0]

    def advance(self, states: Sequence[_Recurrent], tokens: Sequence[int]) -> list[_Recurrent]:
        """As in LanguageModel: one step of the GRU for all of them."""
        incremental: dict[str, Any] = {}
        hidden = torch.stack([state.hidden for state in states], dim=1)
        self._decoder.set_incremental_state(incremental, "cached_state", {"hidden": hidden})
        return self._advance(incremental, tokens)

    def score(self, states: Sequence[_Recurrent]) -> np.ndarray:
        """As in LanguageModel."""
        return np.stack([state.scores for state in states])

    @torch.no_grad()
    def _advance(self, incremental: dict[str, Any], tokens: Sequence[int]) -> list[_Recurrent]:
        inputs = torch.tensor(tokens, device=self._device)[:, None]
        output = self._decoder(inputs, incremental_state=incremental)
        scores = self._model.get_normalized_probs(output, log_probs=True, sample=None)
        rows = scores[:, -1].double().cpu().numpy()
        cached = self._decoder.get_incremental_state(incremental, "cached_state")
        return [
            _Recurrent(*pair) for pair in zip(cached["hidden"].unbind(dim=1), rows, strict=True)
        ]


class _Words(NamedTuple):
    context: Any
    # The letters of a word that has not ended yet, and the context after it.
    word: str
    after: Any
    scores: np.ndarray


class KenLanguageModel:
    """A KenLM file over words, which counts where a word ends: at a separator or with the sentence.

    path: an ARPA file or a binary one of build_binary. symbols: of the dictionary, by index.
    separator: what stands for a space in them, alone (`|`) or before the word that it begins
    (sentencepiece). Needs the library kenlm, or ImportError; ValueError for a file that is none.
    """

    def __init__(self, path: Path, symbols: Sequence[str], separator: str, end: int = 2):
        kenlm = _import_kenlm()
        config = kenlm.Config()
        config.show_progress = False
        config.arpa_complain = kenlm.ARPALoadComplain.NONE
        try:
            self._model = kenlm.Model(str(path), config)
        except OSError as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"KenLanguageModel: expected a language model of KenLM, got {path}: {reason}; give "
                "an ARPA file of lmplz or a file of build_binary"
            ) from error
        self._kenlm, self.end = kenlm, end
        self._symbols, self._separator = list(symbols), separator
        separates = [symbol.startswith(separator) for symbol in symbols]
        self._separators = np.flatnonzero(separates)
        if not len(self._separators):
            raise ValueError(
                f"KenLanguageModel: expected symbols that begin with {separator!r}, the space, got "
                f"none among {len(self._symbols)}; use a recurrent language model instead"
            )

    def start(self) -> _Words:
        """As in LanguageModel."""
        context = self._kenlm.State()
        self._model.BeginSentenceWrite(context)
        return self._state(context, "")

    def advance(self, states: Sequence[_Words], tokens: Sequence[int]) -> list[_Words]:
        """As in LanguageModel."""
        symbols = (self._symbols[token] for token in tokens)
        return [self._extend(*pair) for pair in zip(states, symbols, strict=True)]

    def score(self, states: Sequence[_Words]) -> np.ndarray:
        """As in LanguageModel; 0 for a token that does not end a word."""
        return np.stack([state.scores for state in states])

    def _extend(self, state: _Words, symbol: str) -> _Words:
        if symbol.startswith(self._separator):
            return self._state(state.after, symbol[len(self._separator) :])
        return self._state(state.context, state.word + symbol)

    def _state(self, context: Any, word: str) -> _Words:
        after, score, ended = context, 0.0, self._kenlm.State()
        if word:
            after = self._kenlm.State()
            score = self._model.BaseScore(context, word, after)
        scores = np.zeros(len(self._symbols))
        scores[self._separators] = score
        scores[self.end] = score + self._model.BaseScore(after, "</s>", ended)
        return _Words(context, word, after, scores * math.log(10))


def as_language_model(model: Any, dictionary: Any) -> LanguageModel:
    """A LanguageModel as it is, a model of fairseq as a RecurrentLanguageModel."""
    if all(hasattr(model, name) for name in ("start", "advance", "score", "end")):
        return model
    return RecurrentLanguageModel(model, dictionary)


def check_same_symbols(symbols: Sequence[str], expected: Sequence[str]) -> None:
    """ValueError if a language model's symbols differ from the speech model's, in order."""
    advice = "binarise its text with fairseq-preprocess --srcdict and the dict.txt of the speech"
    if len(symbols) != len(expected):
        raise ValueError(
            f"check_same_symbols: expected a language model over the speech model's {len(expected)}"
            f" symbols, got {len(symbols)}; {advice}"
        )
    for index, (symbol, other) in enumerate(zip(symbols, expected, strict=True)):
        if symbol != other:
            raise ValueError(
                "check_same_symbols: expected a language model over the speech model's symbols, "
                f"got {symbol!r} in place of {other!r} at {index}; {advice}"
            )


def _import_kenlm() -> Any:
    try:
        import kenlm
    except ImportError as error:
        raise ImportError(
            f"KenLanguageModel: expected the library kenlm, got {error}; run pip install kenlm, "
            "which compiles it with a C++ compiler and cmake"
        ) from error
    return kenlm
