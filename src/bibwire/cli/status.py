"""`bibwire status`: is every race fresh, what fails, what is left of the budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bibwire.cli.options import JsonOption

if TYPE_CHECKING:
    from rich.console import Console

    from bibwire.cli.standing import Standing
    from bibwire.store.reports import PartnerState, RaceState, Status

# The owner's tiers, by the seconds a mirror may be old; most urgent first.
URGENCIES = {
    60: "under way or starting within 4 h",
    900: "starting within 24 h",
    3600: "over, corrections for 7 days",
    14_400: "starting later",
    None: "not live",
}
MOST_RACES = 20
MOST_FAILURES = 5


def add_to(app: typer.Typer) -> None:
    app.command()(status)


def status(
    json: JsonOption = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Show what fails and the most urgent races, until q or Ctrl-C."),
    ] = False,
) -> None:
    """Show how fresh the mirror is, what fails, and what is left of the budget."""
    from bibwire.cli.session import work
    from bibwire.cli.standing import standing
    from bibwire.cli.terminal import console, print_json

    if watch:
        from bibwire.cli.watch import watch as show_again

        try:
            work(show_again, make=False)
        except KeyboardInterrupt as stop:
            raise type(stop)("stopped.") from None
        return
    found = work(standing, make=False)
    if json:
        print_json(_fields(found))
    else:
        _show(console(), found)


def _fields(found: Standing) -> dict[str, object]:
    from bibwire.cli.standing import clock_fields, lags_of_races, scheduler_fields, shortage_fields
    from bibwire.cli.terminal import as_fields

    state = found.status
    lags = lags_of_races(state)
    return {
        "partners": [as_fields(partner) for partner in state.partners],
        "blocked_callers": [as_fields(block) for block in state.caller_blocks],
        "clocks": clock_fields(found),
        "scheduler": scheduler_fields(found.jobs),
        "shortages": shortage_fields(found),
        "freshness": freshness(state.races),
        "races": [
            as_fields(race, late=race.is_late, detection_lag=lags[race.partner, race.race_id])
            for race in state.races
        ],
        "quarantine": [as_fields(entry) for entry in state.quarantine],
        "last_runs": [as_fields(run) for run in state.last_runs],
        "drift": [as_fields(each) for each in state.drift],
        "backfills": [as_fields(each) for each in state.backfills],
        "last_24_hours": [as_fields(day) for day in state.last_day],
    }


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


def _show(out: Console, found: Standing) -> None:
    from bibwire.cli.standing import clock_sentence, show_scheduler, show_shortages

    state = found.status
    if not state.partners:
        out.print("No partner is stored yet. Add one with: bibwire partner add NAME --api-key KEY")
        return
    if (wrong := clock_sentence(found)) is not None:
        out.print(wrong, style="yellow")
    left_out = _show_partners(out, state) + show_scheduler(out, found.jobs) + _show_budgets(out, state)
    show_shortages(out, found)
    parts = (_show_freshness, _show_races, _show_troubles, _show_runs)
    if left_out + sum([part(out, state) for part in parts]):
        out.print("Some columns have no room here: bibwire status --json has them all.", style="dim")
    out.print(f"Times are in this machine's zone, {found.now.astimezone().tzname()}.", style="dim")


def _show_partners(out: Console, state: Status) -> int:
    from bibwire.cli.terminal import Column, counted, fitted, moment, plain

    columns = (
        Column("partner", flexible=True),
        Column("live races", right=True),
        Column("events", right=True, spare=2),
        Column("people", right=True),
        Column("quarantined", right=True, spare=1),
        Column("seq", right=True, spare=3),
        Column("state", flexible=True),
    )
    rows: list[tuple[tuple[object, ...], str | None]] = []
    for partner in state.partners:
        told, style = "active", None
        if partner.paused_at is not None:
            told, style = f"paused since {moment(partner.paused_at)}", "dim"
        if partner.failing_since is not None:
            told = f"failing since {moment(partner.failing_since)}: {partner.failing_reason or 'refused'}"
            style = "red"
        cells = (
            partner.partner,
            f"{partner.live_races:,} of {partner.races:,}",
            partner.events,
            partner.participants,
            partner.quarantined,
            partner.last_seq,
            told,
        )
        rows.append((cells, style))
    left_out = fitted(out, "Partners", columns, rows)
    for partner in state.partners:
        if past := partner.past_races_not_mirrored:
            out.print(
                f"{plain(partner.partner)}: {counted(past, 'past race')} not mirrored; sync keeps events "
                "that are still to come or ended within 7 days. Load them with: bibwire backfill"
            )
        for sentence, style in verified(partner):
            out.print(sentence, style=style)
    for found in state.drift:
        if found.rows or found.open:
            still = f", {counted(found.open, 'race')} open: bibwire reconcile" if found.open else ""
            out.print(
                f"{plain(found.partner)}: {counted(found.rows, 'row')} in "
                f"{counted(found.races_with_drift, 'race')} had differed without a sign in the last "
                f"24 hours, and were repaired{still}.",
                style="yellow",
            )
    for each in state.backfills:
        if each.done < each.races:
            failing = f", {each.failing:,} failing: {plain(each.last_error)}" if each.failing else ""
            out.print(
                f"{plain(each.partner)}: history of {each.done:,} of {counted(each.races, 'race')} is "
                f"loaded{failing}. Go on with: bibwire backfill"
            )
    return left_out


def verified(partner: PartnerState) -> list[tuple[str, str | None]]:
    """Say when a partner's mirror was last verified, and what failed, each with its style."""
    from bibwire.cli.terminal import moment, plain

    name, at = plain(partner.partner), partner.mirror_verified_at
    failures = partner.verify_failures
    if at is None and not failures:
        return []
    unmade = any(failure["verdict"] != "fail" for failure in failures)
    if at is None:
        when = "could not be verified yet"
    elif unmade:
        when = f"verified in part {moment(at)}: not every check could be made"
    else:
        when = f"verified {moment(at)}{'' if failures else ', nothing failed'}"
    told: list[tuple[str, str | None]] = [(f"{name}: {when}.", "yellow" if unmade else None)]
    for failure in failures[:MOST_FAILURES]:
        where = "" if failure["race_id"] is None else f" of race {failure['race_id']}"
        what = "failed" if failure["verdict"] == "fail" else "could not be made"
        style = "red" if failure["verdict"] == "fail" else "yellow"
        told.append((f"{name}: check {failure['check']}{where} {what}: {plain(failure['seen'])}.", style))
    if len(failures) > MOST_FAILURES:
        told.append((f"and {len(failures) - MOST_FAILURES:,} more: bibwire status --json", None))
    return told


