"""Gives libsndfile MP3 files with a head that says how long they are.

It believes the Xing frame at the start, or guesses from the first frame's bitrate and the size of
the file. So it would read a part only, in silence, of files one after another and of a variable
bitrate without such a frame, and ask for more than there is where tags come first.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

# Kilobits a second of layer III, by the four bits in a frame's head: MPEG 1, and MPEG 2 and 2.5.
_KILOBITS = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
_HERTZ = (44100, 48000, 32000)
# Of the frame that is put in front: enough bytes for what it says, whatever the rate.
_HEAD_BITRATE = 5
# Its flag for "the number of frames follows".
_FRAMES = 1


class _Frame(NamedTuple):
    size: int  # bytes, head included
    rate: int
    is_mono: bool
    is_first_version: bool
    head: int


def read_with_length(path: Path) -> bytes | None:
    """The frames of an MP3 behind a Xing frame that counts them; None if it needs no help.

    None, too, for what is no MP3. ValueError if it ends within a frame or changes between rates or
    between mono and stereo, which libsndfile cannot read.
    """
    with open(path, "rb") as file:
        head = file.read(3)
        may_be_mp3 = head == b"ID3" or head[:1] == b"\xff"
        return _with_length(head + file.read()) if may_be_mp3 else None


def _with_length(data: bytes) -> bytes | None:
    start = _after_tags(data, 0)
    first = _frame(data, start)
    if first is None or not _is_frame(data, start + first.size, first):
        return None
    announced = _announced(data, start, first)
    if announced is not None:
        start += first.size
    frames = _frames(data, start, first)
    # With more announced than there are it is cut off, and libsndfile will say so.
    if announced and announced >= len(frames):
        return None
    return _head(first, len(frames)) + b"".join(frames)


def _frames(data: bytes, start: int, first: _Frame) -> list[bytes]:
    """All frames from there on; tags and what is no frame are left out."""
    frames = []
    is_in_step = True
    while start < len(data):
        frame = _frame(data, start)
        end = start if frame is None else start + frame.size
        # Bytes that look like a head are one where the frame before ends, or the next begins.
        if frame is None or not (is_in_step or _is_frame(data, end, frame)):
            behind_tags = _after_tags(data, start)
            is_in_step = behind_tags > start
            start = behind_tags if is_in_step else _next_head(data, start + 1)
            continue
        if end > len(data):
            raise ValueError(f"cut off: expected {end} bytes, got {len(data)}")
        if (frame.rate, frame.is_mono) != (first.rate, first.is_mono):
            raise ValueError(
                f"expected an MP3 of one rate and number of channels, got a change at byte {start}"
            )
        frames.append(data[start:end])
        start, is_in_step = end, True
    return frames


def _frame(data: bytes, start: int) -> _Frame | None:
    """The frame of layer III whose head is there, if it is one."""
    head = int.from_bytes(data[start : start + 4], "big") if start + 4 <= len(data) else 0
    version, layer, bitrate, hertz = (
        (head >> shift) & mask for shift, mask in ((19, 3), (17, 3), (12, 15), (10, 3))
    )
    if head >> 21 != 0x7FF or version == 1 or layer != 1 or bitrate in (0, 15) or hertz == 3:
        return None
    is_first = version == 3
    rate = _HERTZ[hertz] >> (0 if is_first else 1 if version == 2 else 2)
    bits = (144_000 if is_first else 72_000) * _KILOBITS[not is_first][bitrate]
    is_mono = head & 0xC0 == 0xC0
    return _Frame(bits // rate + (head >> 9 & 1), rate, is_mono, is_first, head)


def _is_frame(data: bytes, start: int, like: _Frame) -> bool:
    """Whether the data ends there, or goes on with a frame of that rate or with a tag."""
    frame = _frame(data, start)
    is_tag = data[start : start + 3] in (b"ID3", b"TAG", b"APE")
    return start == len(data) or is_tag or (frame is not None and frame.rate == like.rate)


def _next_head(data: bytes, start: int) -> int:
    """Where the next frame may begin; the data's end if nowhere."""
    found = data.find(b"\xff", start)
    return len(data) if found < 0 else found


def _after_tags(data: bytes, start: int) -> int:
    """Where the data goes on behind ID3v2 tags, whose lengths are in four times seven bits."""
    while data[start : start + 3] == b"ID3" and start + 10 <= len(data):
        length = 0
        for byte in data[start + 6 : start + 10]:
            length = length << 7 | byte & 0x7F
        start += 10 + length
    return start


def _side_information(frame: _Frame) -> int:
    """Its bytes, which follow the head, in front of where a Xing frame says what it is."""
    if frame.is_first_version:
        return 17 if frame.is_mono else 32
    return 9 if frame.is_mono else 17


def _announced(data: bytes, start: int, first: _Frame) -> int | None:
    """How many frames the Xing frame counts, 0 if it does not; None if it is no such frame."""
    # Some programs leave room for a checksum of two bytes, some do not.
    for begin in (start + 4 + _side_information(first), start + 6 + _side_information(first)):
        if data[begin : begin + 4] in (b"Xing", b"Info"):
            flags, count = struct.unpack(">2I", data[begin + 4 : begin + 12].ljust(8, b"\0"))
            return count if flags & _FRAMES else 0
    return None


def _head(first: _Frame, count: int) -> bytes:
    """A Xing frame for so many frames like the first one."""
    # No checksum, no padding, another bitrate.
    head = (first.head & ~0xF200 | 1 << 16 | _HEAD_BITRATE << 12).to_bytes(4, "big")
    text = head + bytes(_side_information(first)) + struct.pack(">4s2I", b"Xing", _FRAMES, count)
    return text.ljust(_frame(head, 0).size, b"\0")
