"""How the schedule stands, for `bibwire status`: workers and queue, shortages of calls, lags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console

    from bibwire.domain.schedule import Shortage
    from bibwire.engine.planner import Outlook
    from bibwire.runtime import Runtime
    from bibwire.store.jobs import JobStats
    from bibwire.store.reports import Lag, Status

NEVER_RUN = (
    "No worker has ever run here: the mirror is as fresh as the last bibwire sync. bibwire run keeps it "
    "fresh by itself."
)


@dataclass(frozen=True, slots=True)
class Standing:
    """
    All that `status` shows, as of `now`. `short`: the partners with a shortage ahead.

    `vendor_ahead`, `computer_ahead`: seconds by which their clocks are ahead of the database's; None: the
    vendor's is not known.
    """

    now: datetime
    vendor_ahead: float | None
    computer_ahead: float
    status: Status
    jobs: JobStats
    short: list[Outlook]


async def standing(runtime: Runtime) -> Standing:
    from bibwire.engine.shortages import shortages
    from bibwire.store import clocks

    now = runtime.clock.now()
    return Standing(
        now=now,
        vendor_ahead=(await clocks.vendor_ahead(runtime.db))[0],
        computer_ahead=runtime.computer_ahead(),
        status=await runtime.reports.status(),
        jobs=await runtime.jobs.stats(),
        short=await shortages(runtime.db, runtime.partners, now=now),
    )


def clock_fields(found: Standing) -> dict[str, object]:
    """Return whose clock is how far ahead of the database's, for JSON; `told`: which one is wrong."""
    return {
        "vendor_ahead_seconds": found.vendor_ahead,
        "computer_ahead_seconds": found.computer_ahead,
        "told": clock_sentence(found),
    }


def clock_sentence(found: Standing) -> str | None:
    """Say which clock is wrong, and what to do; None: all agree."""
    from bibwire.domain.clocks import wrong_clock

    wrong = wrong_clock(vendor_ahead=found.vendor_ahead, computer_ahead=found.computer_ahead)
    if wrong is None:
        return None
    return f"{wrong.said[0].upper()}{wrong.said[1:]}: {wrong.fix}."


def ever_run(jobs: JobStats) -> bool:
    """Say whether there is a worker, or ever was one."""
    return bool(jobs.workers or jobs.ran_seconds)


def alarms(jobs: JobStats) -> list[str]:
    """Say in sentences what is wrong with the scheduler, and what to do; nothing where none ever ran."""
    from bibwire.cli.terminal import age
    from bibwire.engine.worker import SILENT_SECONDS

    if not ever_run(jobs):
        return []
    if not jobs.workers:
        last = jobs.planner_seconds
        since = "" if last is None else f" The last one planned {age(last)} ago."
        return [f"No worker is running, nothing is kept fresh: start bibwire run.{since}"]
    told = []
    for name, seconds, lost in (
        ("planner", jobs.planner_seconds, "no poll is queued"),
        ("rescue", jobs.rescue_seconds, "what dead workers left is not taken up"),
    ):
        if seconds is not None and seconds > SILENT_SECONDS:
            told.append(
                f"The {name} has not run for {age(seconds)}, {lost}: read the workers' log, run bibwire "
                "doctor, and start bibwire run anew."
            )
    return told


def scheduler_fields(jobs: JobStats) -> dict[str, object]:
    """Return how the scheduler stands, for JSON. Seconds are since the last end; null: never."""
    return {
        "ever_run": ever_run(jobs),
        "workers": jobs.workers,
        "waiting": jobs.todo,
        "running": jobs.doing,
        "failed": jobs.failed,
        "stalled": jobs.stalled,
        "oldest_waiting_seconds": jobs.oldest_todo_seconds,
        "planner_seconds": jobs.planner_seconds,
        "rescue_seconds": jobs.rescue_seconds,
        "alarms": alarms(jobs),
    }


