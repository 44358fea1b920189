"""`bibwire plan`: which race is polled how often, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from bibwire.cli.options import JsonOption, PartnerOption

if TYPE_CHECKING:
    from datetime import datetime

    from bibwire.engine.planner import Outlook
    from bibwire.runtime import Runtime


def add_to(app: typer.Typer) -> None:
    app.command()(plan)


def plan(partner: PartnerOption = None, json: JsonOption = False) -> None:
    """
    Tell how often each race is polled, when it is polled next, and why.

    This is what stands in the schedule. Nothing is asked of RunSignup, and nothing changes. A race that
    no running bibwire has scheduled yet says so. Where the hour's calls will not suffice within a week,
    that is told too.
    """
    from bibwire.cli.session import work
    from bibwire.cli.terminal import as_fields, print_json

    async def do(runtime: Runtime) -> list[Outlook]:
        from bibwire.engine.planner import outlook

        chosen = await runtime.partners.list() if partner is None else [await runtime.partners.get(partner)]
        return [await outlook(runtime.db, each, now=runtime.clock.now()) for each in chosen]

    found = work(do, make=False)
    if json:
        print_json(
            {
                "partners": [
                    {
                        "partner": each.partner,
                        "calls_per_hour": each.calls_per_hour,
                        "blocked_until": each.blocked_until,
                        "asked_until": each.asked_until,
                        "usable_calls_per_hour": each.plan.usable_calls_per_hour,
                        "planned_calls_per_hour": each.plan.planned_calls_per_hour,
                        "needed_calls_per_hour": each.plan.needed_calls_per_hour,
                        "calls_used_up_until": used_up(each)[0],
                        "short": each.plan.short,
                        "shortage": None if each.shortage is None else as_fields(each.shortage),
                        "polls": [
                            as_fields(
                                poll,
                                name=each.names[poll.race_id],
                                next_due_at=each.due_at.get(poll.race_id),
                                polled_at=stands.polled_at
                                if (stands := each.scheduled.get(poll.race_id))
                                else None,
                            )
                            for poll in each.plan.polls
                        ],
                    }
                    for each in found
                ]
            }
        )
        return
    for each in found:
        _show(each)
    if not found:
        typer.echo("No partner is stored yet. Add one with: bibwire partner add NAME --api-key KEY")


def _show(found: Outlook) -> None:
    from bibwire.cli.terminal import console, counted, moment, plain, row, table, told_of_pause

    out = console()
    if found.paused:
        out.print(f"{plain(found.partner)}: paused, nothing is polled.")
        return
    if found.blocked_until is not None:
        out.print(
            f"{plain(found.partner)}: RunSignup asked for a pause, no call is made before "
            f"{moment(found.blocked_until)}.",
            style="yellow",
        )
    if found.asked_until is not None:
        out.print(told_of_pause(found.partner, found.asked_until, found.blocked_until), style="yellow")
    plan = found.plan
    shown = table(
        f"{plain(found.partner)}: {plan.planned_calls_per_hour:,.0f} calls/h planned of "
        f"{found.usable_calls_per_hour:,.0f} that polls may use ({found.calls_per_hour:,} calls/h in all)",
        "race",
        "name",
        "next",
        "polled",
    )
    for poll in plan.polls:
        due_at = found.due_at.get(poll.race_id)
        due = "not scheduled" if due_at is None else _due(due_at, found.now)
        row(
            shown,
            (str(poll.race_id), found.names[poll.race_id], due, poll.reason),
            style="yellow" if due_at is None else None,
        )
    if plan.polls:
        out.print(shown)
    else:
        out.print(f"{plain(found.partner)}: no race is live, nothing is polled. Is it before the first sync?")
    for sentence in _why_fewer(found):
        out.print(sentence, style="yellow")
    waiting = sum(poll.race_id not in found.scheduled for poll in plan.polls)
    if waiting:
        out.print(
            f"{counted(waiting, 'race')} not scheduled: no running bibwire has planned them. "
            "Start it with: bibwire run",
            style="yellow",
        )
    if found.shortage is not None:
        short = found.shortage
        out.print(
            f"The calls will not suffice from {moment(short.begins_at)} to {moment(short.ends_at)}: "
            f"{short.needed_calls_per_hour:,.0f} calls/h are needed then, "
            f"{short.usable_calls_per_hour:,.0f} can be used. The least urgent races will wait longer.",
            style="yellow",
        )


def used_up(found: Outlook) -> tuple[datetime | None, str]:
    """Return until when the hour's calls are used up for polls, and a sentence; None: they are not."""
    from bibwire.cli.terminal import counted, moment
    from bibwire.domain.budget import Urgency

    for urgency, then in (
        (Urgency.RACE_DAY, "No race is polled before"),
        (Urgency.DELTA, "Only races about to start are polled before"),
    ):
        if (until := found.used_up_until.get(urgency)) is not None:
            stop = found.stops[urgency]
            since = "since RunSignup last asked for fewer" if stop.lowered else "of the last hour"
            # The rest of the limit is left to people who look something up.
            made = f"{counted(stop.made, 'call')} {since} count, and polls stop at {stop.most:,}"
            return until, f"The hour's calls are used up until {moment(until)}: {made}. {then}."
    return None, ""


def _why_fewer(found: Outlook) -> list[str]:
    """Say why fewer calls can be used at present than polls may use."""
    from bibwire.cli.terminal import counted

    told = []
    until, sentence = used_up(found)
    usable = found.plan.usable_calls_per_hour
    if until is not None:
        told.append(sentence)
    elif usable < found.usable_calls_per_hour - 0.5:
        told.append(
            f"Polls can use only {usable:,.0f} of these {found.usable_calls_per_hour:,.0f} calls/h at "
            "present: first loads, backfills and reconciliations took "
            f"{counted(found.taken, 'call')} in the last hour."
        )
    if found.is_former:
        told.append("The schedule is still the old one; bibwire run plans it anew within seconds.")
    return told


def _due(due_at: datetime, now: datetime) -> str:
    from bibwire.cli.terminal import age

    seconds = (due_at - now).total_seconds()
    return f"in {age(seconds)}" if seconds >= 1 else "now" if seconds > -60 else f"due for {age(-seconds)}"
