"""
Reads the original's database, in one snapshot, and never writes to it.

Every transaction of the connection is read-only by the server's own setting, and the one that
reads is besides; it ends before anything else is done. What can go wrong is one sentence without
the address, which may hold a password, and without anything a row holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from psycopg import IsolationLevel
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bibwire.domain.adoption import Listed
from bibwire.domain.errors import DatabaseUnavailable, SettingsError
from bibwire.domain.secrets import SHORTEST_IN_BODIES, Redactor, Secret
from bibwire.store import connections
from bibwire.store.database import statements, with_time_outs

_SQL = statements("original")

# What has to be there; more columns may, and are read where they are.
NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "timing_partners": ("timing_partner_id", "company_name"),
    "providers": ("provider_id", "name"),
    "partner_provider_credentials": (
        "partner_provider_credential_id",
        "provider_id",
        "timing_partner_id",
        "principal",
        "secret",
    ),
    "runsignup_participants": ("timing_partner_id", "event_id", "registration_id"),
}
# Tables in which the original noted the key it had used, and the statement that finds it.
KEYS_NOTED_IN: Final = {
    "runsignup_races": "keys_in_races",
    "runsignup_events": "keys_in_events",
    "runsignup_participants": "keys_in_participants",
}


@dataclass(frozen=True, slots=True)
class OldPartner:
    """A row of timing_partners."""

    timing_partner_id: int
    company_name: str
    access_password: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class OldProvider:
    """A row of providers."""

    provider_id: int
    name: str
    provider_type: str | None
    api_base_url: str | None
    rate_limit_per_hour: object


@dataclass(frozen=True, slots=True)
class OldCredential:
    """A row of partner_provider_credentials, as it stands: in the clear."""

    credential_id: int
    provider_id: int | None
    timing_partner_id: int | None
    credential_type: str | None = field(repr=False)
    principal: str | None = field(repr=False)
    secret: str | None = field(repr=False)
    config: object = field(repr=False)


@dataclass(frozen=True, slots=True)
class Original:
    """
    What was read.

    `listed` is by timing_partner_id, None for rows of no partner; `keys_noted` says by table in how
    many rows which text stands in credentials_used, where the original wrote the API key.
    """

    partners: list[OldPartner]
    providers: list[OldProvider]
    credentials: list[OldCredential]
    listed: dict[int | None, Listed]
    keys_noted: dict[str, dict[str, int]] = field(repr=False)

    def secrets(self) -> list[Secret]:
        """Return every text to be struck out of messages; a short one would strike out common words."""
        texts = [partner.access_password for partner in self.partners]
        for credential in self.credentials:
            texts += [credential.principal, credential.secret]
            texts += _texts(credential.config)
        texts += [key for noted in self.keys_noted.values() for key in noted]
        forms = {form for text in texts if text for form in (text, text.strip())}
        return [Secret(form) for form in forms if len(form) >= SHORTEST_IN_BODIES]


def read(address: Secret) -> Original:
    """
    Read all of it.

    Raises:
        SettingsError: The address cannot be read, or is not that of the original's database.
        DatabaseUnavailable: It cannot be reached, or does not let us read.
    """
    redactor = Redactor(passwords(address.reveal()))
    try:
        # Nothing prepared: behind a pooler, the next statement may reach another connection of the server.
        with connections.connect(
            _conninfo(address), application_name="bibwire adopt", prepare_threshold=None, settled=False
        ) as connection:
            connection.limit = None  # a table of it may take long
            connection.isolation_level = IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            connections.settle_transaction(connection)
            return _read(connection)
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(
            f"The original's database cannot be used: {redactor.redact_text(_one_line(error))}"
        ) from None
    except psycopg.errors.InsufficientPrivilege as error:
        raise DatabaseUnavailable(
            f"The original's database does not let this user read: {_one_line(error)}"
        ) from None
    except (psycopg.Error, UnicodeDecodeError) as error:
        # Other messages may repeat what a row holds.
        raise DatabaseUnavailable(
            "The original's database could not be read: its tables are not as Bibwire knows them "
            f"({type(error).__name__})."
        ) from None


def passwords(address: str) -> list[Secret]:
    """Return what of an address must not be shown, also where it is not written as it should be."""
    try:
        found = [str(conninfo_to_dict(address).get("password") or "")]
    except psycopg.Error:
        found = []
    # An @ or a / in the password that is not quoted: parts of it are then taken for the host.
    before, separator, _ = address.partition("://")[2].rpartition("@")
    if separator and ":" in before:
        password = before.partition(":")[2]
        found += [password, *password.replace("/", "@").split("@")]
    return [Secret(text) for text in found if text]


def _conninfo(address: Secret) -> str:
    try:
        return with_time_outs(make_conninfo(address.reveal()))
    except psycopg.Error:
        raise SettingsError(
            "The original's address cannot be read: it has to be a URL such as "
            "postgresql://user@host/database, with @ / : in a password written as %40 %2F %3A."
        ) from None


def _read(connection: psycopg.Connection[Any]) -> Original:
    columns = _columns(connection)
    listed = {
        partner_id: Listed(rows, repeated=rows - unnumbered - different, unnumbered=unnumbered)
        for partner_id, rows, unnumbered, different in connection.execute(_SQL["participants"])
    }
    by_event: dict[int | None, dict[int | None, frozenset[int]]] = {}
    for partner_id, event_id, ids in connection.execute(_SQL["registrations"]):
        by_event.setdefault(partner_id, {})[event_id] = frozenset(ids)
    return Original(
        partners=[
            OldPartner(row["timing_partner_id"], row["company_name"] or "", _text(row.get("access_password")))
            for row in _rows(connection, "partners")
        ],
        providers=[
            OldProvider(
                row["provider_id"],
                row["name"] or "",
                _text(row.get("provider_type")),
                _text(row.get("api_base_url")),
                row.get("rate_limit_per_hour"),
            )
            for row in _rows(connection, "providers")
        ],
        credentials=[
            OldCredential(
                row["partner_provider_credential_id"],
                row["provider_id"],
                row["timing_partner_id"],
                _text(row.get("credential_type")),
                _text(row["principal"]),
                _text(row["secret"]),
                row.get("additional_config"),
            )
            for row in _rows(connection, "credentials")
        ],
        listed={
            partner_id: Listed(each.rows, each.repeated, each.unnumbered, by_event.get(partner_id, {}))
            for partner_id, each in listed.items()
        },
        keys_noted={
            table: {str(key): rows for key, rows in connection.execute(_SQL[statement])}
            for table, statement in KEYS_NOTED_IN.items()
            if "credentials_used" in columns.get(table, set())
        },
    )


def _columns(connection: psycopg.Connection[Any]) -> dict[str, set[str]]:
    """Return the columns there are by table, or raise SettingsError if one is missing."""
    columns: dict[str, set[str]] = {}
    tables = sorted({*NEEDED, *KEYS_NOTED_IN})
    for table, column in connection.execute(_SQL["columns"], {"tables": tables}):
        columns.setdefault(table, set()).add(column)
    missing = [table for table in NEEDED if table not in columns]
    if missing:
        raise SettingsError(
            f"That is not the original's database: it has no table {', '.join(missing)}. Name the right one; "
            "if its tables are in a schema of their own, add ?options=-csearch_path%3DSCHEMA to the address."
        )
    lacking = [
        f"{table}.{column}"
        for table, needed in NEEDED.items()
        for column in needed
        if column not in columns[table]
    ]
    if lacking:
        raise SettingsError(f"That is not the original's database: it has no column {', '.join(lacking)}.")
    return columns


def _rows(connection: psycopg.Connection[Any], name: str) -> list[dict[str, Any]]:
    return [row for (row,) in connection.execute(_SQL[name])]


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _texts(value: object) -> list[str]:
    """Return every text of a JSON value that could be a secret: one that is long enough."""
    if isinstance(value, str):
        return [value] if len(value) >= 8 else []
    if isinstance(value, dict):
        return [text for part in value.values() for text in _texts(part)]
    if isinstance(value, list):
        return [text for part in value for text in _texts(part)]
    return []


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
