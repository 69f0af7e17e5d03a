"""Secrets that can be recognised wherever they come out, in whatever dress."""

from __future__ import annotations

import base64
import uuid

ODD = "@:/%?#[] ü'\"\\+&="


class Canary:
    """One secret: `value`, with characters that need quoting where `odd`; it holds a word that nothing else holds."""

    def __init__(self, *, odd: bool = False) -> None:
        self.word = f"cnry{uuid.uuid4().hex[:16]}"
        self.value = f"{self.word}{ODD}{self.word}" if odd else f"{self.word}/+={self.word}"

    def found_in(self, text: str) -> list[str]:
        """Return the lines that hold it: as it is, quoted, escaped (its word stays), in base64 or hex."""
        forms = [self.word, self.word[::-1], self.word.encode().hex(), *self._base64()]
        return [line for line in text.splitlines() if any(form.lower() in line.lower() for form in forms)]

    def _base64(self) -> list[str]:
        """Return what its word looks like in base64, wherever in three bytes it begins, without shared letters."""
        found = []
        for before in range(3):
            data = base64.b64encode(b"\0" * before + self.word.encode())
            first, last = -(-before * 8 // 6), (before + len(self.word)) * 8 // 6
            found.append(data[first:last].decode())
        return found
