"""How often a race is polled and why, in words an operator reads. Pure."""

from __future__ import annotations

from datetime import timedelta

from bibwire.domain.tiers import Tier

HOUR = 3_600.0


def reason(
    tier: Tier,
    *,
    every_seconds: float,
    to_gun: timedelta | None,
    because: str | None,
    changes_per_minute: float,
    calls: float,
    calls_a_poll: int,
    of_calls: float,
    failures: int,
    loaded: bool,
) -> str:
    """
    Return such as "every 9 s: gun in 42 min, 14 changes/min, 480 calls/h of 1,000".

    Args:
        to_gun: Time to the start that gives the race its tier, negative after it; None: no start is known.
        because: Why it has its tier, if not for that start.
        calls: Those of this race an hour.
        calls_a_poll: More than one is told of.
        of_calls: Those of its credential.
    """
    parts = []
    short = every_seconds > tier.seconds
    pace, slowest = _span(every_seconds), _span(tier.seconds)
    if not short:
        pace = "hourly" if every_seconds == HOUR else f"every {pace}"
    else:
        pace = f"every {pace}" if pace == slowest else f"every {pace} instead of {slowest}"
        parts.append("the hour's calls do not suffice")
    if because is not None:
        parts.append(f"race day: {because}")
    else:
        parts.append("no start time known" if to_gun is None else _gun(round(to_gun.total_seconds())))
    if tier is Tier.HOT and not short:
        parts.append(_changes(changes_per_minute))
        parts.append(f"{calls:,.0f} calls/h of {of_calls:,.0f}")
    if calls_a_poll > 1:
        parts.append(f"{calls_a_poll} calls a poll because its events are asked for apart")
    if failures:
        parts.append("failed once" if failures == 1 else f"failed {failures:,} times in a row")
    if not loaded:
        parts.append("not loaded yet")
    return f"{pace}: {', '.join(parts)}"


def _gun(seconds: int) -> str:
    if not seconds:
        return "gun now"
    span = _span(abs(seconds), whole=True)
    return f"gun in {span}" if seconds > 0 else f"gun was {span} ago"


def _changes(per_minute: float) -> str:
    number = _number(per_minute)
    if number == "0":
        return "no changes lately"
    return f"{number} change{'' if number == '1' else 's'}/min"


def _span(seconds: float, *, whole: bool = False) -> str:
    """Return a length of time in the unit a person would choose: from two of it on."""
    if seconds < 120:
        unit, length = "s", 1
    elif seconds < 7_200:
        unit, length = "min", 60
    elif seconds < 172_800:
        unit, length = "h", 3_600
    else:
        unit, length = "days", 86_400
    number = f"{seconds / length:,.0f}" if whole else _number(seconds / length)
    return f"{number} {unit}"


def _number(value: float) -> str:
    """Return two figures of a small number, all of a large one."""
    return f"{value:.1f}".removesuffix(".0") if value < 10 else f"{value:,.0f}"
