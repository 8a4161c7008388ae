"""Parse and format times and durations for people: `09:15`, `-10m`, `2 min 4 s`, in the local time zone."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta

import typer

from protocol.errors import ConfigurationError
from protocol.times import parse_time

_AGO = re.compile(r"-((?P<d>[0-9]+)d)?((?P<h>[0-9]+)h)?((?P<m>[0-9]+)m)?((?P<s>[0-9]+)s)?")
_WIRE_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.][0-9]+)?Z")
_CLOCK = re.compile(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})?")

TIME_HELP = "Examples: 09:15 (today, local time), 2026-11-22T09:15:00Z, -10m (ten minutes ago)."


def parse_time_option(text: str, option: str, *, now: datetime | None = None) -> float:
    """Parse a time and return seconds since the epoch. Raises `ConfigurationError` naming the option.

    A time without a date is today, a date without a time is midnight; both use the local zone unless the text has a
    zone (`Z`, `+09:00`). `-1h30m` is 90 minutes ago. `now`: the current time with its zone, by default the system's.
    """
    now_local = now or datetime.now().astimezone()
    stripped = text.strip()
    if stripped == "now":
        return now_local.timestamp()
    relative = _AGO.fullmatch(stripped)
    if relative is not None and any(relative.groupdict().values()):
        units = {name: int(value or 0) for name, value in relative.groupdict().items()}
        offset = timedelta(days=units["d"], hours=units["h"], minutes=units["m"], seconds=units["s"])
        return (now_local - offset).timestamp()
    try:
        if _CLOCK.fullmatch(stripped):
            clock = datetime.fromisoformat(f"2000-01-01T{stripped if stripped[1] != ':' else '0' + stripped}")
            today = now_local.astimezone(clock.tzinfo) if clock.tzinfo is not None else now_local
            return _in_zone(clock.replace(year=today.year, month=today.month, day=today.day), now)
        return _in_zone(datetime.fromisoformat(stripped), now)
    except (ValueError, OverflowError):
        raise ConfigurationError(f"{option}: {text!r} is not a valid time. {TIME_HELP}") from None


def _in_zone(moment: datetime, now: datetime | None) -> float:
    if moment.tzinfo is not None:
        return moment.timestamp()
    # Without `now`: the system's zone with the summer time of that day, not with today's offset.
    return (moment.astimezone() if now is None else moment.replace(tzinfo=now.tzinfo)).timestamp()


def local_time(moment: float | str | None, *, now: datetime | None = None) -> str:
    """Format a time in the local zone: `09:15:00` when it is today, else `2026-11-22 09:15:00`; "" without a time.

    This is the one format of times for people. Programs read RFC 3339 (`protocol.times.format_time`). `now`: the
    current time with the zone to use, by default the system's.
    """
    if moment is None or moment == "":
        return ""
    at = datetime.fromtimestamp(parse_time(moment) if isinstance(moment, str) else moment)
    local = at.astimezone(now.tzinfo if now is not None else None)
    today = (now or datetime.now()).date()
    return f"{local:%H:%M:%S}" if local.date() == today else f"{local:%Y-%m-%d %H:%M:%S}"


def is_wire_time(text: str) -> bool:
    """Return whether a text is nothing but a time as it is on the wire."""
    return _WIRE_TIME.fullmatch(text) is not None


def with_local_times(text: str, *, now: datetime | None = None) -> str:
    """Replace the RFC 3339 UTC times in a sentence by local times, to match the columns beside it."""
    return _WIRE_TIME.sub(lambda match: local_time(match.group(), now=now), text)


def zone_name(moment: float | None = None) -> str:
    """Return the local zone at a time (by default now): `KST (UTC+09:00)`."""
    at = datetime.fromtimestamp(time.time() if moment is None else moment).astimezone()
    offset = at.strftime("%z")
    return f"{at.tzname()} (UTC{offset[:3]}:{offset[3:]})"


def duration_text(seconds: float) -> str:
    """Format a duration: `2 min 4 s`."""
    total = max(0, round(seconds))
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    days, hours, minutes = total // 86400, total // 3600 % 24, total // 60 % 60
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (total % 60, "s")]
    named = [f"{number} {unit}" for number, unit in parts if number]
    return " ".join(named[:2]) or "0 s"


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")


def parse_duration(text: str) -> float:
    """Parse `90`, `90s`, `30m`, `12h` or `2d` and return seconds. Raises `typer.BadParameter`."""
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _UNITS[match[2] or "s"] if match else 0.0
    if seconds < 1:
        raise typer.BadParameter(f"{text!r} is not a duration such as 90s, 30m, 12h or 2d")
    if seconds > 3650 * 86400:
        raise typer.BadParameter(f"{text!r} is more than ten years")
    return seconds
