"""Bounded decompression: a small gzip stream can hold gigabytes."""

from __future__ import annotations

import zlib

from stacworker.errors import Permanent

_MAGIC = b"\x1f\x8b\x08"
_GZIP_WBITS = 31
_PIECE_BYTES = 1 << 20


def is_gzip(data: bytes) -> bool:
    """Tell whether the data starts as gzip (RFC 1952: two magic bytes, method deflate)."""
    return data.startswith(_MAGIC)


def gunzip(data: bytes, max_bytes: int, origin: str) -> bytes:
    """Return the decompressed data; several concatenated members are one stream.

    Raises `Permanent`: `object_too_large` as soon as the result passes `max_bytes` (no more than that
    is ever held), `bad_gzip` when the stream is damaged or ends early.
    """
    pieces: list[bytes] = []
    room = max_bytes
    rest = data
    try:
        while rest:
            member = zlib.decompressobj(_GZIP_WBITS)
            while not member.eof:
                piece = member.decompress(rest, min(room + 1, _PIECE_BYTES))
                rest = member.unconsumed_tail
                if not piece and not rest and not member.eof:
                    raise Permanent(f"gzip data ends early: {origin}", error_class="bad_gzip")
                room -= len(piece)
                if room < 0:
                    raise Permanent(
                        f"larger than {max_bytes} bytes after decompression: {origin}",
                        error_class="object_too_large",
                    )
                pieces.append(piece)
            # Padding with zeros after the last member is common (tar, tape blocks) and not a member.
            rest = member.unused_data.lstrip(b"\0")
    except zlib.error as error:
        raise Permanent(f"gzip data is damaged ({error}): {origin}", error_class="bad_gzip") from error
    return b"".join(pieces)
