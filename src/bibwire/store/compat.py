"""
What the views in the schema `bibwire_compat` cannot know by themselves, and what moving in compares.

The views show the mirror under the original's names, so that queries written for it go on: in the
zone it kept its times in, and with the numbers it gave its partners.
"""

from __future__ import annotations

import psycopg

from bibwire.domain.adoption import Mirrored
from bibwire.domain.errors import SettingsError, StatementRefused
from bibwire.store.database import Database, statements

_SQL = statements("compat")
# The largest number the table holds, above which those of our own partners begin.
MOST = 1_000_000


class Compat:
    """The views' settings in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def zone(self) -> str:
        """Return the zone the views show times in."""
        [[zone]] = await self._database.fetch(_SQL["zone"])
        return str(zone)

    async def set_zone(self, zone: str) -> bool:
        """
        Show times in that zone; return whether that is a change.

        Raises:
            SettingsError: PostgreSQL does not know it.
        """
        try:
            return bool(await self._database.fetch(_SQL["set_zone"], zone=zone))
        except StatementRefused as error:
            if error.sqlstate != psycopg.errors.InvalidParameterValue.sqlstate:
                raise
            raise SettingsError(
                f"PostgreSQL knows no zone {zone}; choose one of pg_timezone_names."
            ) from None

    async def set_provider(
        self,
        *,
        provider_id: int,
        name: str,
        provider_type: str | None,
        api_base_url: str | None,
        rate_limit_per_hour: int | None,
    ) -> bool:
        """Show RunSignup as the original did; return whether that is a change."""
        return bool(
            await self._database.fetch(
                _SQL["set_provider"],
                provider_id=provider_id,
                name=name,
                provider_type=provider_type,
                api_base_url=api_base_url,
                rate_limit_per_hour=rate_limit_per_hour,
            )
        )

    async def link(self, partner_id: int, *, timing_partner_id: int, credential_id: int | None) -> bool:
        """Give a partner the numbers it had in the original; False if they are another's or cannot be."""
        if 1 <= timing_partner_id <= MOST:
            await self._database.fetch(
                _SQL["link"],
                partner_id=partner_id,
                timing_partner_id=timing_partner_id,
                credential_id=credential_id,
            )
        return await self.number(partner_id) == timing_partner_id

    async def number(self, partner_id: int) -> int | None:
        """Return the number the partner had in the original, None if it has none."""
        rows = await self._database.fetch(_SQL["number"], partner_id=partner_id)
        return rows[0][0] if rows else None

    async def mirrored(self, partner_id: int) -> Mirrored:
        """Return for which events the mirror of a partner is complete, and who is active."""
        events = await self._database.fetch(_SQL["loaded_events"], partner_id=partner_id)
        if not events:
            return Mirrored(frozenset(), {})
        active = await self._database.fetch(_SQL["active_registrations"], partner_id=partner_id)
        return Mirrored(frozenset(event for (event,) in events), dict(active))
