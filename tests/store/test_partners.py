"""Partners: credentials are stored sealed, and one partner's removal leaves the others whole."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import psycopg
import pytest
from psycopg import sql

import rsusim
from bibwire.domain.errors import InvariantBroken, SettingsError
from bibwire.domain.merge import BibMove
from bibwire.domain.secrets import Credential, Secret
from bibwire.engine.planner import outlook
from bibwire.store import feed, leases, quarantine
from bibwire.store.partners import TABLES
from bibwire.store.session import open_session
from tests.house import House

pytestmark = pytest.mark.every_postgres

KEY = Credential("key", Secret("canary-api-key"), Secret("canary-api-secret"))
OTHER_KEY = Credential("key", Secret("canary-other-key"), Secret("canary-other-secret"))
TOKEN = Credential("bearer", Secret("canary-bearer-token"))


def counts(house: House, partner_id: int) -> dict[str, int]:
    """Rows of one partner in every table that has partners, read from the catalogue."""
    tables = house.rows(
        "SELECT table_name FROM information_schema.columns JOIN information_schema.tables "
        "USING (table_schema, table_name) "
        "WHERE table_schema = 'bibwire' AND column_name = 'partner_id' AND table_type = 'BASE TABLE'"
    )
    found = {}
    for table in (row["table_name"] for row in tables):
        query = f"SELECT count(*) FROM bibwire.{table} WHERE partner_id = %(id)s"
        found[table] = house.rows(query, id=partner_id)[0]["count"]
    return found


def test_a_credential_comes_back_as_it_was_given(house: House) -> None:
    partners = house.runtime.partners
    for name, credential in (("acme", KEY), ("other", TOKEN)):
        stored = house.run(partners.add(name, credential, calls_per_hour=5))
        assert house.run(partners.credential(stored)) == credential
        assert (stored.kind, stored.fingerprint) == (credential.kind, credential.fingerprint)


def test_no_secret_and_no_key_stands_in_the_database(house: House) -> None:
    house.run(house.runtime.partners.add("acme", KEY, calls_per_hour=5))
    house.run(house.runtime.partners.add("other", TOKEN, calls_per_hour=5))
    house.run(house.runtime.partners.rotate("acme", KEY))

    rows = house.rows("SELECT c.*, encode(key_encrypted, 'escape') AS shown FROM bibwire.credentials AS c")
    assert len(rows) == 2
    assert "canary" not in repr(rows)


def test_a_name_is_given_once_and_the_second_is_told_how_to_rotate(house: House) -> None:
    house.run(house.runtime.partners.add("acme", KEY, calls_per_hour=5))

    with pytest.raises(SettingsError, match="bibwire partner rotate acme"):
        house.run(house.runtime.partners.add(" acme ", TOKEN, calls_per_hour=5))

    [partner] = house.run(house.runtime.partners.list())
    assert house.run(house.runtime.partners.credential(partner)) == KEY


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\x1b[2J", "x" * 101])
def test_a_name_that_cannot_be_one_is_refused(house: House, name: str) -> None:
    with pytest.raises(SettingsError, match="1 to 100 printable characters"):
        house.run(house.runtime.partners.add(name, KEY, calls_per_hour=5))


def test_an_unknown_partner_is_told_with_those_there_are(house: House) -> None:
    with pytest.raises(SettingsError, match="bibwire partner add"):
        house.run(house.runtime.partners.get("acme"))
    house.run(house.runtime.partners.add("acme", KEY, calls_per_hour=5))
    with pytest.raises(SettingsError, match=r"There is no partner acmee\. There are: acme\."):
        house.run(house.runtime.partners.get("acmee"))


def test_rotating_replaces_the_key_and_forgets_what_was_known_of_the_old_one(house: House) -> None:
    partners = house.runtime.partners
    before = house.run(partners.add("acme", KEY, calls_per_hour=5, verified=True))
    house.run(partners.mark_failing(before, "refused"))

    after = house.run(partners.rotate("acme", TOKEN))

    assert house.run(partners.credential(after)) == TOKEN
    assert after.credential_id == before.credential_id, "the calls counted against it must still count"
    assert (after.verified_at, after.failing_since, after.failing_reason) == (None, None, None)
    assert after.calls_per_hour == 5
    assert house.run(partners.rotate("acme", KEY, calls_per_hour=9)).calls_per_hour == 9


def test_a_new_key_of_the_same_kind_asks_as_few_calls_and_another_kind_is_planned_for(
    house: House, world: rsusim.World
) -> None:
    account = world.add_partner("Peak Timing")
    race = world.add_race([account], "Harbor Lights", "America/Denver")
    for name in ("10K", "5K", "Mile"):
        world.register(world.add_event(race, name, world.now.replace(tzinfo=None) + timedelta(days=3)))
    house.add_partner(account)
    house.sync()
    calls = house.sync().calls

    def reason() -> str:
        [partner] = house.run(house.runtime.partners.list())
        [poll] = house.run(outlook(house.runtime.db, partner, now=world.now)).plan.polls
        return poll.reason

    same = Credential("key", Secret(account.api_key), Secret(account.api_secret))
    house.run(house.runtime.partners.rotate("Peak Timing", same))
    assert house.sync().calls == calls
    assert "calls a poll" not in reason()

    other = Credential("v2", Secret(account.v2_key), Secret(account.v2_secret))
    house.run(house.runtime.partners.rotate("Peak Timing", other))
    assert house.sync().calls > calls
    assert "3 calls a poll" in reason()
    house.sync(full=True)
    assert house.sync().calls == calls
    assert "calls a poll" not in reason()


def test_the_first_refusal_s_instant_stays_until_the_key_works_again(house: House) -> None:
    partners = house.runtime.partners
    added = house.run(partners.add("acme", KEY, calls_per_hour=5))

    house.run(partners.mark_failing(added, "first"))
    first = house.run(partners.get("acme"))
    house.run(partners.mark_failing(added, "second"))
    second = house.run(partners.get("acme"))
    house.run(partners.mark_verified(added))
    third = house.run(partners.get("acme"))

    assert first.failing_since is not None
    assert (second.failing_since, second.failing_reason) == (first.failing_since, "second")
    assert third.failing_since is None
    assert third.verified_at is not None


def test_what_the_vendor_says_of_a_key_is_not_held_against_the_one_that_replaced_it(house: House) -> None:
    partners = house.runtime.partners
    before = house.run(partners.add("acme", KEY, calls_per_hour=5))
    after = house.run(partners.rotate("acme", TOKEN))

    assert not house.run(partners.mark_failing(before, "refused"))
    assert house.run(partners.get("acme")).failing_since is None
    assert house.run(partners.mark_failing(after, "refused"))
    house.run(partners.mark_verified(before))
    assert house.run(partners.get("acme")).failing_reason == "refused"


def test_pausing_twice_keeps_the_first_instant_and_resuming_clears_it(house: House) -> None:
    house.run(house.runtime.partners.add("acme", KEY, calls_per_hour=5))

    first = house.run(house.runtime.partners.pause("acme"))

    assert first.paused_at is not None
    assert house.run(house.runtime.partners.pause("acme")).paused_at == first.paused_at
    assert house.run(house.runtime.partners.resume("acme")).paused_at is None


@pytest.mark.parametrize(
    "move",
    [
        "UPDATE bibwire.credentials AS a SET key_encrypted = b.key_encrypted "
        "FROM bibwire.credentials AS b WHERE b.partner_id <> a.partner_id",
        "UPDATE bibwire.credentials SET key_encrypted = secret_encrypted, secret_encrypted = key_encrypted",
    ],
    ids=["to the other partner's row", "to the other column"],
)
def test_a_ciphertext_moved_does_not_open(house: House, move: str) -> None:
    partners = house.runtime.partners
    acme = house.run(partners.add("acme", KEY, calls_per_hour=5))
    house.run(partners.add("other", OTHER_KEY, calls_per_hour=5))
    with psycopg.connect(house.runtime.conninfo) as connection:
        connection.execute(sql.SQL(move))

    with pytest.raises(InvariantBroken, match="altered, or moved there"):
        house.run(partners.credential(acme))


def test_removal_deletes_the_partner_everywhere_and_leaves_the_other_that_shares_a_race(
    house: House, world: rsusim.World
) -> None:
    peak, lake = world.add_partner("Peak"), world.add_partner("Lake")
    race = world.add_race([peak, lake], "Shared", "America/Chicago")
    event = world.add_event(race, "10K", world.now.replace(tzinfo=None))
    people = [world.register(event) for _ in range(3)]
    added = {account.name: house.add_partner(account) for account in (peak, lake)}
    house.sync()
    world.advance(60)
    world.assign_bib(people[0], 7)
    world.set_raw(people[1], '{"registration_id": "hostile"}')
    house.sync()
    before = counts(house, added["Lake"].partner_id)
    assert before["participants"] == 3
    assert before["changes"] >= 2
    assert before["streams"] == 2

    deleted = house.run(house.runtime.partners.remove("Peak"))

    assert set(counts(house, added["Peak"].partner_id).values()) == {0}
    assert counts(house, added["Lake"].partner_id) == before
    assert deleted["participants"] == 3
    calls = house.rows("SELECT DISTINCT credential_id FROM bibwire.call_minutes")
    assert [row["credential_id"] for row in calls] == [added["Lake"].credential_id]
    assert [partner.name for partner in house.run(house.runtime.partners.list())] == ["Lake"]
    assert house.sync().errors == []


def test_removal_knows_every_table_that_holds_a_partner_s_rows(house: House) -> None:
    assert set(counts(house, 0)) <= set(TABLES)


def test_a_removed_partner_s_name_can_be_given_again(house: House) -> None:
    first = house.run(house.runtime.partners.add("acme", KEY, calls_per_hour=5))
    house.run(house.runtime.partners.remove("acme"))

    second = house.run(house.runtime.partners.add("acme", TOKEN, calls_per_hour=5))

    assert second.partner_id != first.partner_id
    assert house.run(house.runtime.partners.credential(second)) == TOKEN


def test_removal_waits_for_the_page_being_stored_and_leaves_nothing_of_it(
    house: House, world: rsusim.World
) -> None:
    account = world.add_partner("Peak")
    race = world.add_race([account], "Alone", "America/Chicago")
    world.register(world.add_event(race, "10K", world.now.replace(tzinfo=None)))
    partner = house.add_partner(account)
    house.sync()
    db, now = house.runtime.db, house.clock.now()

    async def both() -> None:
        async with open_session(house.runtime.conninfo) as session:
            lease = await leases.acquire(db, session, partner.partner_id, race)
            assert lease is not None
            # As a page's transaction does: its scope first, its rows, the feed's head last.
            async with db.transaction() as connection:
                await leases.hold(connection, lease)
                removal = asyncio.create_task(house.runtime.partners.remove("Peak"))
                await asyncio.sleep(0.3)
                assert not removal.done()
                odd = quarantine.Entry("unreadable", b"{}", None)
                await quarantine.keep(connection, partner.partner_id, race, "participants", [odd], now=now)
                move = feed.line_of_move(race, BibMove(1, race, None, 7, None, now), seen_at=now)
                await feed.write(connection, partner.partner_id, [move])
            await removal

    house.run(both())

    assert set(counts(house, partner.partner_id).values()) == {0}


def spent(house: House) -> dict[str, int]:
    partners = house.run(house.runtime.reports.partners())
    return {partner.partner: partner.calls_last_hour for partner in partners}


def test_calls_of_a_key_count_on_when_its_partner_is_removed_and_added_again(house: House) -> None:
    partners = house.runtime.partners
    house.run(partners.add("acme", KEY, calls_per_hour=5, calls_made=4))
    house.run(partners.remove("acme"))
    stored = house.rows("SELECT r::text AS shown FROM bibwire.retired_calls AS r")
    assert len(stored) == 1
    assert "canary" not in repr(stored)

    house.run(partners.add("again", KEY, calls_per_hour=5))
    house.run(partners.add("other", OTHER_KEY, calls_per_hour=5))

    assert spent(house) == {"again": 4, "other": 0}


def test_calls_of_a_key_that_was_replaced_count_for_whoever_gets_it_and_once(house: House) -> None:
    partners = house.runtime.partners
    house.run(partners.add("acme", KEY, calls_per_hour=5, calls_made=3))

    house.run(partners.rotate("acme", OTHER_KEY, calls_made=1))
    house.run(partners.rotate("acme", KEY))
    assert spent(house) == {"acme": 4}
    house.run(partners.rotate("acme", OTHER_KEY))
    house.run(partners.add("later", KEY, calls_per_hour=5))

    assert spent(house)["later"] >= 3
