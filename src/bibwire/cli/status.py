"""`bibwire status`: is every race fresh, what fails, what is left of the budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from bibwire.cli.options import JsonOption

if TYPE_CHECKING:
    from rich.console import Console

    from bibwire.runtime import Runtime
    from bibwire.store.reports import RaceState, Status

# The owner's tiers, by the seconds a mirror may be old; most urgent first.
URGENCIES = {
    60: "under way or starting within 4 h",
    900: "starting within 24 h",
    3600: "over, corrections for 7 days",
    14_400: "starting later",
    None: "not live",
}
MOST_RACES = 20


def add_to(app: typer.Typer) -> None:
    app.command()(status)


def status(json: JsonOption = False) -> None:
    """Show how fresh the mirror is, what fails, and what is left of the budget."""
    from bibwire.cli.session import work
    from bibwire.cli.terminal import as_fields, print_json

    async def do(runtime: Runtime) -> Status:
        return await runtime.reports.status()

    state = work(do)
    if json:
        print_json(
            {
                "partners": [as_fields(partner) for partner in state.partners],
                "freshness": freshness(state.races),
                "races": [as_fields(race, late=race.is_late) for race in state.races],
                "quarantine": [as_fields(entry) for entry in state.quarantine],
                "last_runs": [as_fields(run) for run in state.last_runs],
                "last_24_hours": [as_fields(day) for day in state.last_day],
            }
        )
    else:
        _show(state)


def freshness(races: list[RaceState]) -> list[dict[str, object]]:
    """Count races by urgency: how many, how many late or failing, and how old the oldest mirror is."""
    rows: list[dict[str, object]] = []
    for target, urgency in URGENCIES.items():
        these = [race for race in races if race.target_seconds == target]
        if these:
            ages = [race.age_seconds for race in these if race.age_seconds is not None]
            rows.append(
                {
                    "urgency": urgency,
                    "target_seconds": target,
                    "races": len(these),
                    "late": sum(race.is_late for race in these),
                    "not_loaded": sum(race.as_of is None for race in these),
                    "failing": sum(race.failing_since is not None for race in these),
                    "oldest_seconds": max(ages, default=None),
                }
            )
    return rows


def _show(state: Status) -> None:
    from bibwire.cli.terminal import console

    out = console()
    if not state.partners:
        out.print("No partner is stored yet. Add one with: bibwire partner add NAME --api-key KEY")
        return
    _show_partners(out, state)
    _show_freshness(out, state)
    _show_troubles(out, state)
    _show_runs(out, state)


def _show_partners(out: Console, state: Status) -> None:
    from bibwire.cli.terminal import moment, row, table

    numbers = ("races", "events", "people", "quarantined", "seq", "calls, last hour")
    shown = table("Partners", "partner", *numbers, "state", right=numbers)
    for partner in state.partners:
        told, style = "active", None
        if partner.paused_at is not None:
            told, style = f"paused since {moment(partner.paused_at)}", "dim"
        if partner.failing_since is not None:
            told = f"failing since {moment(partner.failing_since)}: {partner.failing_reason or 'refused'}"
            style = "red"
        cells = (
            partner.partner,
            partner.races,
            partner.events,
            partner.participants,
            partner.quarantined,
            partner.last_seq,
            f"{partner.calls_last_hour:,} of {partner.calls_per_hour:,}",
            told,
        )
        row(shown, cells, style=style)
    out.print(shown)


def _show_freshness(out: Console, state: Status) -> None:
    from bibwire.cli.terminal import age, row, table

    numbers = ("races", "late", "not loaded", "failing", "oldest", "may be")
    shown = table("Freshness", "races that are", *numbers, right=numbers)
    for tier in freshness(state.races):
        target, oldest = tier["target_seconds"], tier["oldest_seconds"]
        cells = (
            tier["urgency"],
            tier["races"],
            tier["late"],
            tier["not_loaded"],
            tier["failing"],
            age(oldest) if isinstance(oldest, float) else "",
            age(target) if isinstance(target, int) else "",
        )
        row(shown, cells, style="yellow" if tier["late"] or tier["failing"] else None)
    if shown.row_count:
        out.print(shown)
    else:
        out.print(
            "No race is live: none is still to come or ended within 7 days. Is it before the first sync?"
        )


def _show_troubles(out: Console, state: Status) -> None:
    from bibwire.cli.terminal import age, moment, row, table

    troubled = [race for race in state.races if race.is_late or race.failing_since is not None]
    if troubled:
        title = f"Late or failing ({min(len(troubled), MOST_RACES)} of {len(troubled)})"
        shown = table(title, "partner", "race", "name", "start", "mirror is old", "why")
        for race in troubled[:MOST_RACES]:
            why = (
                "" if race.failing_since is None else f"since {moment(race.failing_since)}: {race.last_error}"
            )
            if race.access_lost_at is not None:
                why = f"no right on it since {moment(race.access_lost_at)}"
            cells = (
                race.partner,
                str(race.race_id),
                race.race,
                moment(race.starts_at),
                age(race.age_seconds),
                why,
            )
            row(shown, cells, style="red" if race.failing_since is not None else "yellow")
        out.print(shown)
    if state.quarantine:
        shown = table("Quarantine", "partner", "source", "records", "last seen", "reason", right=("records",))
        for entry in state.quarantine:
            record = (entry.partner, entry.source, entry.records, moment(entry.last_seen_at), entry.reason)
            row(shown, record)
        out.print(shown)


def _show_runs(out: Console, state: Status) -> None:
    from bibwire.cli.terminal import moment, row, table

    if state.last_day:
        numbers = ("runs", "failed", "partial", "calls", "inserted", "updated", "removed")
        shown = table("Last 24 hours", "partner", *numbers, right=numbers)
        for day in state.last_day:
            cells = (
                day.partner,
                day.runs,
                day.failed,
                day.partial,
                day.calls,
                day.rows_inserted,
                day.rows_updated,
                day.rows_removed,
            )
            row(shown, cells, style="red" if day.failed else None)
        out.print(shown)
    if state.last_runs:
        counted = ("calls", "inserted", "updated", "removed")
        shown = table(
            "Last runs", "ended", "partner", "race", "kind", "outcome", *counted, "error", right=counted
        )
        for run in state.last_runs:
            ended = (
                moment(run.finished_at),
                run.partner,
                run.race or run.race_id,
                run.kind,
                run.outcome,
                run.calls,
                run.rows_inserted,
                run.rows_updated,
                run.rows_removed,
                run.error,
            )
            row(shown, ended, style="red" if run.outcome == "failed" else None)
        out.print(shown)
