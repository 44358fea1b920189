"""`bibwire adopt`: moving in from the original, whose database is only read."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bibwire.cli.options import JsonOption
from bibwire.cli.terminal import counted
from bibwire.domain.errors import DatabaseUnavailable, SettingsError

if TYPE_CHECKING:
    from bibwire.domain.secrets import Credential
    from bibwire.engine.adoption import Adopted, Adoption
    from bibwire.runtime import Runtime
    from bibwire.settings import Settings
    from bibwire.store.compat import Compat

NOT_COMPARED = (
    "registrations of events that are not loaded here are not compared yet: run bibwire sync, "
    "then adopt again"
)


def add_to(app: typer.Typer) -> None:
    app.command()(adopt)


def adopt(
    address: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="DSN",
            help="The original's database, postgresql://user@host/database. With a password in it, set "
            "BIBWIRE_ADOPT_FROM instead: others on the machine can read a command line.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing, only tell; keys are tried all the same.")
    ] = False,
    zone: Annotated[
        str | None,
        typer.Option(
            "--zone",
            metavar="ZONE",
            help="The zone the original kept its times in, America/New_York for one; the views in the "
            "schema bibwire_compat show theirs in it (UTC).",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """
    Move in from the original: take over its partners and RunSignup keys, and judge its participants.

    Its database is read, never written. Each key is tried with RunSignup and stored encrypted; what
    is here already stays as it is, so the command can be repeated. Participants are not copied:
    bibwire sync and bibwire backfill load them from RunSignup, and another bibwire adopt compares.
    """
    from bibwire import logs
    from bibwire.cli.session import read_settings, work
    from bibwire.cli.terminal import complain, print_json
    from bibwire.domain import pasted
    from bibwire.domain.secrets import Secret
    from bibwire.store import original as old

    settings = read_settings(summary=True)
    source = settings.adopt_from
    if address is not None:
        source = Secret(pasted.database_url(pasted.clean(address).text))
    if source is not None:
        logs.hide([source, *old.passwords(source.reveal())])
    if zone is not None:
        zone = _checked(zone)
    if not source and (address is not None or zone is None):
        raise SettingsError(
            "Name the database to move in from: --from postgresql://user@host/database, or set "
            "BIBWIRE_ADOPT_FROM."
        )
    # All of it, before anything of ours is opened or made.
    read = None if not source else old.read(source)
    if read is not None:
        logs.hide(read.secrets())
    if dry_run:
        _check_made(settings)

    async def do(runtime: Runtime) -> tuple[str, Adoption | None]:
        from bibwire.engine.adoption import Adopter
        from bibwire.store.compat import Compat

        compat = Compat(runtime.db)
        shown = await _zone(compat, zone, dry_run)
        if read is None:
            return shown, None
        adopter = Adopter(
            read,
            partners=runtime.partners,
            compat=compat,
            check=lambda name, credential: _check(runtime, name, credential),
            check_name=lambda name: _check_name(runtime, name),
            calls_per_hour=settings.calls_per_hour,
        )
        done = await adopter.run(dry_run=dry_run)
        if any(each.outcome == "added" for each in done.partners):
            await runtime.wake_planner()
        return shown, done

    shown, done = work(do, settings, make=not dry_run)
    if done is not None:
        for each in done.partners:
            each.why = logs.redact(each.why)
    if json:
        print_json(_as_json(shown, done, dry_run))
    else:
        _show(shown, done, dry_run)
    if done is None:
        return
    if done.failed:
        first = done.failed[0]
        whom = first.partner or f"number {first.timing_partner_id}"
        more = f" (and {len(done.failed) - 1:,} more)" if len(done.failed) > 1 else ""
        what = "only a part" if done.here else "nothing"
        complain(f"{what} could be taken over: {whom}: {first.why}{more}.")
    elif not done.here:
        complain("nothing could be taken over: no partner there has a RunSignup key.")
    raise typer.Exit(done.exit_code)


def _checked(zone: str) -> str:
    from bibwire.domain.instants import zone_named

    zone = zone.strip()
    if zone_named(zone) is None:
        raise SettingsError(f"There is no zone {zone}: --zone has to be one like America/New_York or UTC.")
    return zone


async def _zone(compat: Compat, zone: str | None, dry_run: bool) -> str:
    """Return the zone the views show, or would."""
    if zone is not None and not dry_run:
        await compat.set_zone(zone)
    return zone or await compat.zone()


async def _check(runtime: Runtime, name: str, credential: Credential) -> tuple[list[int], int]:
    from bibwire.api.client import CallMade
    from bibwire.cli.terminal import plain

    calls: list[CallMade] = []
    if sys.stderr.isatty():
        typer.echo(f"Asking RunSignup about the key of {plain(name)} ...", err=True)
    # A second run, and a dry one, change nothing.
    races = await runtime.check_credential(credential, calls.append, keep_calls=False)
    return races, sum(call.sent for call in calls)


async def _check_name(runtime: Runtime, name: str) -> None:
    from bibwire.cli.partner import refuse_same_variable

    await refuse_same_variable(runtime, name)


def _check_made(settings: Settings) -> None:
    """Refuse what opening our side would make: a database, its tables, the key file."""
    from bibwire.cli.session import check_database_made
    from bibwire.store import embedded, migrate
    from bibwire.store.vault import KEY_FILE_NAME

    check_database_made(settings)
    has_key = settings.secret_key is not None or settings.secret_key_file is not None
    if settings.database_url is not None:
        current = migrate.is_current(settings.database_url.reveal())
    else:
        with embedded.start(settings.home) as server:
            current = migrate.is_current(server.conninfo)
    if not current or not (has_key or (settings.home / KEY_FILE_NAME).exists()):
        raise DatabaseUnavailable(
            "Bibwire's own database is not ready, and --dry-run makes nothing: run bibwire init first."
        )


def _next(done: Adoption) -> list[str]:
    """Return what to do next, in order."""
    if done.dry_run:
        return ["bibwire adopt"]
    return ["bibwire sync", "bibwire backfill", "bibwire adopt"]


def _as_json(zone: str, done: Adoption | None, dry_run: bool) -> dict[str, Any]:
    if done is None:
        return {"dry_run": dry_run, "zone": zone}
    notes = [NOT_COMPARED] if _unloaded(done) else []
    return {"zone": zone, "participants_copied": 0, "notes": notes, "next": _next(done), **done.as_json()}


def _unloaded(done: Adoption) -> bool:
    return any(each.rows is not None and each.rows.not_compared for each in done.partners)


def _show(zone: str, done: Adoption | None, dry_run: bool) -> None:
    from bibwire.cli.terminal import console, row, table

    out = console()
    would = "would be" if dry_run else "are"
    if done is None:
        out.print(f"Times without zone in the views of bibwire_compat {would} shown in {zone}.")
        return
    partners = table(
        "Partners", "no.", "partner", "", "key", "calls/h", "races", "why", right=("no.", "calls/h", "races")
    )
    for each in done.partners:
        style = {"not taken over": "red", "no RunSignup key": "dim"}.get(each.outcome)
        row(partners, _cells(each), style=style)
    out.print(partners)
    _show_rows(done)
    _show_secrets(done)
    out.print(f"Times without zone in the views of bibwire_compat {would} shown in {zone}.")
    if dry_run:
        out.print("Nothing was changed. Without --dry-run what would be added is.")
        return
    for each in done.here:
        if not each.has_number:
            out.print(f"Note: the views cannot show {each.partner} as number {each.timing_partner_id}.")
    out.print(
        "Participants are not copied. Load them from RunSignup: bibwire sync (races still to come, or over "
        "for less than 7 days), then bibwire backfill (the older ones). Then bibwire adopt again compares."
    )


def _cells(each: Adopted) -> tuple[object, ...]:
    key = None if each.fingerprint is None else f"...{each.fingerprint}"
    number = None if each.timing_partner_id is None else str(each.timing_partner_id)
    return number, each.partner, str(each.outcome), key, each.calls_per_hour, each.races, each.why


def _show_rows(done: Adoption) -> None:
    from bibwire.cli.terminal import console, row, table

    out = console()
    numbers = ("rows", "trusted", "duplicates", "without id", "ghosts", "lacking", "not compared")
    shown = table("Participants there", "partner", *numbers, right=numbers)
    for each in done.partners:
        if each.rows is None:
            continue
        rows = each.rows
        cells = (
            each.partner or f"number {each.timing_partner_id}",
            rows.rows,
            rows.trusted,
            rows.duplicates,
            rows.null_registration_ids,
            rows.ghosts,
            rows.lacking,
            rows.not_compared,
        )
        row(shown, cells)
    out.print(shown)
    if done.rows_without_partner:
        out.print(f"{counted(done.rows_without_partner, 'row')} of no partner cannot be trusted at all.")
    out.print("Ghosts are active there and not at RunSignup; lacking are active at RunSignup and not there.")
    if _unloaded(done):
        out.print(f"Note: {NOT_COMPARED}.")


def _show_secrets(done: Adoption) -> None:
    from bibwire.cli.terminal import console, row, table

    if not done.secrets:
        return
    columns = ("where", "provider", "no.", "partner", "credential", "key", "rows")
    title = "In clear text in the original, still"
    shown = table(title, *columns, right=("no.", "credential", "rows"))
    for each in done.secrets:
        key = None if each.fingerprint is None else f"...{each.fingerprint}"
        numbers = [None if id_ is None else str(id_) for id_ in (each.timing_partner_id, each.credential_id)]
        row(shown, (each.where, each.provider, numbers[0], each.partner, numbers[1], key, each.rows))
    console().print(shown)
    console().print(
        "Whoever could read that database knows them. Have each replaced where it is from, give Bibwire a "
        "RunSignup key's successor with bibwire partner rotate, then delete them there."
    )
