"""Keeps features: in a folder, so that no run computes them twice, and in memory."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from .audio import read_audio
from .config import SpeechConfig
from .features import SHIFT_MS, VERSION, WINDOW_MS, change_speed, log_mel

logger = logging.getLogger(__name__)

FOLDER = "features"
_CHECKSUM_BYTES = 4
# Several splits share a folder; one complaint about it will do.
_complained: set[Path] = set()


class FeatureCache:
    """Unnormalised log-mel features of files, computed when first asked for.

    A file of the folder is an .npy with its CRC-32 behind it. Its name hashes all that the
    features depend on: the audio file's place, size and time of change, and the settings; what is
    moved as a whole, audio and folder, stays valid. A damaged file is computed again. A folder
    that cannot be written is said once, and features then stay in memory only.

    `memory_bytes` bounds what is kept in memory; beyond it, the folder serves.
    """

    def __init__(self, folder: Path, memory_bytes: int = 1 << 30):
        self.folder = Path(folder)
        self.memory_bytes = memory_bytes
        self._memory: dict[str, np.ndarray] = {}
        self._used = 0
        self._writable = True
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            self._only_memory(error)

    def features(self, path: Path, config: SpeechConfig, speed: float = 1.0) -> np.ndarray:
        """The features float32 [T, F] of a file, read-only; AudioError as of `read_audio`."""
        key = self._key(path, config, speed)
        found = self._memory.get(key) if key else None
        if found is not None:
            return found
        found = self._read(key, config.mel_bins) if key else None
        if found is None:
            audio = read_audio(path, config.sample_rate)
            found = log_mel(audio if speed == 1.0 else change_speed(audio, speed), config)
            if key:
                self._write(key, found)
        found.setflags(write=False)
        if key and self._used + found.nbytes <= self.memory_bytes:
            self._memory[key] = found
            self._used += found.nbytes
        return found

    def has(self, path: Path, config: SpeechConfig) -> bool:
        """Whether its features were computed before: the audio file is then known to be good."""
        key = self._key(path, config, 1.0)
        return key is not None and (key in self._memory or self._file(key).is_file())

    def __getstate__(self) -> dict[str, Any]:
        # A worker process fills its own memory; the features would be slower to send than to read.
        return {**self.__dict__, "_memory": {}, "_used": 0}

    def _key(self, path: Path, config: SpeechConfig, speed: float) -> str | None:
        try:
            status = os.stat(path)
        # A path with a NUL is a ValueError.
        except (OSError, ValueError):
            # read_audio finds the words for it.
            return None
        place = os.path.relpath(Path(path).resolve(), self.folder.resolve())
        facts = (
            *(VERSION, config.sample_rate, config.mel_bins, WINDOW_MS, SHIFT_MS, float(speed)),
            *(status.st_size, status.st_mtime_ns, place),
        )
        return hashlib.blake2b(repr(facts).encode("utf-8", "surrogateescape")).hexdigest()[:32]

    def _file(self, key: str) -> Path:
        # Folders of a hundred thousand files are slow to list.
        return self.folder / key[:2] / f"{key}.npy"

    def _read(self, key: str, bins: int) -> np.ndarray | None:
        """The features if their file is there and whole."""
        try:
            data = self._file(key).read_bytes()
        except OSError:
            return None
        array, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
        if zlib.crc32(array).to_bytes(_CHECKSUM_BYTES, "little") != checksum:
            logger.warning("%s is damaged; its features are computed again", self._file(key))
            return None
        found = np.load(io.BytesIO(array), allow_pickle=False)
        assert found.dtype == np.float32 and found.ndim == 2 and found.shape[1] == bins
        return found

    def _write(self, key: str, features: np.ndarray) -> None:
        """Writes a file so that other processes see all of it or nothing."""
        if not self._writable:
            return
        buffer = io.BytesIO()
        np.save(buffer, features, allow_pickle=False)
        array = buffer.getvalue()
        path = self._file(key)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            path.parent.mkdir(exist_ok=True)
            temporary.write_bytes(array + zlib.crc32(array).to_bytes(_CHECKSUM_BYTES, "little"))
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            self._only_memory(error)

    def _only_memory(self, error: OSError) -> None:
        self._writable = False
        if self.folder in _complained:
            return
        _complained.add(self.folder)
        logger.warning(
            "features are kept in memory only: cannot write to %s (%s)", self.folder, error.strerror
        )
