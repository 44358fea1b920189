"""
Partners and their credentials: added, listed, replaced, paused, removed.

A credential is sealed before it reaches the database and opened after it left it; no
statement, row or error holds it in the clear. Names are unique and compared as written; whoever
asks for one may write it in other letters, capital or small, where that is clear. A key belongs to
one partner: two with the same one would each have a budget, and the vendor counts one.
"""

from __future__ import annotations

import builtins
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from bibwire.domain.errors import Collided, CredentialSealed, InvariantBroken, SettingsError
from bibwire.domain.key_refusals import given_key
from bibwire.domain.pasted import oddity
from bibwire.domain.secrets import Credential, Secret
from bibwire.store.database import Connection, Database, statements
from bibwire.store.vault import Vault

Kind = Literal["key", "v2", "bearer"]

LONGEST_NAME = 100

# In the order of removal: children first.
TABLES = (
    "detection_lag",
    "plans",
    "doubts",
    "reconciliations",
    "drift_totals",
    "backfills",
    "team_listings",
    "teams",
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
    "call_stats",
    "credentials",
    "partners",
)

_SQL = statements("partners")
_TABLE = "credentials"
# "bibk" in ASCII: the advisory lock under which keys are compared and stored.
_KEYS_LOCK = 0x6269626B


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

    def __init__(
        self, database: Database, vault: Vault, *, is_overridden: Callable[[Partner], bool] = lambda _: False
    ) -> None:
        """`is_overridden` says whether the environment names a key in place of a partner's stored one."""
        self._database = database
        self._vault = vault
        self._is_overridden = is_overridden

    async def add(
        self,
        name: str,
        credential: Credential,
        *,
        calls_per_hour: int,
        verified: bool = False,
        calls_made: int = 0,
    ) -> Partner:
        """
        Store a new partner with its credential.

        Args:
            name: 1 to 100 printable characters; white space around it is cut off.
            calls_per_hour: Calls the credential may make in any rolling hour.
            verified: Whether the vendor has just accepted the credential.
            calls_made: Calls just made under it, which count.

        Raises:
            SettingsError: The name is taken or cannot be one, or another partner has the key.
        """
        name = check_name(name)
        async with self._database.transaction() as connection:
            cursor = await connection.execute(_SQL["add_partner"], {"name": name})
            row = await cursor.fetchone()
            if row is None:
                raise _name_taken(name)
            await self._refuse_key_of_another(connection, credential, row[0])
            await connection.execute(
                _SQL["add_credential"],
                self._sealed(row[0], credential) | {"calls_per_hour": calls_per_hour, "verified": verified},
            )
            await self._restore_calls(connection, row[0], credential)
            await _count_calls(connection, row[0], calls_made)
            await connection.execute(_SQL["add_plan"], {"partner_id": row[0]})
        return await self.get(name)

    async def check_new(self, name: str, credential: Credential) -> None:
        """
        Check that a partner of that name and with that key can be added.

        Raises:
            SettingsError: The name is taken, or another partner has the key.
        """
        await self.check_name_is_free(name)
        await self.check_key(credential)

    async def check_name_is_free(self, name: str) -> None:
        """
        Check that no partner has this name.

        Raises:
            SettingsError: One has.
        """
        if await self._list(name=name):
            raise _name_taken(name)

    async def check_key(self, credential: Credential, *, of: Partner | None = None) -> None:
        """
        Check that no partner, but for `of`, has this key.

        Raises:
            SettingsError: One has; it is named. Or there is no key to store it with.
        """
        self.check_key_at_hand()
        async with self._database.transaction() as connection:
            await self._refuse_key_of_another(connection, credential, 0 if of is None else of.partner_id)

    async def calls_of_key(self, credential: Credential) -> int:
        """Return the calls of the last hour under a key that no partner has, as far as they are known."""
        values = {"key_digest": self._vault.digest(credential.key)}
        [[calls]] = await self._database.fetch(_SQL["calls_of_key"], **values)
        return int(calls)

    async def keep_calls(self, credential: Credential, calls: int) -> None:
        """Keep calls made under a key that is not stored, for when it is."""
        if calls:
            values = {"key_digest": self._vault.digest(credential.key), "calls": calls}
            await self._database.fetch(_SQL["keep_calls"], **values)

    async def list(self) -> list[Partner]:
        """Return every partner, by name."""
        return await self._list()

    async def get(self, name: str) -> Partner:
        """
        Return one partner.

        Raises:
            SettingsError: There is none of that name.
        """
        found = await self._list(name=name.strip())
        if found:
            return found[0]
        everyone = await self.list()
        alike = [partner for partner in everyone if partner.name.casefold() == name.strip().casefold()]
        if len(alike) == 1:
            return alike[0]
        raise unknown_partner(name, [partner.name for partner in everyone])

    async def find(self, partner_id: int) -> Partner | None:
        """Return the partner of that number, if there is one."""
        found = await self._list(partner_id=partner_id)
        return found[0] if found else None

    async def _list(
        self, *, name: str | None = None, partner_id: int | None = None
    ) -> builtins.list[Partner]:
        rows = await self._database.fetch(_SQL["list_partners"], name=name, partner_id=partner_id)
        return [Partner(*row) for row in rows]

    async def credential(self, partner: Partner) -> Credential:
        """
        Return the partner's credential, opened.

        Raises:
            SettingsError: There is no key, or the partner was removed meanwhile.
            CredentialSealed: The key in use does not fit.
            InvariantBroken: What is stored was altered or moved.
        """
        rows = await self._database.fetch(_SQL["read_credential"], partner_id=partner.partner_id)
        if not rows:
            raise unknown_partner(partner.name, [])
        kind, key, secret = rows[0]
        try:
            return Credential(
                kind,
                self._open(key, partner.partner_id, "key_encrypted"),
                None if secret is None else self._open(secret, partner.partner_id, "secret_encrypted"),
            )
        except CredentialSealed:
            raise CredentialSealed(
                f"The stored key of {partner.name} was encrypted with another key than the one in use: set "
                "BIBWIRE_SECRET_KEY or BIBWIRE_SECRET_KEY_FILE to that one, or store it again with: "
                f"{partner_command('rotate', partner.name, options='--api-key KEY')}."
            ) from None

    def check_key_at_hand(self) -> None:
        """
        Find out that there is no key to open credentials with.

        Raises:
            SettingsError: There is none, and why.
        """
        self._vault.digest(Secret(""))

    async def rotate(
        self,
        name: str,
        credential: Credential,
        *,
        calls_per_hour: int | None = None,
        verified: bool = False,
        calls_made: int = 0,
    ) -> Partner:
        """
        Replace the partner's credential; None keeps the number of calls it may make.

        Args:
            calls_made: Calls just made under the new one, which count.

        Raises:
            SettingsError: There is no such partner, or another one has the key.
        """
        partner = await self.get(name)
        async with self._database.transaction() as connection:
            await self._refuse_key_of_another(connection, credential, partner.partner_id)
            await self._retire_calls(connection, partner.partner_id, but=credential)
            await connection.execute(
                _SQL["rotate_credential"],
                self._sealed(partner.partner_id, credential)
                | {"calls_per_hour": calls_per_hour, "verified": verified},
            )
            await self._restore_calls(connection, partner.partner_id, credential)
            await _count_calls(connection, partner.partner_id, calls_made)
            # In the planner's order: the plan, then the scopes.
            await connection.execute(_SQL["plan_again"], {"partner_id": partner.partner_id})
            for name in ("forgive", "ask_lists_again"):
                await connection.execute(_SQL[name], {"partner_id": partner.partner_id})
        return await self.get(partner.name)

    async def limit(self, name: str, calls_per_hour: int) -> Partner:
        """Change how many calls the partner's credential may make in any rolling hour."""
        partner = await self.get(name)
        await self._database.fetch(
            _SQL["limit"], partner_id=partner.partner_id, calls_per_hour=calls_per_hour
        )
        await self._plan_again(partner)
        return await self.get(partner.name)

    async def pause(self, name: str) -> Partner:
        """Ask the vendor nothing more for the partner, until `resume`."""
        partner = await self.get(name)
        values = {"partner_id": partner.partner_id}
        async with self._database.transaction() as connection:
            # In the planner's order: the plan, then the scopes.
            for step in ("pause", "plan_again", "unschedule"):
                await connection.execute(_SQL[step], values)
        return await self.get(partner.name)

    async def resume(self, name: str) -> Partner:
        partner = await self.get(name)
        await self._database.fetch(_SQL["resume"], partner_id=partner.partner_id)
        await self._plan_again(partner)
        return await self.get(partner.name)

    async def take_up(self, partner: Partner) -> None:
        """Plan the partner at once; what was put off is due as if it had not been."""
        async with self._database.transaction() as connection:
            # In the planner's order: the plan, then the scopes.
            for step in ("plan_again", "forgive"):
                await connection.execute(_SQL[step], {"partner_id": partner.partner_id})

    async def remove(self, name: str) -> dict[str, int]:
        """Delete the partner and every row of it, at once. Return the rows deleted by table."""
        partner = await self.get(name)
        for _ in range(3):
            try:
                async with self._database.transaction() as connection:
                    return await self._remove(connection, partner)
            except Collided:
                continue  # a page of this partner was being stored
        raise Collided(
            f"Partner {partner.name} is being synced and could not be removed: stop its sync, "
            "or pause it first, and try again."
        )

    async def mark_verified(self, partner: Partner) -> None:
        """Note that a method that needs rights answered under the credential of `partner`, as read."""
        await self._database.fetch(
            _SQL["mark_verified"],
            partner_id=partner.partner_id,
            rotated_at=partner.rotated_at,
            is_stored=not self._is_overridden(partner),
        )

    async def mark_failing(self, partner: Partner, reason: str, *, until: datetime | None = None) -> bool:
        """
        Note that the vendor refuses the credential of `partner`, as read.

        Args:
            reason: Shown: it holds no secret.
            until: Poll no scope of the partner before; None leaves the schedule as it is.

        Returns:
            False if the credential was replaced since: then nothing is known against the new one.
        """
        rows = await self._database.fetch(
            _SQL["mark_failing"],
            partner_id=partner.partner_id,
            rotated_at=partner.rotated_at,
            reason=reason,
            of_another_key=partner.failing_reason is not None
            and given_key(partner.failing_reason) != given_key(reason),
            until=until,
        )
        return bool(rows)

    async def _plan_again(self, partner: Partner) -> None:
        await self._database.fetch(_SQL["plan_again"], partner_id=partner.partner_id)

    async def _refuse_key_of_another(
        self, connection: Connection, credential: Credential, partner_id: int
    ) -> None:
        """Hold, to the end of the transaction, that no partner but this one has the key."""
        await connection.execute(_SQL["lock_keys"], {"lock_class": _KEYS_LOCK})
        cursor = await connection.execute(_SQL["keys_of_others"], {"partner_id": partner_id})
        for other, name, sealed in await cursor.fetchall():
            # What does not open is of no use to anybody; `doctor` tells of it.
            try:
                taken = self._open(sealed, other, "key_encrypted") == credential.key
            except (SettingsError, CredentialSealed, InvariantBroken):
                continue
            if taken:
                raise SettingsError(
                    f"The partner {name} has this key already, and RunSignup counts the calls of a key "
                    "once: give each partner a key of its own."
                )

    async def _remove(self, connection: Connection, partner: Partner) -> dict[str, int]:
        values = {"partner_id": partner.partner_id}
        await connection.execute(_SQL["lock_credential"], values)
        await connection.execute(_SQL["lock_scopes"], values)
        await connection.execute(_SQL["lock_partner"], values)
        await self._retire_calls(connection, partner.partner_id)
        counts = {}
        for table in TABLES:
            cursor = await connection.execute(_SQL[f"remove_{table}"], values)
            counts[table] = cursor.rowcount
        return counts

    async def _retire_calls(
        self, connection: Connection, partner_id: int, *, but: Credential | None = None
    ) -> None:
        """Keep the calls of the partner's key, unless it is that of `but`, for when the key comes back."""
        cursor = await connection.execute(_SQL["read_credential"], {"partner_id": partner_id})
        row = await cursor.fetchone()
        try:
            key = None if row is None else self._open(row[1], partner_id, "key_encrypted")
        except (SettingsError, CredentialSealed, InvariantBroken):
            key = None  # it cannot be known again
        await connection.execute(_SQL["prune_retired_calls"])
        if key is not None and (but is None or key != but.key):
            values = {"partner_id": partner_id, "key_digest": self._vault.digest(key)}
            await connection.execute(_SQL["retire_calls"], values)

    async def _restore_calls(self, connection: Connection, partner_id: int, credential: Credential) -> None:
        values = {"partner_id": partner_id, "key_digest": self._vault.digest(credential.key)}
        await connection.execute(_SQL["restore_calls"], values)

    def _sealed(self, partner_id: int, credential: Credential) -> dict[str, object]:
        for each in credential.secrets:
            if odd := oddity(each.reveal()):
                raise SettingsError(f"The key or its secret holds {odd}: nothing was stored.")
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


