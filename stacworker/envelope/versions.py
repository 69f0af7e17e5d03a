"""What orders the states of a document: the times and sequencers of envelopes, made comparable."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from stacworker.envelope.reasons import bad_envelope, shown

SEQUENCER_DIGITS = 32
"""Sequencers are 16 to 18 hexadecimal digits today; all are padded to this many, so that they compare."""

MAX_SKEW_MS = 300_000
"""How much later than the envelope around it an event may claim to be: clocks differ."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def time_ms(text: object) -> int:
    """Return an ISO 8601 time as milliseconds since the epoch (UTC where it names no offset).

    Raises `Permanent` when it is not one: a wrong time could let an old item win.
    """
    if isinstance(text, str):
        try:
            moment = datetime.fromisoformat(text.upper())
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return (moment - _EPOCH) // timedelta(milliseconds=1)
        except (ValueError, OverflowError):
            pass
    raise bad_envelope(f"the envelope's time must be like 2024-01-31T12:00:00.000Z, not {shown(text)}")


def event_ms(text: object, outer_ms: int) -> int:
    """Return the time of an event inside an envelope of `outer_ms` (0: not known), as `time_ms` does.

    Nothing happens after it was told of: a time that is later by more than `MAX_SKEW_MS` is of a wrong clock or
    forged, and would keep every later state of its item out. The envelope's own time is taken instead.
    """
    happened_ms = time_ms(text)
    return outer_ms if outer_ms and happened_ms > outer_ms + MAX_SKEW_MS else happened_ms


def padded_sequencer(text: object) -> str:
    """Return a sequencer that compares as text with any other: left-padded, upper case.

    Empty where there is none or where it is not a hexadecimal number of at most `SEQUENCER_DIGITS`
    digits: the event's time then decides alone.
    """
    if not isinstance(text, str) or not re.fullmatch(r"[0-9A-Fa-f]+", text):
        return ""
    digits = text.lstrip("0").upper()
    return digits.rjust(SEQUENCER_DIGITS, "0") if len(digits) <= SEQUENCER_DIGITS else ""
