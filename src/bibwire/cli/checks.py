"""
What `bibwire doctor` checks: each finding is ok, warn or FAIL, with the fix for what is wrong.

Nothing is changed: no folder, key file, database or schema is made.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bibwire.domain.errors import BibwireError, SettingsError

if TYPE_CHECKING:
    from bibwire.settings import Settings
    from bibwire.store.reports import Reports

Grade = Literal["ok", "warn", "FAIL"]

# The vendor refuses calls without a caller registration from here on.
COMPULSORY_FROM = datetime(2027, 1, 1, tzinfo=UTC)
# Cursors are the vendor's times, so a difference loses nothing; but ages shown are off by it.
CLOCK_TOLERANCE = timedelta(seconds=5)
CLOCK_LIMIT = timedelta(minutes=5)
# Other programs find their proxy there.
PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
# A mirror of 400,000 people takes about 1 GB with its indexes.
LITTLE_SPACE = 2_000_000_000
NO_SPACE = 200_000_000
# Races named by a check; the rest is counted.
MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing checked."""

    check: str
    grade: Grade
    found: str
    fix: str = ""


@dataclass(slots=True)
class Examination:
    """All findings so far."""

    settings: Settings
    findings: list[Finding] = field(default_factory=list)
    # Seconds by which the clocks of the database and of the vendor are ahead of this computer's.
    database_ahead: float | None = None
    vendor_ahead: float | None = None

    def add(self, check: str, grade: Grade, found: str, fix: str = "") -> None:
        self.findings.append(Finding(check, grade, found, fix))


def examine(settings: Settings, now: Callable[[], datetime]) -> list[Finding]:
    """Check everything. `now` is this machine's clock."""
    examination = Examination(settings)
    _settings(examination, now())
    _zone(examination)
    usable = _home(examination)
    key = _key(examination, usable)
    with _conninfo(examination, usable) as conninfo:
        if conninfo is not None and _database(examination, conninfo, now):
            _credentials(examination, conninfo, key, now())
    _vendor(examination, now)
    _clocks(examination)
    return examination.findings


def _settings(to: Examination, now: datetime) -> None:
    from bibwire.settings import find_file, unknown_variables

    path = find_file()
    for name, nearest in unknown_variables():
        to.add(name, "warn", f"it is no setting of Bibwire{nearest}: it is ignored", "correct or remove it")
    to.add("settings", "ok", f"valid; read from the environment{'' if path is None else f' and {path}'}")
    if path is not None and _others_can_read(path) and b"secret" in path.read_bytes().lower():
        to.add("settings file", "warn", f"{path} holds secrets and others can read it", f"chmod 600 {path}")
    if to.settings.caller is not None:
        to.add("caller registration", "ok", "set")
    else:
        grade: Grade = "FAIL" if now >= COMPULSORY_FROM else "warn"
        to.add(
            "caller registration",
            grade,
            "not set; RunSignup demands it from 2027-01-01 on",
            "register the software with RunSignup, set BIBWIRE_CALLER_REG and BIBWIRE_CALLER_SECRET",
        )


def _zone(to: Examination) -> None:
    """Say where TZ is nothing: times are then shown, and daily ones kept, in UTC without a word."""
    from bibwire.domain.instants import zone_named

    name = os.environ.get("TZ", "").removeprefix(":")
    # A path, or rules of its own such as EST5EDT,M3.2.0,M11.1.0, are read by the system.
    if name.isalpha() and zone_named(name) is None:
        fix = "set TZ to a zone like America/New_York, or unset it; BIBWIRE_TIMEZONE names the operator's"
        to.add("time zone", "warn", f"TZ is {name!r}, which is no zone: times are shown in UTC", fix)


def _home(to: Examination) -> bool:
    """Return whether what is in the home can be looked at."""
    home = to.settings.home
    try:
        existing = next(folder for folder in (home, *home.parents) if folder.exists())
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        fix = "give the user that runs Bibwire access to it, or set BIBWIRE_HOME"
        to.add("home", "FAIL", f"{home} cannot be used: {why}", fix)
        return False
    if not existing.is_dir():
        to.add("home", "FAIL", f"{existing} is no folder", "set BIBWIRE_HOME to a folder")
        return False
    if existing != home:
        to.add("home", "warn", f"{home} does not exist yet", "bibwire init")
    elif not home.is_dir() or not os.access(home, os.W_OK | os.X_OK):
        fix = "give the user that runs Bibwire access to it, or set BIBWIRE_HOME"
        to.add("home", "FAIL", f"{home} is no folder we can write to", fix)
    else:
        to.add("home", "ok", str(home))
    free = shutil.disk_usage(existing).free
    grade: Grade = "ok" if free >= LITTLE_SPACE else "warn" if free >= NO_SPACE else "FAIL"
    # A database elsewhere has its own disk; here stand the key and, perhaps, the log.
    if to.settings.database_url is not None and grade == "FAIL":
        grade = "warn"
    to.add(
        "disk space", grade, f"{free / 1e9:.1f} GB free at {existing}", "" if grade == "ok" else "make room"
    )
    return existing != home or os.access(home, os.R_OK | os.X_OK)


