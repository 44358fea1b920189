"""`bibwire reconcile`, as people and programs use it."""

from __future__ import annotations

import rsusim
from tests.cli.conftest import Shell
from tests.cli.test_sync import first_race


def test_drift_is_told_mended_and_shown_by_status(
    shell: Shell, peak: rsusim.Account, world: rsusim.World
) -> None:
    race, event = first_race(world)
    shell.run("sync")
    gone = world.active(event)[0]
    world.vanish(gone)

    told = shell.run("reconcile", "--race", str(race))

    assert told.code == 0
    assert "1 extra" in told.out
    assert "1 repaired" in told.out
    [drift] = shell.run("status", "--json").json["drift"]
    assert (drift["rows"], drift["open"]) == (1, 0)
    assert "1 row in 1 race had differed" in shell.run("status").out
    again = shell.run("reconcile", "--race", str(race), "--json").json
    assert again["total"]["same"] == again["total"]["listed"]
    assert again["total"]["repaired"] == 0


def test_what_cannot_be_reconciled_is_said(shell: Shell, peak: rsusim.Account, world: rsusim.World) -> None:
    unknown = shell.run("reconcile", "--race", "4711")
    assert unknown.code == 2
    assert "4711" in unknown.told
    shell.run("sync")
    race, _ = first_race(world)
    world.faults.add(rsusim.Fault(path="participants", race_id=race, kind="error_7", times=None))
    failed = shell.run("reconcile", "--race", str(race))
    assert failed.code == 1
    assert str(race) in failed.told