def show_scheduler(out: Console, jobs: JobStats) -> int:
    """Show workers and queue; return how many columns were left out."""
    from bibwire.cli.terminal import Column, age, fitted

    if not ever_run(jobs):
        out.print(NEVER_RUN)
        return 0
    told = alarms(jobs)
    numbers = {
        "workers": jobs.workers,
        "waiting": jobs.todo,
        "running": jobs.doing,
        "failed": jobs.failed,
        "stalled": jobs.stalled,
    }
    ran = {"planner ran": jobs.planner_seconds, "rescue ran": jobs.rescue_seconds}
    columns = (
        *(Column(name, right=True) for name in numbers),
        *(Column(name, right=True, flexible=True, spare=spare) for spare, name in enumerate(ran)),
    )
    cells = (*numbers.values(), *("not yet" if at is None else f"{age(at)} ago" for at in ran.values()))
    style = "red" if told else "yellow" if jobs.failed or jobs.stalled or None in ran.values() else None
    left_out = fitted(out, "Scheduler", columns, [(cells, style)])
    for sentence in told:
        out.print(sentence, style="red")
    return left_out


def shortage_sentence(partner: str, shortage: Shortage, now: datetime) -> str:
    """Say when a partner's calls will not suffice, what that does, and how to prevent it."""
    from bibwire.cli.terminal import moment, plain
    from bibwire.domain.schedule import FORESIGHT
    from bibwire.store.partners import partner_command

    def minute(at: datetime) -> str:
        return moment(at)[: len("2026-09-12 06:40")]

    begin = "now" if shortage.begins_at <= now else f"from {minute(shortage.begins_at)}"
    end = f"{'at least ' if shortage.ends_at >= now + FORESIGHT else ''}{minute(shortage.ends_at)}"
    usable, needed = shortage.usable_calls_per_hour, shortage.needed_calls_per_hour
    limit = shortage.sufficient_calls_per_hour
    return (
        f"{plain(partner)} has too few calls {begin} until {end}, {usable:,.0f} an hour to use where "
        f"{needed:,.0f} are needed, so that the least urgent races wait longer: ask RunSignup for "
        f"{limit:,} an hour, then set them with {plain(partner_command('limit', partner, value=str(limit)))}."
    )


def show_shortages(out: Console, standing: Standing) -> None:
    for each in standing.short:
        if each.shortage is not None:
            out.print(shortage_sentence(each.partner, each.shortage, standing.now), style="yellow")


def shortage_fields(standing: Standing) -> list[dict[str, object]]:
    """Return the shortages ahead, for JSON."""
    from bibwire.cli.terminal import as_fields

    return [
        {
            "partner": each.partner,
            **as_fields(each.shortage),
            "sufficient_calls_per_hour": each.shortage.sufficient_calls_per_hour,
            "told": shortage_sentence(each.partner, each.shortage, standing.now),
        }
        for each in standing.short
        if each.shortage is not None
    ]


def last_lags(status: Status) -> dict[tuple[str, int], Lag]:
    """Return the last hour's lag of each race that has one, by partner and race."""
    return {(lag.partner, lag.race_id): lag for lag in status.lags if lag.is_last}


def lags_of_races(status: Status) -> dict[tuple[str, int], dict[str, object]]:
    """Return each race's lags for JSON: of the last hour, null without changes, and hour by hour of 24."""
    from bibwire.cli.terminal import as_fields

    kept = ("hour", "changes", "p50_seconds", "p95_seconds", "worst_seconds")
    hours: dict[tuple[str, int], list[dict[str, object]]] = {
        (race.partner, race.race_id): [] for race in status.races
    }
    last: dict[tuple[str, int], dict[str, object]] = {}
    for lag in status.lags:
        key = (lag.partner, lag.race_id)
        fields = {name: value for name, value in as_fields(lag).items() if name in kept}
        hours.setdefault(key, []).append(fields)
        if lag.is_last:
            last[key] = fields
    return {key: {"last_hour": last.get(key), "last_24_hours": found} for key, found in hours.items()}
