"""A day on which everything stands badly: what the program stored of it, against a vendor in moved time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import rsusim
from bibwire.engine.planner import Planner
from bibwire.store import schedule
from tests.cli.conftest import Shell
from tests.house import KEY, House

HOUR = 3600.0
# What the vendor says and nobody but an operator may read.
CANARY = "canary"


@dataclass(frozen=True)
class BadDay:
    """
    What stands badly.

    Attributes:
        partner: Whose mirror it is.
        race: Its mirror is 26 hours old, and its polls fail.
        changing: A bib of it was seen 8 s late within the last hour, and two lists were odd.
        doubted: Of how many of its events nobody was listed.
        waiting: Jobs in the queue.
        failed_lists: Race lists that the vendor refused in the last hour.
        verified_at: When a verification found three things wrong.
    """

    partner: str
    race: int
    changing: int
    doubted: int
    waiting: int
    failed_lists: int
    verified_at: datetime


def refusal(code: int) -> str:
    return json.dumps({"error": {"error_code": code, "error_msg": CANARY}})


def have_a_bad_day(shell: Shell, database_url: str) -> BadDay:
    """Mirror two partners of a vendor of its own, and let all go wrong; the shell's commands see it now."""
    shell.environment["BIBWIRE_SECRET_KEY"] = KEY
    world = rsusim.worlds.small(now=datetime.now(UTC).replace(microsecond=0) - timedelta(hours=26))
    race, changing, _ = world.races
    with (
        rsusim.Server(world) as vendor,
        House(world, vendor.base_url, database_url, retry_seconds=0) as house,
    ):
        peak, lakeside = (house.add_partner(account) for account in world.accounts.values())
        assert house.sync().errors == []
        world.advance(25.5 * HOUR)

        # A bib is seen late.
        events = [each.event_id for each in world.events.values() if each.race_id == changing]
        world.assign_bib(world.active(events[0])[0], 4711)
        world.advance(8)
        assert house.sync(race=changing).errors == []
        house.run(schedule.count_lag(house.runtime.db))

        # A row cannot be read; then nobody is listed or counted any more.
        rows = [json.dumps({"registration_id": CANARY})]
        world.faults.add(rsusim.Fault(path="participants", kind="hostile_rows", rows=rows))
        assert house.sync(race=changing).errors == []
        for number in [each for event in events for each in world.active(event)]:
            world.vanish(number)
        assert house.sync(race=changing, full=True).errors != []

        # A race's polls fail, and a planner queues those of all.
        world.faults.add(rsusim.Fault(path="participants", race_id=race, kind="body", body=refusal(4)))
        assert house.sync(race=race, partner=peak.name).errors != []
        runtime = house.runtime
        ticked = house.run(Planner(runtime.db, runtime.jobs, runtime.clock).tick())

        # The key is refused; then the vendor asks both partners, whose caller is one, for a pause.
        world.faults.add(rsusim.Fault(path="races", partner=peak.name, kind="body", body=refusal(6)))
        house.sync(partner=peak.name)
        for partner in (peak, lakeside):
            world.faults.add(
                rsusim.Fault(path="races", partner=partner.name, kind="http_429", retry_after=3600)
            )
        house.sync()
        failed_lists = [info for info in world.log.of("races") if info.fault and info.account == peak.name]

        found = [{"verdict": verdict} for verdict in ("fail", "fail", "error")]
        verified_at = world.now
        house.run(
            schedule.record_verification(runtime.db, peak.partner_id, found, asked=True, now=verified_at)
        )
        return BadDay(
            partner=peak.name,
            race=race,
            changing=changing,
            doubted=len(events),
            waiting=ticked.queued + ticked.discoveries,
            failed_lists=len(failed_lists),
            verified_at=verified_at,
        )
