"""A long pause that RunSignup asked for is told everywhere, and an operator ends it."""

from __future__ import annotations

import rsusim
from tests.cli.conftest import Shell


def test_a_long_pause_is_told_and_ended(shell: Shell, peak: rsusim.Account, world: rsusim.World) -> None:
    world.faults.add(rsusim.Fault(path="participants", kind="http_429", retry_after=86_400, times=1))
    synced = shell.run("sync")
    assert synced.code in (1, 3)
    assert "partner unblock" in " ".join((synced.out + synced.err).split())

    command = 'bibwire partner unblock "Peak Timing"'
    for told in (shell.run("status"), shell.run("plan"), shell.run("doctor")):
        assert command in " ".join(told.out.split())
    [partner] = shell.run("status", "--json").json["partners"]
    assert partner["asked_until"] > partner["blocked_until"]
    [planned] = shell.run("plan", "--json").json["partners"]
    assert (planned["asked_until"], planned["blocked_until"]) == (
        partner["asked_until"],
        partner["blocked_until"],
    )
    log = shell.log_file.read_text()
    assert '"asked_seconds": 864' in log.replace('":8', '": 8')

    ended = shell.run("partner", "unblock", "peak timing")
    assert (ended.code, "calls are made again" in ended.out) == (0, True)
    again = shell.run("partner", "unblock", "Peak Timing")
    assert (again.code, "no pause" in again.out) == (0, True)
    assert shell.run("sync").code == 0
    [partner] = shell.run("status", "--json").json["partners"]
    assert (partner["asked_until"], partner["blocked_until"]) == (None, None)
    help_ = shell.run("partner", "unblock", "--help").out
    assert "15 minutes" in " ".join(help_.split())
    assert shell.run("partner", "unblock", "Nobody").code == 2