async def number_of_credentials(database: Database) -> int:
    """Return how many partners have a stored credential."""
    [[number]] = await database.fetch(_SQL["number_of_credentials"])
    return int(number)


async def _count_calls(connection: Connection, partner_id: int, calls: int) -> None:
    if calls:
        await connection.execute(_SQL["count_calls"], {"partner_id": partner_id, "calls": calls})


def check_name(name: str) -> str:
    """Return `name` without white space around it, or raise SettingsError if it cannot be one."""
    name = name.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise SettingsError(
            f"A partner's name has 1 to {LONGEST_NAME} printable characters; choose another one."
        )
    return name


def _name_taken(name: str) -> SettingsError:
    return SettingsError(
        f"There is a partner {name} already. To replace its key: "
        f"{partner_command('rotate', name, options='--api-key KEY')}."
    )


def unknown_partner(name: str, known: list[str]) -> SettingsError:
    """Say that there is no such partner, and which ones there are."""
    if not known:
        return SettingsError(
            f"There is no partner {name.strip()}; none is stored yet. Add it with: "
            f"{partner_command('add', name.strip(), options='--api-key KEY')}."
        )
    shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return SettingsError(f"There is no partner {name.strip()}. There are: {shown}.")


def quoted(name: str) -> str:
    """Return a name as it is typed on a command line, as the value of an option for instance."""
    if name and all(each.isalnum() or each in "-_.,:/@+=%" for each in name):
        return name
    # Double quotes where they do, for they also work on Windows.
    return shlex.quote(name) if any(each in name for each in '"$`\\!') else f'"{name}"'


def partner_command(verb: str, name: str, *, value: str = "", options: str = "") -> str:
    """
    Return `bibwire partner VERB NAME`, to be pasted.

    Args:
        value: What follows the name.
        options: With their values. A name that starts with a dash would be taken for one: it comes last.
    """
    named = (quoted(name), value)
    said = (options, "--", *named) if name.startswith("-") else (*named, options)
    return " ".join(each for each in ("bibwire partner", verb, *said) if each)