def _key(to: Examination, usable: bool) -> bytes | None:
    from bibwire.store.vault import KEY_FILE_NAME, load_key

    settings = to.settings
    made = settings.home / KEY_FILE_NAME
    named = settings.secret_key is not None or settings.secret_key_file is not None
    if not named and not usable:
        to.add("key", "FAIL", f"{made} cannot be read", "see home")
        return None
    if not named and not made.exists():
        to.add("key", "warn", f"{made} does not exist yet", "bibwire init")
        return None
    try:
        key = load_key(key=settings.secret_key, key_file=settings.secret_key_file, home=settings.home)
    except SettingsError as error:
        to.add("key", "FAIL", "cannot be used", str(error))
        return None
    source = (
        "BIBWIRE_SECRET_KEY" if settings.secret_key is not None else str(settings.secret_key_file or made)
    )
    to.add("key", "ok", f"32 bytes from {source}")
    return key


@contextmanager
def _conninfo(to: Examination, usable: bool) -> Iterator[str | None]:
    """Yield how to reach the database; the embedded one is started if it has been made before."""
    settings = to.settings
    if settings.database_url is not None:
        yield settings.database_url.reveal()
        return
    folder = settings.home / "postgres" / "data"
    if not usable:
        to.add("embedded PostgreSQL", "FAIL", f"{folder} cannot be read", "see home")
        yield None
        return
    if not folder.exists():
        to.add("embedded PostgreSQL", "warn", f"not made yet at {folder}", "bibwire init")
        yield None
        return
    from bibwire.store import embedded

    try:
        server = embedded.start(settings.home)
    except BibwireError as error:
        to.add("embedded PostgreSQL", "FAIL", f"does not start at {folder}", str(error))
        yield None
        return
    with server:
        to.add("embedded PostgreSQL", "ok", f"{server.version} at {folder}")
        yield server.conninfo


def _database(to: Examination, conninfo: str, now: Callable[[], datetime]) -> bool:
    """Return whether the partners can be read."""
    from bibwire.store.health import inspect
    from bibwire.store.migrate import ENCODING, HEAD, NOT_EVERY_NAME, OTHER_DATABASE
    from bibwire.store.pooler import POOLED, REMEDY

    try:
        health = inspect(conninfo)
    except BibwireError as error:
        to.add("database", "FAIL", str(error), "start the server, or mend BIBWIRE_DATABASE_URL")
        return False
    found = f"PostgreSQL {health.server_version}, database {health.database}, {health.size}"
    if health.is_old:
        to.add("database", "FAIL", found, "Bibwire needs PostgreSQL 14 or later: upgrade the server")
        return False
    if health.encoding != ENCODING:
        found = f"database {health.database} is encoded in {health.encoding}, {NOT_EVERY_NAME}"
        to.add("database", "FAIL", found, OTHER_DATABASE)
        return False
    if health.is_pooled:
        to.add("database", "FAIL", f"locks would not hold, because {POOLED}", REMEDY)
        return False
    to.add("database", "ok", found)
    if to.settings.database_url is None:
        pass  # the embedded one is built without lz4, and nobody can change that
    elif not health.lz4:
        fix = "a server built with lz4 loads 1.3 times faster; all works without it"
        to.add("lz4", "warn", "the server was built without it", fix)
    else:
        to.add("lz4", "ok", "available")
    to.database_ahead = (health.now - now()).total_seconds()
    for denial in health.denials:
        to.add(denial.check, "FAIL", denial.found, denial.fix)
    if health.schema == HEAD:
        to.add("schema", "ok", f"version {HEAD}")
    elif health.schema is None and health.denials:
        pass  # it may be there, and cannot be looked at
    elif health.schema is None:
        to.add("schema", "warn", "not made yet", "bibwire init")
    elif health.schema < HEAD:
        to.add("schema", "warn", f"version {health.schema}, this Bibwire has {HEAD}", "bibwire init")
    else:
        fix = "it was used by a newer Bibwire: upgrade this one"
        to.add("schema", "FAIL", f"version {health.schema}, this Bibwire knows {HEAD}", fix)
    return health.schema == HEAD and not any(denial.check == "tables" for denial in health.denials)