def _show_budgets(out: Console, state: Status) -> int:
    from bibwire.cli.terminal import Column, fitted, moment, told_of_pause

    classes = list(state.partners[0].calls_by_urgency)
    columns = (
        Column("partner", flexible=True),
        Column("calls", right=True),
        *(Column(name.replace("_", " "), right=True, spare=spare) for spare, name in enumerate(classes, 1)),
        Column("vendor", flexible=True),
    )
    rows: list[tuple[tuple[object, ...], str | None]] = []
    for partner in state.partners:
        told, style = "", None
        if partner.limit_in_use < partner.calls_per_hour:
            told = f"asked for fewer: {partner.limit_in_use:,} an hour at present"
            style = "yellow"
        if partner.blocked_until is not None:
            told = f"none before {moment(partner.blocked_until)}: {partner.blocked_reason or 'throttled'}"
            style = "red"
        # A lowered limit is for the calls made since; those of the whole hour are held against this one.
        total = f"{partner.calls_last_hour:,} of {partner.calls_per_hour:,}"
        spent = (partner.calls_by_urgency[name] for name in classes)
        rows.append(((partner.partner, total, *spent, told), style))
    left_out = fitted(out, "Calls of the last hour", columns, rows)
    for partner in state.partners:
        if partner.asked_until is not None:
            out.print(told_of_pause(partner.partner, partner.asked_until, partner.blocked_until), style="red")
    for block in state.caller_blocks:
        until = moment(block.until)
        out.print(f"No calls for any partner before {until}: {block.reason or 'throttled'}.", style="red")
    return left_out


def _show_freshness(out: Console, state: Status) -> int:
    from bibwire.cli.terminal import Column, age, fitted

    columns = (
        Column("races that are", flexible=True),
        Column("races", right=True),
        Column("late", right=True),
        Column("not loaded", right=True, spare=1),
        Column("failing", right=True),
        Column("oldest", right=True),
        Column("may be", right=True),
    )
    rows: list[tuple[tuple[object, ...], str | None]] = []
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
        rows.append((cells, "yellow" if tier["late"] or tier["failing"] else None))
    if rows:
        return fitted(out, "Freshness", columns, rows)
    out.print("No race is live: none is still to come or ended within 7 days. Is it before the first sync?")
    return 0


