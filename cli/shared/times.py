"""Moments as people say and read them: `09:15`, `-10m`, the local zone."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta, tzinfo

import typer

from protocol.errors import ConfigurationError
from protocol.times import parse_time

_AGO = re.compile(r"-((?P<d>[0-9]+)d)?((?P<h>[0-9]+)h)?((?P<m>[0-9]+)m)?((?P<s>[0-9]+)s)?")
_WIRE_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.][0-9]+)?Z")
_CLOCK = re.compile(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})?")

TIME_HELP = "09:15, 2026-11-22T09:15:00Z, or -10m for ten minutes ago; today and the local zone unless said."


def parse_time_option(text: str, option: str, *, now: datetime | None = None) -> float:
    """Seconds since the epoch. `now` (with a zone) is today, here. Raises `ConfigurationError` naming the option.

    A clock time without a date is today's, a date alone its midnight, and both are of the local zone unless a zone
    is said (`Z`, `+09:00`). `-1h30m` is so long ago.
    """
    here = now or datetime.now().astimezone()
    stripped = text.strip()
    if stripped == "now":
        return here.timestamp()
    ago = _AGO.fullmatch(stripped)
    if ago is not None and any(ago.groupdict().values()):
        parts = {name: int(value or 0) for name, value in ago.groupdict().items()}
        past = timedelta(days=parts["d"], hours=parts["h"], minutes=parts["m"], seconds=parts["s"])
        return (here - past).timestamp()
    try:
        if _CLOCK.fullmatch(stripped):
            clock = datetime.fromisoformat(f"2000-01-01T{stripped if stripped[1] != ':' else '0' + stripped}")
            today = here.astimezone(clock.tzinfo) if clock.tzinfo is not None else here
            return _in_zone(clock.replace(year=today.year, month=today.month, day=today.day), now)
        return _in_zone(datetime.fromisoformat(stripped), now)
    except (ValueError, OverflowError):
        raise ConfigurationError(f"{option}: {text!r} is no time: say {TIME_HELP}") from None


def _in_zone(moment: datetime, now: datetime | None) -> float:
    if moment.tzinfo is not None:
        return moment.timestamp()
    # Without `now` the system's zone with its summer time at that moment, not the offset of today.
    return (moment.astimezone() if now is None else moment.replace(tzinfo=now.tzinfo)).timestamp()


def local_time(moment: float | str | None, *, zone: tzinfo | None = None) -> str:
    """`2026-11-22 09:15:00.250` in the local zone (or `zone`); nothing for nothing."""
    if moment is None or moment == "":
        return ""
    seconds = parse_time(moment) if isinstance(moment, str) else moment
    return datetime.fromtimestamp(seconds).astimezone(zone).isoformat(" ", "milliseconds")[:23]


def with_local_times(text: str, *, zone: tzinfo | None = None) -> str:
    """A sentence with its wire times (RFC 3339 UTC) as `local_time` shows them, beside columns that do the same."""
    return _WIRE_TIME.sub(lambda found: local_time(found.group(), zone=zone), text)


def zone_name(moment: float | None = None) -> str:
    """The local zone at that moment, `KST (UTC+09:00)`."""
    there = datetime.fromtimestamp(time.time() if moment is None else moment).astimezone()
    offset = there.strftime("%z")
    return f"{there.tzname()} (UTC{offset[:3]}:{offset[3:]})"


def duration_text(seconds: float) -> str:
    """A length of time in words: `2 min 4 s`."""
    whole = max(0, round(seconds))
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (whole % 60, "s")]
    named = [f"{number} {unit}" for number, unit in parts if number]
    return " ".join(named[:2]) or "0 s"


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")


def parse_duration(text: str) -> float:
    """`90`, `90s`, `30m`, `12h`, `2d` as seconds. Raises `typer.BadParameter`."""
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _UNITS[match[2] or "s"] if match else 0.0
    if seconds < 1:
        raise typer.BadParameter(f"{text!r} is no duration such as 90s, 30m, 12h or 2d")
    if seconds > 3650 * 86400:
        raise typer.BadParameter(f"{text!r} is more than ten years")
    return seconds
