"""Tells cut off audio files by their containers, where libsndfile would read them in silence."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

# A page has a head of 27 bytes, up to 255 lengths of segments, and up to 255 bytes in each.
_OGG_PAGE = 27 + 255 + 255 * 255
_OGG_END_OF_STREAM = 4


def cut_off(path: Path) -> str | None:
    """Why a WAV, AIFF or Ogg file must have been longer once; None if nothing says so.

    FLAC and MP3 need no such check: they hold fewer samples than their head announces.
    """
    size = os.stat(path).st_size
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] == b"OggS":
            return _ogg(file, size)
        end = 0
        if head[:4] == b"RIFF" and head[8:] == b"WAVE":
            end = _wav_end(file)
        elif head[:4] == b"FORM" and len(head) == 12:
            end = 8 + struct.unpack(">I", head[4:8])[0]
        return f"expected {end} bytes, got {size}" if end > size else None


def _wav_end(file: BinaryIO) -> int:
    """Where the samples should end, in bytes; 0 if the file does not say."""
    while len(chunk := file.read(8)) == 8:
        name, length = chunk[:4], struct.unpack("<I", chunk[4:])[0]
        if name == b"data":
            # Written to a pipe: no one could go back to fill in the length.
            return 0 if length >= 0x7FFFF000 else file.tell() + length
        file.seek(length + length % 2, os.SEEK_CUR)
    return 0


def _ogg(file: BinaryIO, size: int) -> str | None:
    file.seek(max(0, size - _OGG_PAGE))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    whole = len(page) > 26 and len(page) >= 27 + page[26] + sum(segments)
    if whole and page[5] & _OGG_END_OF_STREAM:
        return None
    return "expected a last Ogg page, got none that ends the stream"