def _show_races(out: Console, state: Status) -> int:
    """List the races by their numbers, the most urgent first."""
    from bibwire.cli.standing import last_lags
    from bibwire.cli.terminal import Column, age, fitted, moment

    if not state.races:
        return 0
    lags = last_lags(state)

    def lag_of(race: RaceState) -> str:
        lag = lags.get((race.partner, race.race_id))
        return "" if lag is None else f"{age(lag.p50_seconds)} / {age(lag.p95_seconds)}"

    columns = (
        Column("race", right=True),
        Column("name", flexible=True),
        Column("start"),
        Column("old", right=True),
        Column("may be", right=True),
        # Of the last hour's changes: how soon after the vendor knew we did.
        Column("lag p50 / p95", right=True, spare=1),
        Column("partner", flexible=True, spare=2),
    )
    rows = [
        (
            (
                str(race.race_id),
                (race.race or "").strip(),
                moment(race.starts_at)[: len("2026-09-12 06:40")],
                age(race.age_seconds),
                "" if race.target_seconds is None else age(race.target_seconds),
                lag_of(race),
                race.partner,
            ),
            _style(race),
        )
        for race in state.races[:MOST_RACES]
    ]
    left_out = fitted(out, "Races, the most urgent first", columns, rows)
    if len(state.races) > MOST_RACES:
        out.print(f"and {len(state.races) - MOST_RACES:,} more: bibwire status --json")
    return left_out


def _style(race: RaceState) -> str | None:
    if race.failing_since is not None:
        return "red"
    return "yellow" if race.is_late else None


def _show_troubles(out: Console, state: Status) -> int:
    from bibwire.cli.terminal import Column, age, fitted, moment

    left_out = 0
    troubled = [race for race in state.races if race.is_late or race.failing_since is not None]
    if troubled:
        columns = (
            Column("race", right=True),
            Column("name", flexible=True),
            Column("mirror is old", right=True, spare=1),
            Column("partner", flexible=True, spare=2),
            Column("why", flexible=True),
        )
        rows: list[tuple[tuple[object, ...], str | None]] = []
        for race in troubled[:MOST_RACES]:
            why = (
                "" if race.failing_since is None else f"since {moment(race.failing_since)}: {race.last_error}"
            )
            if race.access_lost_at is not None:
                why = f"no right on it since {moment(race.access_lost_at)}"
            cells = (
                str(race.race_id),
                (race.race or "").strip(),
                age(race.age_seconds),
                race.partner,
                why or race.late_because,
            )
            rows.append((cells, _style(race)))
        title = f"Late or failing ({min(len(troubled), MOST_RACES)} of {len(troubled)})"
        left_out += fitted(out, title, columns, rows)
    if state.quarantine:
        kept = (
            Column("partner", flexible=True),
            Column("source"),
            Column("records", right=True),
            Column("last seen", spare=1),
            Column("reason", flexible=True),
        )
        records = [
            ((entry.partner, entry.source, entry.records, moment(entry.last_seen_at), entry.reason), None)
            for entry in state.quarantine
        ]
        left_out += fitted(out, "Quarantine", kept, records)
    return left_out


def _show_runs(out: Console, state: Status) -> int:
    from bibwire.cli.terminal import Column, fitted, moment

    left_out = 0
    if state.last_day:
        columns = (
            Column("partner", flexible=True),
            Column("runs", right=True),
            Column("failed", right=True),
            Column("partial", right=True, spare=1),
            Column("calls", right=True),
            Column("inserted", right=True, spare=2),
            Column("updated", right=True, spare=3),
            Column("removed", right=True, spare=4),
        )
        days = [
            (
                (
                    day.partner,
                    day.runs,
                    day.failed,
                    day.partial,
                    day.calls,
                    day.rows_inserted,
                    day.rows_updated,
                    day.rows_removed,
                ),
                "red" if day.failed else None,
            )
            for day in state.last_day
        ]
        left_out += fitted(out, "Last 24 hours", columns, days)
    if state.last_runs:
        parts = (
            Column("ended"),
            Column("partner", flexible=True, spare=2),
            Column("race", flexible=True),
            Column("kind"),
            Column("outcome"),
            Column("calls", right=True, spare=3),
            Column("inserted", right=True, spare=4),
            Column("updated", right=True, spare=5),
            Column("removed", right=True, spare=6),
            Column("error", flexible=True, spare=1),
        )
        runs = [
            (
                (
                    moment(run.finished_at),
                    run.partner,
                    (run.race or "").strip() or run.race_id,
                    run.kind,
                    run.outcome,
                    run.calls,
                    run.rows_inserted,
                    run.rows_updated,
                    run.rows_removed,
                    run.error,
                ),
                "red" if run.outcome == "failed" else None,
            )
            for run in state.last_runs
        ]
        left_out += fitted(out, "Last runs", parts, runs)
    return left_out
