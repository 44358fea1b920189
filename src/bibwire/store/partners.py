"""
Partners and their credentials: added, listed, replaced, paused, removed.

A credential is sealed before it reaches the database and opened after it left it; no
statement, row or error holds it in the clear. Names are unique and compared as written.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from bibwire.domain.errors import Collided, SettingsError
from bibwire.domain.secrets import Credential, Secret
from bibwire.store.database import Connection, Database, statements
from bibwire.store.vault import Vault

Kind = Literal["key", "v2", "bearer"]

LONGEST_NAME = 100

# In the order of removal: children first.
TABLES = (
    "missing",
    "streams",
    "scopes",
    "participants",
    "changes",
    "feed_heads",
    "events",
    "races",
    "sync_history",
    "quarantine",
    "call_minutes",
    "credentials",
    "partners",
)

_SQL = statements("partners")
_TABLE = "credentials"


@dataclass(frozen=True, slots=True)
class Partner:
    """A timing company, with what may be told of its credential."""

    partner_id: int
    name: str
    created_at: datetime
    paused_at: datetime | None
    credential_id: int
    kind: Kind
    fingerprint: str
    calls_per_hour: int
    verified_at: datetime | None
    failing_since: datetime | None
    failing_reason: str | None
    rotated_at: datetime | None


class Partners:
    """The partner store of one database."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    async def add(
        self, name: str, credential: Credential, *, calls_per_hour: int, verified: bool = False
    ) -> Partner:
        """
        Store a new partner with its credential.

        Args:
            name: 1 to 100 printable signs; white space around it is cut off.
            calls_per_hour: Calls the credential may make in any rolling hour.
            verified: Whether the vendor has just accepted the credential.

        Raises:
            SettingsError: The name is taken or cannot be one.
        """
        name = check_name(name)
        async with self._database.transaction() as connection:
            cursor = await connection.execute(_SQL["add_partner"], {"name": name})
            row = await cursor.fetchone()
            if row is None:
                raise SettingsError(
                    f"There is a partner {name} already. To replace its key: "
                    f"bibwire partner rotate {_quoted(name)}."
                )
            await connection.execute(
                _SQL["add_credential"],
                self._sealed(row[0], credential) | {"calls_per_hour": calls_per_hour, "verified": verified},
            )
        return await self.get(name)

    async def list(self) -> list[Partner]:
        """Return every partner, by name."""
        return [Partner(*row) for row in await self._database.fetch(_SQL["list_partners"], name=None)]

    async def get(self, name: str) -> Partner:
        """
        Return one partner.

        Raises:
            SettingsError: There is none of that name.
        """
        rows = await self._database.fetch(_SQL["list_partners"], name=name.strip())
        if rows:
            return Partner(*rows[0])
        raise unknown_partner(name, [partner.name for partner in await self.list()])

    async def credential(self, partner: Partner) -> Credential:
        """
        Return the partner's credential, opened.

        Raises:
            SettingsError: The key in use does not fit, or the partner was removed meanwhile.
            InvariantBroken: What is stored was altered or moved.
        """
        rows = await self._database.fetch(_SQL["read_credential"], partner_id=partner.partner_id)
        if not rows:
            raise unknown_partner(partner.name, [])
        kind, key, secret = rows[0]
        return Credential(
            kind,
            self._open(key, partner.partner_id, "key_encrypted"),
            None if secret is None else self._open(secret, partner.partner_id, "secret_encrypted"),
        )

    async def rotate(
        self,
        name: str,
        credential: Credential,
        *,
        calls_per_hour: int | None = None,
        verified: bool = False,
    ) -> Partner:
        """Replace the partner's credential; None keeps the number of calls it may make."""
        partner = await self.get(name)
        await self._database.fetch(
            _SQL["rotate_credential"],
            **self._sealed(partner.partner_id, credential),
            calls_per_hour=calls_per_hour,
            verified=verified,
        )
        return await self.get(name)

    async def pause(self, name: str) -> Partner:
        """Ask the vendor nothing more for the partner, until `resume`."""
        partner = await self.get(name)
        await self._database.fetch(_SQL["pause"], partner_id=partner.partner_id)
        return await self.get(name)

    async def resume(self, name: str) -> Partner:
        partner = await self.get(name)
        await self._database.fetch(_SQL["resume"], partner_id=partner.partner_id)
        return await self.get(name)

    async def remove(self, name: str) -> dict[str, int]:
        """Delete the partner and every row of it, at once. Return the rows deleted by table."""
        partner = await self.get(name)
        for _ in range(3):
            try:
                async with self._database.transaction() as connection:
                    return await _remove(connection, partner)
            except Collided:
                continue  # a page of this partner was being stored
        raise Collided(
            f"Partner {partner.name} is being synced and could not be removed: stop its sync, "
            "or pause it first, and try again."
        )

    async def mark_verified(self, partner_id: int) -> None:
        """Note that a method that needs rights answered under the partner's credential."""
        await self._database.fetch(_SQL["mark_verified"], partner_id=partner_id)

    async def mark_failing(self, partner_id: int, reason: str) -> None:
        """Note that the vendor refuses the credential. `reason` is shown: it holds no secret."""
        await self._database.fetch(_SQL["mark_failing"], partner_id=partner_id, reason=reason)

    def _sealed(self, partner_id: int, credential: Credential) -> dict[str, object]:
        secret = credential.secret
        return {
            "partner_id": partner_id,
            "kind": credential.kind,
            "fingerprint": credential.fingerprint,
            "key_encrypted": self._seal(credential.key, partner_id, "key_encrypted"),
            "secret_encrypted": None
            if secret is None
            else self._seal(secret, partner_id, "secret_encrypted"),
        }

    def _seal(self, text: Secret, partner_id: int, column: str) -> bytes:
        return self._vault.seal(text, table=_TABLE, partner_id=partner_id, column=column)

    def _open(self, sealed: bytes, partner_id: int, column: str) -> Secret:
        return self._vault.open(sealed, table=_TABLE, partner_id=partner_id, column=column)


async def _remove(connection: Connection, partner: Partner) -> dict[str, int]:
    values = {"partner_id": partner.partner_id}
    await connection.execute(_SQL["lock_credential"], values)
    await connection.execute(_SQL["lock_scopes"], values)
    await connection.execute(_SQL["lock_partner"], values)
    counts = {}
    for table in TABLES:
        cursor = await connection.execute(_SQL[f"remove_{table}"], values)
        counts[table] = cursor.rowcount
    return counts


def check_name(name: str) -> str:
    """Return `name` without white space around it, or raise SettingsError if it cannot be one."""
    name = name.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise SettingsError(f"A partner's name has 1 to {LONGEST_NAME} printable signs; choose another one.")
    return name


def unknown_partner(name: str, known: list[str]) -> SettingsError:
    """Say that there is no such partner, and which ones there are."""
    if not known:
        return SettingsError(
            f"There is no partner {name.strip()}; none is stored yet. Add it with: "
            f"bibwire partner add {_quoted(name.strip())} --api-key KEY."
        )
    shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return SettingsError(f"There is no partner {name.strip()}. There are: {shown}.")


def _quoted(name: str) -> str:
    return f'"{name}"' if " " in name else name
