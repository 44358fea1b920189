"""`bibwire partner`: whose registrations are mirrored, and with which keys."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bibwire.cli.options import JsonOption
from bibwire.cli.terminal import counted
from bibwire.domain.errors import BibwireError, PartnerStopped, RetryLater, SettingsError

if TYPE_CHECKING:
    from bibwire.api.client import CallMade
    from bibwire.domain.secrets import Credential, Secret
    from bibwire.engine.backfill_reports import BackfillReport
    from bibwire.engine.planner import Outlook
    from bibwire.runtime import Runtime
    from bibwire.settings import Settings
    from bibwire.store.partners import Partner

Kind = Literal["key", "v2", "bearer"]
MOST_CALLS = 1_000_000
# Bytes: of a file that never ends no more is read.
LONGEST_SECRET = 65_536
# Races of a page of the list, of which a new key's check reads one.
LIST_PAGE = 1_000
# Races named where a key does not see some.
SHOWN_UNSEEN = 5

app = typer.Typer(help="Add, list, change and remove partners.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The partner's name.", show_default=False)]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", metavar="KEY", help="The key; its secret is asked for, never an argument."),
]
KindOption = Annotated[
    Kind,
    typer.Option(
        help="key: api_key and api_secret. v2: rsu_api_key and its secret. bearer: an OAuth token, "
        "given in place of the secret."
    ),
]
_MAY_MAKE = "Calls the key may make in any hour"
CallsPerHour = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, max=MOST_CALLS, help=f"{_MAY_MAKE} (BIBWIRE_CALLS_PER_HOUR)."),
]
NewCallsPerHour = Annotated[
    int | None, typer.Option(metavar="N", min=1, max=MOST_CALLS, help=f"{_MAY_MAKE} (as before).")
]
SecretStdin = Annotated[bool, typer.Option("--secret-stdin", help="Read the secret from standard input.")]
SecretFile = Annotated[
    Path | None, typer.Option("--secret-file", metavar="FILE", help="Read the secret from a file.")
]
NoCheck = Annotated[bool, typer.Option("--no-check", help="Store the key without asking RunSignup about it.")]


@app.command()
def add(
    name: Name,
    api_key: ApiKey = None,
    kind: KindOption = "key",
    calls_per_hour: CallsPerHour = None,
    secret_stdin: SecretStdin = False,
    secret_file: SecretFile = None,
    no_check: NoCheck = False,
    backfill: Annotated[
        bool, typer.Option("--backfill", help="Load its races at once, those of the last year included.")
    ] = False,
) -> None:
    """Add a partner with its RunSignup key."""
    from bibwire import logs
    from bibwire.cli.backfill import load, show
    from bibwire.cli.session import read_settings, work
    from bibwire.store.partners import check_name

    name = check_name(name)
    settings = read_settings()
    given = _given(kind, api_key, secret_stdin, secret_file)

    async def do(runtime: Runtime) -> BackfillReport | None:
        await refuse_same_variable(runtime, name)
        await runtime.partners.check_name_is_free(name)
        credential = given()
        logs.hide(credential.secrets)
        await runtime.partners.check_new(name, credential)
        limit = calls_per_hour or settings.calls_per_hour
        races, calls = (None, 0) if no_check else await _check(runtime, credential, limit)
        partner = await runtime.partners.add(
            name,
            credential,
            calls_per_hour=limit,
            verified=races is not None,
            calls_made=calls,
        )
        await runtime.wake_planner()
        _tell(f"Partner {partner.name} is added", partner, races)
        _tell_override(settings, partner)
        if backfill:
            return await load(runtime, settings, partner.name)
        typer.echo("Its registrations come with bibwire sync, or by themselves while bibwire run goes on.")
        return None

    report = work(do, settings)
    if report is not None:
        show(report)
        raise typer.Exit(report.exit_code)


@app.command("list")
def list_partners(json: JsonOption = False) -> None:
    """List the partners; of a key only the last four characters are shown."""
    from bibwire.cli.session import work
    from bibwire.cli.terminal import as_fields, console, moment, print_json, row, table

    async def do(runtime: Runtime) -> list[Partner]:
        return await runtime.partners.list()

    partners = work(do, make=False)
    if json:
        print_json({"partners": [as_fields(partner) for partner in partners]})
        return
    if not partners:
        typer.echo("No partner is stored yet. Add one with: bibwire partner add NAME --api-key KEY")
        return
    shown = table("", "partner", "key", "kind", "calls/h", "verified", "added", "state", right=("calls/h",))
    for partner in partners:
        state, style = "active", None
        if partner.paused_at is not None:
            state, style = f"paused since {moment(partner.paused_at)}", "dim"
        if partner.failing_since is not None:
            reason = partner.failing_reason or "refused"
            state, style = f"failing since {moment(partner.failing_since)}: {reason}", "red"
        cells = (
            partner.name,
            f"...{partner.fingerprint}",
            partner.kind,
            partner.calls_per_hour,
            moment(partner.verified_at) or "never",
            moment(partner.created_at),
            state,
        )
        row(shown, cells, style=style)
    console().print(shown)


@app.command()
def rotate(
    name: Name,
    api_key: ApiKey = None,
    kind: KindOption = "key",
    calls_per_hour: NewCallsPerHour = None,
    secret_stdin: SecretStdin = False,
    secret_file: SecretFile = None,
    no_check: NoCheck = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask, even if the new key does not see every race.")
    ] = False,
) -> None:
    """
    Replace a partner's key; its data and the calls already counted stay.

    A key that does not see every race that is kept fresh is taken only when confirmed. To change
    the calls an hour alone: bibwire partner limit.
    """
    from bibwire import logs
    from bibwire.cli.session import read_settings, work

    settings = read_settings()
    given = _given(kind, api_key, secret_stdin, secret_file)

    async def do(runtime: Runtime) -> None:
        partner = await runtime.partners.get(name)
        credential = given()
        logs.hide(credential.secrets)
        await runtime.partners.check_key(credential, of=partner)
        limit = calls_per_hour or partner.calls_per_hour
        races, calls = (None, 0) if no_check else await _check(runtime, credential, limit, every_race=True)
        if races is not None and not yes:
            unseen = await runtime.reports.races_not_among(partner.partner_id, races)
            if unseen:
                _confirm_unseen(partner.name, unseen)
        partner = await runtime.partners.rotate(
            partner.name,
            credential,
            calls_per_hour=calls_per_hour,
            verified=races is not None,
            calls_made=calls,
        )
        await runtime.wake_planner()
        _tell(f"Partner {partner.name} has a new key", partner, races)
        _tell_override(settings, partner)

    work(do, settings, make=False)


@app.command()
def limit(
    name: Name,
    calls: Annotated[
        int, typer.Argument(metavar="CALLS", min=1, max=MOST_CALLS, help="Calls an hour.", show_default=False)
    ],
) -> None:
    """Change how many calls a partner's key may make in any hour; in force at once."""
    from bibwire.cli.plan import used_up
    from bibwire.cli.session import work
    from bibwire.cli.standing import shortage_sentence

    async def do(runtime: Runtime) -> tuple[Partner, Outlook]:
        from bibwire.engine.planner import outlook

        partner = await runtime.partners.limit(name, calls)
        await runtime.wake_planner()
        return partner, await outlook(runtime.db, partner, now=runtime.clock.now())

    partner, found = work(do, make=False)
    typer.echo(f"Partner {partner.name} may make {counted(partner.calls_per_hour, 'call')} an hour.")
    if found.paused:
        return
    until, sentence = used_up(found)
    if until is not None:
        typer.echo(sentence)
    if found.shortage is not None:
        typer.echo(shortage_sentence(partner.name, found.shortage, found.now))


