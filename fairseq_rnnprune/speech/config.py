"""What has to be known of the data to turn audio into a model's input: speech.json."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NORMALIZATIONS = ("global", "utterance")
UNITS = ("characters", "sentencepiece")
FILE = "speech.json"


@dataclasses.dataclass(frozen=True)
class SpeechConfig:
    """Sample rate in Hz, mel bins, normalisation and units of a data folder.

    `mean` and `std` hold one value per mel bin of the training set's unnormalised log-mel
    features (natural logarithm); they are there exactly if the normalisation is global.
    """

    sample_rate: int = 16000
    mel_bins: int = 40
    normalization: str = "utterance"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    units: str = "characters"

    def __post_init__(self) -> None:
        _whole("sample_rate", self.sample_rate, 1000)
        _whole("mel_bins", self.mel_bins, 4)
        _one_of("normalization", self.normalization, NORMALIZATIONS)
        _one_of("units", self.units, UNITS)
        for name in ("mean", "std"):
            values = getattr(self, name)
            if self.normalization == "utterance":
                if values is not None:
                    raise ValueError(
                        f"SpeechConfig: expected no {name} with normalization 'utterance', got "
                        f"{len(values)} values; leave it out"
                    )
                continue
            _statistics(name, values, self.mel_bins)
            # JSON and checkpoints hold lists, which have no hash.
            object.__setattr__(self, name, tuple(float(v) for v in values))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain types only: str, int, float, list and None."""
        plain = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SpeechConfig:
        """The inverse of `to_dict`; ValueError for an unknown name or a value that is no good."""
        names = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(values) - set(names))
        if unknown:
            raise ValueError(
                f"SpeechConfig: expected the names {', '.join(names)}, got "
                f"{', '.join(map(str, unknown))}; a newer version may have written it"
            )
        return cls(**values)

    def save(self, folder: Path) -> Path:
        """Writes folder/speech.json, complete or not at all."""
        path = Path(folder, FILE)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
        return temporary.replace(path)

    @classmethod
    def load(cls, folder: Path) -> SpeechConfig:
        """Reads folder/speech.json; ValueError where it is missing or not what `save` writes."""
        path = Path(folder, FILE)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise ValueError(f"SpeechConfig: expected an object, got {type(values).__name__}")
            return cls.from_dict(values)
        except FileNotFoundError as error:
            raise ValueError(
                f"SpeechConfig: expected {path}, got no such file; run rnnprune prepare {folder}"
            ) from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}; run rnnprune prepare {folder}") from error


def _whole(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or value < least:
        raise ValueError(
            f"SpeechConfig: expected {name} to be a whole number >= {least}, got {value!r}"
        )


def _one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(
            f"SpeechConfig: expected {name} to be one of {', '.join(choices)}, got {value!r}"
        )


def _statistics(name: str, values: Any, bins: int) -> None:
    if not isinstance(values, (list, tuple)) or len(values) != bins:
        count = "none" if values is None else f"{values!r:.40}"
        raise ValueError(
            f"SpeechConfig: expected {name} to hold {bins} values, one per mel bin, got {count}"
        )
    for value in values:
        number = isinstance(value, (int, float)) and math.isfinite(value)
        if not number or (name == "std" and value <= 0):
            rule = "finite numbers" if name == "mean" else "finite numbers above 0"
            raise ValueError(f"SpeechConfig: expected {name} to hold {rule}, got {value!r}")
