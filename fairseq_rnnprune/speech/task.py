"""`rnnprune_speech`: recordings in, characters or sentencepieces out, through CTC."""

# fairseq reads the types of options from typing's spelling: no deferred annotations, no X | None.
# ruff: noqa: UP045

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import torch
from fairseq.data import Dictionary
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.tasks import FairseqTask
from omegaconf import II, MISSING

from .cache import FOLDER, FeatureCache
from .checks import POLICIES, usable_utterances, warn_of_texts
from .config import SpeechConfig
from .dataset import SpeechDataset, make_spec_augment
from .dictionary import dictionary_folder, load_dictionary, make_dictionary, symbols_of
from .fusion import KenLanguageModel, check_same_symbols
from .generator import CTCGenerator
from .manifest import read_manifest
from .units import DICTIONARY_FILE, CharacterUnits, SentencePieceUnits, Units, load_units


@dataclass
class SpeechTaskConfig(FairseqDataclass):
    """Options of `rnnprune_speech`. How audio becomes features is fixed by `rnnprune prepare`."""

    data: str = field(
        default=MISSING, metadata={"help": "folder with the manifests, after rnnprune prepare"}
    )
    bad_utterances: ChoiceEnum(list(POLICIES)) = field(
        default="refuse",
        metadata={"help": "what cannot be used: refuse names it and stops, skip names it"},
    )
    feature_cache: Optional[str] = field(
        default=None, metadata={"help": f"folder of computed features (default: DATA/{FOLDER})"}
    )
    speeds: str = field(
        default="1.0",
        metadata={"help": "in training, one of these speeds at random, such as 0.9,1.0,1.1"},
    )
    freq_masks: int = field(
        default=0, metadata={"help": "SpecAugment in training: frequency masks per utterance"}
    )
    freq_mask_width: int = field(
        default=8, metadata={"help": "mel bins that a frequency mask stays below"}
    )
    time_masks: int = field(
        default=0, metadata={"help": "SpecAugment in training: time masks per utterance"}
    )
    time_mask_width: int = field(
        default=40, metadata={"help": "frames (10 ms) that a time mask stays below"}
    )
    time_mask_share: float = field(
        default=0.2, metadata={"help": "share of the utterance that a time mask stays below"}
    )
    kenlm: Optional[str] = field(
        default=None,
        metadata={
            "help": "in fairseq-generate, a file of KenLM over words, with the weight --lm-weight "
            "(fairseq's default is 0); use it with --beam 16 or more"
        },
    )
    length_bonus: float = field(
        default=0.0, metadata={"help": "in fairseq-generate, added to the score for every unit"}
    )
    seed: int = II("common.seed")