@app.command()
def pause(name: Name) -> None:
    """Ask RunSignup nothing more for a partner, until it is resumed."""
    from bibwire.cli.session import work
    from bibwire.cli.terminal import moment
    from bibwire.store.partners import partner_command

    async def do(runtime: Runtime) -> tuple[Partner, Partner]:
        before, partner = await runtime.partners.get(name), await runtime.partners.pause(name)
        await runtime.drop_work(partner)
        return before, partner

    before, partner = work(do, make=False)
    since = "" if before.paused_at is None else f" already, since {moment(before.paused_at)}"
    typer.echo(
        f"Partner {partner.name} is paused{since}. Its data stays; go on with: "
        f"{partner_command('resume', partner.name)}"
    )


@app.command()
def resume(name: Name) -> None:
    """Go on with a partner that was paused."""
    from bibwire.cli.session import work

    async def do(runtime: Runtime) -> tuple[Partner, Partner]:
        before, partner = await runtime.partners.get(name), await runtime.partners.resume(name)
        await runtime.wake_planner()
        return before, partner

    before, partner = work(do, make=False)
    if before.paused_at is None:
        typer.echo(f"Partner {partner.name} was not paused; it is active.")
    else:
        typer.echo(
            f"Partner {partner.name} is active again. What it missed comes with bibwire sync, or while "
            "bibwire run goes on."
        )


