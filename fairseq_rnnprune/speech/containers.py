"""Tells audio files of which libsndfile would read a part in silence, by their containers."""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import BinaryIO

_OGG_HEAD = 27
_OGG_END_OF_STREAM = 4
# RF64 and BW64: a length that does not fit into 32 bits is in the chunk ds64.
_ELSEWHERE = 0xFFFFFFFF
# Of Sony's W64, whose chunks have names of 16 bytes, and lengths that count the head's 24.
_W64_RIFF, _W64_DATA = (
    bytes.fromhex(text)
    for text in ("726966662e91cf11a5d628db04c10000", "64617461f3acd3118cd100c04f8edb8a")
)


def unread(path: Path) -> str | None:
    """Why libsndfile would read a part only; None if nothing says so.

    A WAV (RIFX, RF64, W64), AIFF, AU, CAF, NIST SPHERE or Ogg file that must have been longer
    once, or Ogg streams one after another. FLAC needs no such check: it holds fewer samples than
    its head announces. For MP3 see `mpeg`.
    """
    size = os.stat(path).st_size
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] == b"OggS":
            return _ogg(file, size)
        end = 0
        if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:] == b"WAVE":
            end = _wav_end(file, ">" if head[:4] == b"RIFX" else "<")
        elif head == _W64_RIFF[:12]:
            end = _w64_end(file, size)
        elif head[:4] == b"FORM" and len(head) == 12:
            end = 8 + struct.unpack(">I", head[4:8])[0]
        elif head[:4] == b".snd" and len(head) == 12:
            start, length = struct.unpack(">2I", head[4:])
            end = 0 if length == _ELSEWHERE else start + length
        elif head[:4] == b"caff":
            end = _caf_end(file, size)
        elif head[:8] == b"NIST_1A\n":
            end = _nist_end(file)
        return f"cut off: expected {end} bytes, got {size}" if end > size else None


def _wav_end(file: BinaryIO, order: str) -> int:
    """Where the samples should end, in bytes; 0 if the file does not say. `order` is of bytes."""
    long_length = 0
    while len(chunk := file.read(8)) == 8:
        name, length = chunk[:4], struct.unpack(f"{order}I", chunk[4:])[0]
        if name == b"data" and length == _ELSEWHERE and long_length:
            return file.tell() + long_length
        if name == b"data":
            # Written to a pipe: no one could go back to fill in the length.
            return 0 if length >= 0x7FFFF000 else file.tell() + length
        start = file.tell()
        if name == b"ds64" and len(lengths := file.read(16)) == 16:
            long_length = struct.unpack("<2Q", lengths)[1]
        file.seek(start + length + length % 2)
    return 0


def _w64_end(file: BinaryIO, size: int) -> int:
    """As `_wav_end`; or where another chunk should, if that is beyond the file."""
    # After the head's name, its length, and the name of the format.
    file.seek(40)
    while len(chunk := file.read(24)) == 24:
        length = struct.unpack("<Q", chunk[16:])[0]
        end = file.tell() - 24 + length
        if chunk[:16] == _W64_DATA or length < 24 or end > size:
            return end
        # Chunks begin at multiples of 8.
        file.seek(end + -length % 8)
    return 0


def _caf_end(file: BinaryIO, size: int) -> int:
    """As `_w64_end`."""
    file.seek(8)
    while len(chunk := file.read(12)) == 12:
        name, length = struct.unpack(">4sq", chunk)
        # -1: to the end of the file.
        if length < 0:
            break
        end = file.tell() + length
        if name == b"data" or end > size:
            return end
        file.seek(end)
    return 0


def _nist_end(file: BinaryIO) -> int:
    """As `_wav_end`; the head is lines of a name, a type and a value."""
    file.seek(0)
    lines = file.read(1024).split(b"\n")
    fields = {words[0]: words[2] for words in map(bytes.split, lines) if len(words) == 3}
    sizes = (b"sample_count", b"channel_count", b"sample_n_bytes")
    if b"shorten" in fields.get(b"sample_coding", b""):
        # Compressed, which libsndfile does not read.
        return 0
    try:
        return int(lines[1]) + math.prod(int(fields[name]) for name in sizes)
    except (KeyError, IndexError, ValueError):
        return 0


def _ogg(file: BinaryIO, size: int) -> str | None:
    """Goes from page to page; several streams at a time, as video has them, end one by one."""
    start, open_streams = 0, set()
    while start < size:
        file.seek(start)
        head = file.read(_OGG_HEAD)
        if len(head) < _OGG_HEAD or head[:4] != b"OggS":
            break
        segments = file.read(head[26])
        start += _OGG_HEAD + head[26] + sum(segments)
        if len(segments) < head[26] or start > size:
            break
        stream = head[14:18]
        open_streams.add(stream)
        if head[5] & _OGG_END_OF_STREAM:
            open_streams.discard(stream)
            if not open_streams:
                file.seek(start)
                is_last = file.read(4) != b"OggS"
                return (
                    None if is_last else f"expected one Ogg stream, got more from byte {start} on"
                )
    return "cut off: expected a last Ogg page, got none that ends the stream"