def _credentials(to: Examination, conninfo: str, key: bytes | None, now: datetime) -> None:
    from bibwire.store.vault import Vault

    if key is None:
        _missing_key(to, conninfo)
        return
    try:
        asyncio.run(_open_credentials(to, conninfo, Vault(key), now))
    except BibwireError as error:
        to.add("partners", "FAIL", "cannot be read", str(error))


def _missing_key(to: Examination, conninfo: str) -> None:
    """Say that the key of what is stored is not there, if that is why there is none."""
    from bibwire.store.database import open_database
    from bibwire.store.partners import number_of_credentials
    from bibwire.store.vault import is_key_missing, why_no_key_is_made

    async def count() -> int:
        async with open_database(conninfo, connections=1) as database:
            return await number_of_credentials(database)

    settings = to.settings
    if not is_key_missing(key=settings.secret_key, key_file=settings.secret_key_file, home=settings.home):
        return  # what is wrong with it is said
    try:
        stored = asyncio.run(count())
    except BibwireError as error:
        to.add("partners", "FAIL", "cannot be read", str(error))
        return
    if stored:
        to.findings = [each for each in to.findings if each.check != "key"]
        to.add("key", "FAIL", "cannot be used", why_no_key_is_made(settings.home, stored))


async def _open_credentials(to: Examination, conninfo: str, vault: object, now: datetime) -> None:
    from bibwire import logs
    from bibwire.domain.key_refusals import given_key, joined
    from bibwire.settings import overrides_of_nobody
    from bibwire.store.database import open_database
    from bibwire.store.partners import Partners, partner_command
    from bibwire.store.reports import Reports
    from bibwire.store.vault import Vault

    assert isinstance(vault, Vault)
    async with open_database(conninfo, connections=1) as database:
        partners = Partners(database, vault)
        all_partners = await partners.list()
        if not all_partners:
            to.add("partners", "warn", "none is stored", "bibwire partner add NAME --api-key KEY")
        for partner in all_partners:
            name = f"partner {partner.name}"
            again = partner_command("rotate", partner.name, options="--api-key KEY")
            try:
                logs.hide((await partners.credential(partner)).secrets)
                given = to.settings.partner_override(partner.name, partner.kind)
            except BibwireError as error:
                to.add(name, "FAIL", "its key cannot be used", str(error))
                continue
            since, refused = partner.failing_since, given_key(partner.failing_reason)
            if given is not None and since and refused and refused.fingerprint == given.fingerprint:
                which = f"key ...{given.fingerprint} from the environment"
                found = f"RunSignup refuses its {which} since {_utc(since)}"
                fix = f"correct {joined(given.variables)}, or unset them to use the stored key"
                to.add(name, "FAIL", found, f"{fix}; then: bibwire sync")
            elif given is None and since and refused is None:
                to.add(name, "FAIL", f"RunSignup refuses its key since {_utc(since)}", again)
            elif partner.paused_at is not None:
                to.add(name, "warn", "paused", partner_command("resume", partner.name))
            elif given is not None:
                to.add(name, "ok", f"key ...{given.fingerprint} from the environment")
            else:
                verified = "verified" if partner.verified_at else "not verified yet"
                to.add(name, "ok", f"key ...{partner.fingerprint} opens, {verified}")
        for variable in overrides_of_nobody(partner.name for partner in all_partners):
            fix = "a partner called ACME Timing has BIBWIRE_KEY_ACME_TIMING; mend or remove it"
            to.add(variable, "warn", "it is set, and no partner has such a name: it is ignored", fix)
        reports = Reports(database)
        await _races(to, reports)
        await _lists(to, reports)
        for state in await reports.partners():
            if state.blocked_until is not None or state.asked_until is not None:
                until = state.asked_until or state.blocked_until
                found = f"RunSignup asked for no calls before {until:%Y-%m-%d %H:%M} UTC"
                fix = f"wait, or: {partner_command('unblock', state.partner)}"
                to.add(f"calls of {state.partner}", "warn", found, fix)
        await _events(to, reports, now)