class SpeechTask(FairseqTask):
    """Manifests of recordings and transcripts, for a model that is trained with CTC.

    `config`, `units` and `target_dictionary` are kept in the checkpoint: with it alone, audio can
    be transcribed. A generated split keeps the order of its manifest.
    """

    cfg: SpeechTaskConfig

    def __init__(self, cfg: SpeechTaskConfig, config: SpeechConfig, units: Units, dictionary: Any):
        super().__init__(cfg)
        self._set(config, units, dictionary)
        self._output_lengths = None

    @classmethod
    def setup_task(cls, cfg: SpeechTaskConfig, from_checkpoint: bool = False) -> "SpeechTask":
        if from_checkpoint:
            # load_state_dict, the next call, has the real ones.
            return cls(cfg, SpeechConfig(), CharacterUnits(), Dictionary())
        folder = Path(cfg.data)
        config = SpeechConfig.load(folder)
        return cls(cfg, config, load_units(config.units, folder), load_dictionary(folder))

    def _set(self, config: SpeechConfig, units: Units, dictionary: Dictionary) -> None:
        self.config, self.units, self._dictionary = config, units, dictionary

    @property
    def source_dictionary(self) -> None:
        return None

    @property
    def target_dictionary(self) -> Dictionary:
        return self._dictionary

    def max_positions(self) -> None:
        """There is no limit."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the task: plain types and tensors."""
        model = getattr(self.units, "model", None)
        return {
            "config": self.config.to_dict(),
            "symbols": symbols_of(self._dictionary),
            "sentencepiece": None
            if model is None
            else torch.tensor(list(model), dtype=torch.uint8),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`; ValueError where the data folder was prepared otherwise."""
        config = SpeechConfig.from_dict(state["config"])
        symbols, model = state["symbols"], state["sentencepiece"]
        mine = symbols_of(self._dictionary)
        if mine and (mine != symbols or self.config != config):
            what = "units" if mine != symbols else "features"
            raise ValueError(
                f"SpeechTask: expected data with the {what} of the checkpoint, got other ones in "
                f"{self.cfg.data}; copy speech.json, dict.txt and, if there, sentencepiece.model "
                "from the training's data there"
            )
        units = CharacterUnits() if model is None else SentencePieceUnits(bytes(model.tolist()))
        self._set(config, units, make_dictionary(symbols))

    def build_model(self, cfg: FairseqDataclass, from_checkpoint: bool = False) -> Any:
        model = super().build_model(cfg, from_checkpoint)
        self._output_lengths = model.output_lengths
        return model

    def load_dataset(self, split: str, **kwargs: Any) -> None:
        """Reads a manifest; what cannot be used is refused or skipped by --bad-utterances."""
        cfg = self.cfg
        # Only the trainer selects data; a decoded training set must not be augmented.
        training = "data_selector" in kwargs
        another = Path(cfg.data, f"{split}1.tsv")
        if kwargs.get("combine") and not training and another.exists():
            raise ValueError(
                f"SpeechTask: expected one manifest with --combine-valid-subsets, got {another}, "
                f"too; join them, or give --valid-subset {split},{another.stem}"
            )
        # fairseq-generate gives no epoch: it may decode what no dictionary could spell.
        decoding = "epoch" not in kwargs
        speeds = parse_speeds(cfg.speeds) if training else (1.0,)
        features = FeatureCache(Path(cfg.feature_cache or Path(cfg.data, FOLDER)))
        manifest = Path(cfg.data, f"{split}.tsv")
        utterances = usable_utterances(
            read_manifest(manifest),
            self.config,
            features,
            self.units,
            self.target_dictionary,
            policy=cfg.bad_utterances,
            name=manifest.name,
            output_lengths=None if decoding else self._output_lengths,
            speed=max(speeds),
            check_text=not decoding,
        )
        if decoding:
            dictionary = self.target_dictionary
            warn_of_texts(utterances, self.config, self.units, dictionary, manifest.name)
        augmentation: dict[str, Any] = {}
        if training:
            augmentation = {
                "shuffle": True,
                "seed": cfg.seed,
                "speeds": speeds,
                "spec_augment": make_spec_augment(
                    self.config.mel_bins,
                    cfg.freq_masks,
                    cfg.freq_mask_width,
                    cfg.time_masks,
                    cfg.time_mask_width,
                    cfg.time_mask_share,
                ),
            }
        self.datasets[split] = SpeechDataset(
            utterances, self.config, self.target_dictionary, self.units, features, **augmentation
        )

    def get_interactive_tokens_and_lengths(self, *unused: Any) -> None:
        """ValueError: what fairseq-interactive reads is text."""
        raise ValueError(
            f"fairseq-interactive: expected a task with text as input, got {type(self).__name__}; "
            "use rnnprune transcribe"
        )

    def build_generator(
        self,
        models: Sequence[Any],
        args: Any,
        seq_gen_cls: Any = None,
        extra_gen_cls_kwargs: Optional[dict[str, Any]] = None,
        **unused: Any,
    ) -> CTCGenerator:
        """Greedy at --beam 1 without a language model and length bonus, else prefix beam search.

        ValueError for --kenlm together with --lm-path, for a language model over other symbols, and
        for options that mean nothing here.
        """
        for option in (
            "sampling",
            "constraints",
            "score_reference",
            "print_step",
            "retain_iter_history",
        ):
            if getattr(args, option, False):
                raise ValueError(
                    f"--{option.replace('_', '-')}: expected options of a model trained with CTC, "
                    "got this one, which has no meaning there; leave it out"
                )
        options = {"length_bonus": self.cfg.length_bonus, **(extra_gen_cls_kwargs or {})}
        if getattr(args, "lm_path", None):
            # fairseq-generate gives a language model the dictionary of this task, whatever its own.
            own = Dictionary.load(str(dictionary_folder(Path(args.lm_path)) / DICTIONARY_FILE))
            check_same_symbols(own.symbols, self.target_dictionary.symbols)
        if self.cfg.kenlm is not None:
            if options.get("lm_model") is not None:
                raise ValueError(
                    f"--kenlm: expected no --lm-path as well, got --kenlm {self.cfg.kenlm} and "
                    "another language model; leave one of them out"
                )
            dictionary = self.target_dictionary
            options["lm_model"] = KenLanguageModel(
                Path(self.cfg.kenlm), dictionary.symbols, self.units.reserved, dictionary.eos()
            )
        return CTCGenerator(
            models,
            self.target_dictionary,
            beam=args.beam,
            nbest=args.nbest,
            **options,
        )


def parse_speeds(text: str) -> tuple[float, ...]:
    """ "0.9,1.0" to (0.9, 1.0); ValueError for anything but numbers from 0.5 to 2."""
    try:
        speeds = tuple(float(part) for part in str(text).split(","))
    except ValueError:
        speeds = ()
    if not speeds or not all(0.5 <= speed <= 2 for speed in speeds):
        raise ValueError(
            f"--speeds: expected numbers from 0.5 to 2 such as 0.9,1.0,1.1, got {text!r}"
        )
    return speeds
