"""Dates, times and durations as text, in the forms of ISO 8601 that travel."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

_FRACTION: Final = re.compile(r"[.,](\d+)")
_DURATION: Final = re.compile(
    r"([+-])?P(?!$)(?:(\d+)W)?(?:(\d+)D)?(?:T(?!$)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:[.,](\d{1,9}))?S)?)?",
    re.IGNORECASE | re.ASCII,
)


def _normal(text: str) -> str:
    # Python 3.10 reads neither a `Z` nor any other number of decimals than 3 and 6.
    text = f"{text[:-1]}+00:00" if text[-1:] in ("Z", "z") else text
    return _FRACTION.sub(lambda found: f".{found[1][:6]:0<6}", text, count=1)


def parse_datetime(text: str) -> dt.datetime:
    """Read a datetime with or without an offset; raises `ValueError`."""
    if "T" not in text and "t" not in text and " " not in text:
        raise ValueError(text)
    return dt.datetime.fromisoformat(_normal(text))


def parse_time(text: str) -> dt.time:
    """Read a time of day; raises `ValueError`."""
    return dt.time.fromisoformat(_normal(text))


def parse_duration(text: str) -> dt.timedelta:
    """Read a duration in weeks, days, hours, minutes and seconds; raises `ValueError`."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(text)
    sign, weeks, days, hours, minutes, seconds, fraction = found.groups()
    value = dt.timedelta(
        weeks=int(weeks or 0),
        days=int(days or 0),
        hours=int(hours or 0),
        minutes=int(minutes or 0),
        seconds=int(seconds or 0),
        microseconds=int(f"{fraction or '0':0<6}"[:6]),
    )
    return -value if sign == "-" else value


def format_duration(value: dt.timedelta) -> str:
    """Write a duration in days and seconds: `P1DT2.5S`."""
    sign = "-" if value < dt.timedelta() else ""
    value = abs(value)
    parts = [sign, "P"]
    if value.days or not value:
        parts.append(f"{value.days}D")
    if value.seconds or value.microseconds:
        fraction = f".{value.microseconds:06d}".rstrip("0") if value.microseconds else ""
        parts.append(f"T{value.seconds}{fraction}S")
    return "".join(parts)