def _utc(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


async def _races(to: Examination, reports: Reports) -> None:
    """Name the live races that are not polled as often as they must be."""
    from bibwire.domain.instants import zone_named

    races = [race for race in await reports.races() if not race.partner_paused]
    unknown = [race for race in races if race.timezone and zone_named(race.timezone) is None]
    if unknown:
        zones = "; ".join(
            f"{race.race_id} ({race.partner}): {race.timezone!r}" for race in unknown[:MOST_NAMED]
        )
        to.add(
            "zones of races",
            "warn",
            f"{len(unknown):,} of {len(races):,} have a time zone that is not known: {zones}. Their times "
            "are read as US Eastern, and they are polled every minute all their race day",
            "ask the organizer to choose the race's time zone at RunSignup again",
        )
    late = [race for race in races if race.is_late]
    if not late:
        to.add(
            "races", "ok", f"{sum(race.target_seconds is not None for race in races):,} live, none is late"
        )
        return
    named = "; ".join(
        f"{race.race_id} ({race.partner}): {race.last_error or race.late_because}"
        for race in late[:MOST_NAMED]
    )
    more = f"; and {len(late) - MOST_NAMED:,} more" if len(late) > MOST_NAMED else ""
    to.add(
        "races",
        "warn",
        f"{len(late):,} of {len(races):,} are older than they may be, or not loaded: {named}{more}",
        "keep them fresh with: bibwire run; bibwire status says more",
    )


async def _lists(to: Examination, reports: Reports) -> None:
    from bibwire.store.partners import quoted

    for partner, note, error in await reports.race_lists():
        if error is not None:
            fix = f"try again with: bibwire discover --partner {quoted(partner)}"
            to.add(f"race list of {partner}", "warn", f"was not read: {error}", fix)
        elif note is not None:
            fix = "tell RunSignup; bibwire asks for the races by their days, and marks none as gone"
            to.add(f"race list of {partner}", "warn", note, fix)


async def _events(to: Examination, reports: Reports, now: datetime) -> None:
    for event in await reports.ends_before_start(now=now):
        to.add(
            f"event {event.event_id}",
            "warn",
            f"{event.event} of race {event.race_id} ({event.race}, {event.partner}) ends "
            f"{event.ends_at:%Y-%m-%d %H:%M} UTC, before it starts {event.starts_at:%Y-%m-%d %H:%M} UTC: "
            "it is kept fresh until 7 days after its start",
            "ask the organiser to mend the end at RunSignup",
        )


def _vendor(to: Examination, now: Callable[[], datetime]) -> None:
    from bibwire.api.probe import reach

    url = to.settings.api_url
    ignored = [name for name in PROXY_VARIABLES if os.environ.get(name)]
    if to.settings.proxy is not None:
        to.add("proxy", "ok", "RunSignup is asked through the proxy of BIBWIRE_PROXY")
    elif ignored:
        to.add("proxy", "ok", f"none; {' and '.join(ignored)} is not read, only BIBWIRE_PROXY")
    try:
        answer = asyncio.run(reach(url, to.settings.proxy))
    except BibwireError as error:
        fix = "check the network, BIBWIRE_PROXY (where only a proxy gets out) and BIBWIRE_API_URL"
        to.add("RunSignup", "FAIL", f"{url} does not answer: {' '.join(str(error).split())}", fix)
        return
    if not answer.is_api and answer.status < 500:
        fix = "mend BIBWIRE_API_URL: the API's address ends in /rest"
        to.add("RunSignup", "FAIL", f"{url} answers, and not as the API does (status {answer.status})", fix)
    elif answer.status >= 500:
        to.add("RunSignup", "warn", f"{url} answers with status {answer.status}", "try again later")
    else:
        to.add("RunSignup", "ok", f"{url} answers")
    if answer.date is None:
        to.add("RunSignup's clock", "warn", "it sends no Date", "is a proxy in between?")
    else:
        # The header has whole seconds: at half of one it is right on average.
        to.vendor_ahead = (answer.date + timedelta(seconds=0.5) - now()).total_seconds()


def _clocks(to: Examination) -> None:
    from bibwire.domain.clocks import wrong_clock

    database, vendor = to.database_ahead, to.vendor_ahead
    # All are compared with the database's; where it does not answer, with this computer's.
    base = database or 0.0
    wrong = wrong_clock(
        vendor_ahead=None if vendor is None else vendor - base,
        computer_ahead=-base,
        tolerance=CLOCK_TOLERANCE.total_seconds(),
    )
    for check, ahead in (("database's clock", database), ("RunSignup's clock", vendor)):
        if ahead is None:
            continue
        difference = timedelta(seconds=abs(ahead))
        differs = f"differs from this computer's by {difference.total_seconds():.1f} s"
        if wrong is None or difference <= CLOCK_TOLERANCE:
            to.add(check, "ok", differs)
        else:
            grade: Grade = "warn" if difference <= CLOCK_LIMIT else "FAIL"
            to.add(check, grade, f"{differs}: {wrong.said}", wrong.fix)


def _others_can_read(path: Path) -> bool:
    return os.name == "posix" and bool(stat.S_IMODE(path.stat().st_mode) & 0o077)