@app.command()
def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a partner with its key and all its data; other partners are left as they are."""
    from bibwire.cli.session import work

    async def do(runtime: Runtime) -> None:
        partner = await runtime.partners.get(name)
        if not yes:
            state = (await runtime.reports.partners(partner.partner_id))[0]
            _confirm(partner.name, state.races, state.participants)
        counts = await runtime.partners.remove(partner.name)
        await runtime.drop_work(partner)
        kept = ("participants", "changes", "races", "events")
        told = ", ".join(counted(counts[table], table.removesuffix("s")) for table in kept)
        typer.echo(f"Partner {partner.name} is removed, with {told}.")

    work(do, make=False)


@app.command()
def unblock(name: Name) -> None:
    """
    Make calls for a partner again at once, whatever pause RunSignup asked for.

    A pause of more than 15 minutes is believed for 15, then one careful call is made: if that is answered,
    all goes on. Use this where you know better, as on race day. If RunSignup refuses again, a new pause
    begins. Where there is no pause, nothing is done.
    """
    from bibwire.cli.session import work

    async def do(runtime: Runtime) -> tuple[Partner, bool]:
        partner = await runtime.partners.get(name)
        return partner, await runtime.unblock(partner)

    partner, lifted = work(do, make=False)
    if lifted:
        typer.echo(f"The pause of {partner.name} is over: calls are made again.")
    else:
        typer.echo(f"There is no pause for {partner.name}; calls are made.")


def _confirm(name: str, races: int, participants: int) -> None:
    from bibwire.cli.session import asking

    if not sys.stdin.isatty():
        raise SettingsError(
            f"Removing {name} deletes all its data, and there is no terminal to ask on: add --yes."
        )
    typer.echo(
        f"This deletes {name} with {counted(races, 'race')} and {counted(participants, 'person', 'people')}, "
        "for good.",
        err=True,
    )
    with asking():
        typed = typer.prompt("Type the partner's name to go on", err=True)
    if typed.strip() != name:
        raise SettingsError("That is not the name. Nothing was removed.")


def _confirm_unseen(name: str, unseen: list[tuple[int, str]]) -> None:
    """Go on only if somebody wants a key that does not see these races of the mirror."""
    from bibwire.cli.session import asking
    from bibwire.cli.terminal import plain

    named = ", ".join(f"{race_id} {plain(race.strip())}" for race_id, race in unseen[:SHOWN_UNSEEN])
    more = f" and {len(unseen) - SHOWN_UNSEEN:,} more" if len(unseen) > SHOWN_UNSEEN else ""
    told = (
        f"The new key does not see {counted(len(unseen), 'race')} of {name} that the mirror keeps fresh: "
        f"{named}{more}."
    )
    if not sys.stdin.isatty():
        raise SettingsError(f"{told} Nothing was changed; if that is right, add --yes.")
    typer.echo(f"{told} They would be updated no more.", err=True)
    with asking():
        typed = typer.prompt("Type the partner's name to go on", err=True)
    if typed.strip() != name:
        raise SettingsError("That is not the name. Nothing was changed.")


def _given(
    kind: Kind, api_key: str | None, secret_stdin: bool, secret_file: Path | None
) -> Callable[[], Credential]:
    """
    Return what returns the credential. What was given is read, and refused, at once.

    What is to be asked for is asked then: whoever mistyped the name shall not look for the secret first.
    """
    from bibwire.cli.session import asking
    from bibwire.domain.secrets import Credential, Secret

    api_key = _word("API key", api_key or "")
    if kind == "bearer" and api_key:
        raise SettingsError(
            "A bearer token has no API key: leave --api-key out and give the token where the secret "
            "is asked for."
        )
    if kind != "bearer" and not api_key:
        raise SettingsError("An API key is needed: --api-key KEY. Only its secret is asked for.")
    what = "Token" if kind == "bearer" else "API secret"

    def with_secret(secret: Secret) -> Credential:
        return Credential(kind, secret) if kind == "bearer" else Credential(kind, Secret(api_key), secret)

    def ask() -> Credential:
        with asking():
            return with_secret(_read_secret(what, secret_stdin, secret_file))

    if not secret_stdin and secret_file is None and sys.stdin.isatty():
        return ask
    credential = with_secret(_read_secret(what, secret_stdin, secret_file))
    return lambda: credential


def _read_secret(what: str, from_stdin: bool, path: Path | None) -> Secret:
    from bibwire.domain.secrets import Secret

    if from_stdin and path is not None:
        raise SettingsError("--secret-stdin and --secret-file are both given: keep one of them.")
    if path is not None:
        try:
            with path.open("rb") as file:
                text = file.read(LONGEST_SECRET).decode("utf-8-sig")
        except OSError as error:
            raise SettingsError(f"The secret file {path} cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise SettingsError(f"The secret file {path} holds no text.") from None
    elif from_stdin:
        # Whatever encoding the terminal has: a key is ASCII, and what is not is told by name.
        text = sys.stdin.buffer.read().decode("utf-8", "replace")
    elif sys.stdin.isatty():
        text = typer.prompt(what, hide_input=True, err=True)
    else:
        raise SettingsError(
            f"The {what} is asked for on a terminal, and there is none: "
            "use --secret-stdin or --secret-file FILE."
        )
    text = _word(what, text)
    if not text:
        raise SettingsError(f"The {what} is empty; nothing was stored.")
    return Secret(text)


def _word(what: str, text: str) -> str:
    """Return a key without what was pasted along, and say so; what no key has is refused by name."""
    from bibwire.cli.terminal import complain
    from bibwire.domain import pasted

    meant = pasted.clean(text)
    if len(meant.text.split()) > 1:
        raise SettingsError(f"The {what} has to be one word without spaces; nothing was stored.")
    if odd := pasted.oddity(meant.text):
        raise SettingsError(
            f"The {what} holds {odd}, which no key of RunSignup has: copy it again. Nothing was stored."
        )
    if meant.found:
        complain(f"The {what} was pasted with {meant.found}; that was taken out.")
    return meant.text


async def _check(
    runtime: Runtime, credential: Credential, limit: int, *, every_race: bool = False
) -> tuple[list[int], int]:
    """Ask the vendor which races the key sees; return them, and how many calls that took."""
    calls: list[CallMade] = []
    if sys.stderr.isatty():
        typer.echo("Asking RunSignup about the key ...", err=True)
    try:
        races = await runtime.check_credential(
            credential, calls.append, every_race=every_race, calls_per_hour=limit
        )
    except RetryLater as error:
        raise type(error)(
            f"The key could not be checked, nothing was stored: {str(error).rstrip('.')}. "
            "Try again, or store it unchecked with --no-check."
        ) from error
    except PartnerStopped as error:
        raise type(error)(
            f"Nothing was stored: {str(error).rstrip('.')}. Check the key, its secret and --kind."
        ) from error
    except BibwireError as error:
        raise type(error)(f"Nothing was stored: {error}") from error
    return races, sum(call.sent for call in calls)


async def refuse_same_variable(runtime: Runtime, name: str) -> None:
    """Two names must not be overridden by one variable: one partner's key would serve the other."""
    from bibwire.settings import PREFIX, partner_token

    for other in await runtime.partners.list():
        if other.name != name and partner_token(other.name) == partner_token(name):
            raise SettingsError(
                f"{name} is too much like the partner {other.name}: both would read "
                f"{PREFIX}KEY_{partner_token(name)}. Choose another name."
            )


def _tell_override(settings: Settings, partner: Partner) -> None:
    """Say that another key is in use than the one just stored, where the environment names one."""
    from bibwire.cli.terminal import complain
    from bibwire.domain.key_refusals import joined

    try:
        given = settings.partner_override(partner.name, partner.kind)
    except SettingsError as error:
        complain(str(error))
        return
    if given is not None:
        verb = "is" if len(given.variables) == 1 else "are"
        complain(
            f"As long as {joined(given.variables)} {verb} set, the key ...{given.fingerprint} from there is "
            "used, and the stored one is not."
        )


def _tell(done: str, partner: Partner, races: list[int] | None) -> None:
    seen = "unchecked"
    if races is not None:
        more = " or more" if len(races) >= LIST_PAGE else ""
        seen = f"it sees {counted(len(races), 'race')}{more}"
    calls = counted(partner.calls_per_hour, "call")
    typer.echo(f"{done}: key ...{partner.fingerprint} ({seen}), {calls} an hour.")
