"""
The troubles, each a generator: what is before its `yield` starts it, what is after ends it.

A trouble that this machine does not permit raises `NotPermitted` with the reason.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import psutil
import psycopg

import rsusim
from tests.ordeal import crew
from tests.ordeal.ordeal import CALL_SECONDS, RUN, WORKER, Ordeal
from tests.ordeal.postgres import ROLE
from tests.ordeal.vendor import AMPLE, SCANT
from tests.ordeal.versions import newer
from tests.seasons.postgres import FAKETIME

Going = Generator[None, None, None]
LOCKED_TABLES: Final = ("scopes", "streams", "participants", "changes", "partners", "call_places", "events")
# What a DBA means well with.
TIME_OUTS: Final = (
    "statement_timeout = '20ms'",
    "lock_timeout = '5ms'",
    "idle_in_transaction_session_timeout = '10ms'",
    "idle_session_timeout = '500ms'",
    "default_transaction_isolation = 'serializable'",
    "default_transaction_read_only = on",
)
# A clock that is 10 minutes slow, and one that is 3 days fast.
CLOCKS: Final = {"slow": "-10m", "fast": "+3d"}
BEHIND_SECONDS: Final = 1.0
OPERATOR: Final = "operator"


class NotPermitted(Exception):
    """This machine does not let us."""


@dataclass(frozen=True)
class Trouble:
    """
    Attributes:
        seconds: How long it lasts, at least and at most.
        place: Troubles of the same place do not overlap.
    """

    name: str
    play: Callable[[Ordeal], Going]
    seconds: tuple[float, float]
    place: str


TROUBLES: Final[dict[str, Trouble]] = {}


def trouble(
    name: str, seconds: tuple[float, float], place: str
) -> Callable[[Callable[[Ordeal], Going]], Callable[[Ordeal], Going]]:
    def add(play: Callable[[Ordeal], Going]) -> Callable[[Ordeal], Going]:
        TROUBLES[name] = Trouble(name, play, seconds, place)
        return play

    return add


# Processes


def _kill(ordeal: Ordeal, *names: str) -> Going:
    ordeal.note_kill()
    for name in names:
        ordeal.crew.kill(name)
    ordeal.note_kill()
    yield


@trouble("run killed", (1, 6), "processes")
def kill_run(ordeal: Ordeal) -> Going:
    return _kill(ordeal, RUN)


@trouble("worker killed", (1, 6), "processes")
def kill_worker(ordeal: Ordeal) -> Going:
    return _kill(ordeal, WORKER)


@trouble("worker of run killed", (1, 6), "processes")
def kill_child(ordeal: Ordeal) -> Going:
    child = ordeal.crew.pids().get(f"{RUN}, its worker 1")
    if child is not None:
        ordeal.note_kill()
        with suppress(psutil.NoSuchProcess):
            child.kill()
        ordeal.note_kill()
    yield


@trouble("all killed", (1, 6), "processes")
def kill_all(ordeal: Ordeal) -> Going:
    return _kill(ordeal, RUN, WORKER)


@trouble("process frozen", (5, 40), "processes")
def freeze(ordeal: Ordeal) -> Going:
    process = ordeal.random.choice([process for _, process in sorted(ordeal.crew.pids().items())])
    process.suspend()
    yield
    with suppress(psutil.NoSuchProcess):
        process.resume()


@trouble("all frozen", (5, 40), "processes")
def freeze_all(ordeal: Ordeal) -> Going:
    """A laptop's lid is closed."""
    frozen = list(ordeal.crew.pids().values())
    ordeal.note_kill()
    for process in frozen:
        process.suspend()
    yield
    for process in frozen:
        with suppress(psutil.NoSuchProcess):
            process.resume()


@trouble("run started twice", (8, 20), "second run")
def run_twice(ordeal: Ordeal) -> Going:
    second = ordeal.crew.start("second-run", "run")
    yield
    if second.poll() is None:
        crew.assert_ends(second, "the second run", ordeal.crew.said("second-run"))
    else:
        # It may have found no database when it started.
        assert second.returncode == 1, f"the second run ended with {second.returncode}"


def _worker_clock(which: str) -> Callable[[Ordeal], Going]:
    def play(ordeal: Ordeal) -> Going:
        if not FAKETIME.exists():
            raise NotPermitted("libfaketime is not installed: apt-get install faketime")
        ordeal.crew.replace(
            WORKER, LD_PRELOAD=str(FAKETIME), FAKETIME=CLOCKS[which], FAKETIME_DONT_FAKE_MONOTONIC="1"
        )
        yield
        ordeal.crew.replace(WORKER)

    return play


for _which in CLOCKS:
    trouble(f"worker's clock {_which}", (15, 30), "processes")(_worker_clock(_which))


@trouble("newer version", (10, 30), "processes")
def upgrade(ordeal: Ordeal) -> Going:
    """
    A newer version is installed while `run` of the older one goes on, and its worker changes the tables.

    Both work side by side until `run` is started again. What is started meanwhile is the newer one's.
    """
    ordeal.versions += 1
    ordeal.crew.environment["PYTHONPATH"] = str(newer(ordeal.folder, ordeal.versions))
    ordeal.crew.replace(WORKER)
    yield
    ordeal.crew.replace(RUN)


# The database


@trouble("database crashed", (0, 10), "database")
def crash(ordeal: Ordeal) -> Going:
    ordeal.cluster.primary.kill()
    yield
    ordeal.cluster.primary.start()


@trouble("database restarted", (0, 1), "database")
def restart(ordeal: Ordeal) -> Going:
    ordeal.cluster.primary.restart()
    yield


@trouble("sessions ended", (0, 3), "database")
def end_sessions(ordeal: Ordeal) -> Going:
    _end_sessions(ordeal)
    yield
    _end_sessions(ordeal)


def _end_sessions(ordeal: Ordeal) -> None:
    ordeal.cluster.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %(role)s", role=ROLE
    )


@trouble("table locked", (20, 20), "database")
def lock_table(ordeal: Ordeal) -> Going:
    table = ordeal.random.choice(LOCKED_TABLES)
    with (
        ordeal.cluster.superuser() as connection,
        suppress(psycopg.OperationalError),
        connection.transaction(),
    ):
        connection.execute("SET LOCAL lock_timeout = '10s'")
        connection.execute(f"LOCK TABLE bibwire.{table} IN ACCESS EXCLUSIVE MODE".encode())
        yield
        return
    yield  # somebody else's lock was there first


@trouble("time-outs set", (8, 15), "database")
def time_outs(ordeal: Ordeal) -> Going:
    with ordeal.cluster.superuser() as connection:
        for setting in TIME_OUTS:
            connection.execute(f"ALTER ROLE {ROLE} SET {setting}".encode())
    _end_sessions(ordeal)  # who connects anew has them
    yield
    with ordeal.cluster.superuser() as connection:
        connection.execute(f"ALTER ROLE {ROLE} RESET ALL".encode())


@trouble("replica promoted", (0, 1), "database")
def promote(ordeal: Ordeal) -> Going:
    """The server is lost; its replica, a second behind, takes its place under the same address."""
    if not ordeal.cluster.has_replicas:
        raise NotPermitted("this PostgreSQL has no pg_basebackup")
    if ordeal.cluster.replica is None:
        ordeal.cluster.add_replica()
    lost_from = ordeal.now
    ordeal.cluster.hold_back_replica()
    ordeal.wait(BEHIND_SECONDS)
    ordeal.cluster.promote()
    lost_to = ordeal.now
    ordeal.watch.forgotten.append((lost_from, lost_to))
    ordeal.watch.excused_in_flight.append((lost_from, lost_to + CALL_SECONDS))
    ordeal.watch.feed_went_back()
    ordeal.relay.lead_to(ordeal.cluster.primary.socket)
    yield
    ordeal.cluster.add_replica()


@trouble("database's disk full", (5, 15), "database")
def fill_database(ordeal: Ordeal) -> Going:
    node = ordeal.cluster.primary
    if not node.disk.is_small:
        raise NotPermitted("no disk can be mounted")
    node.disk.fill()
    # The log of transactions needs room for its next file: then the server stops itself.
    with suppress(psycopg.OperationalError):
        ordeal.cluster.rows("SELECT pg_switch_wal()")
    yield
    node.disk.make_room()
    if not node.is_up:
        node.kill()
        node.start()


@trouble("home's disk full", (5, 20), "home")
def fill_home(ordeal: Ordeal) -> Going:
    """Also the log's."""
    if not ordeal.disk.is_small:
        raise NotPermitted("no disk can be mounted")
    ordeal.disk.fill()
    yield
    ordeal.disk.make_room()


# Networks


@trouble("database's network silent", (10, 25), "network")
def silence_database(ordeal: Ordeal) -> Going:
    ordeal.relay.bury()  # those of the last time
    ordeal.relay.cut()
    yield
    ordeal.relay.mend()


@trouble("packets dropped", (5, 25), "network")
def drop_packets(ordeal: Ordeal) -> Going:
    """All of the loopback of the network namespace this runs in: the vendor's and the database's."""
    if not ordeal.has_own_network:
        raise NotPermitted("no network namespace can be made, or `ip` and `tc` are missing")
    # A queue without a place: no kernel module is needed for it.
    subprocess.run(["tc", "qdisc", "replace", "dev", "lo", "root", "pfifo", "limit", "0"], check=True)
    yield
    subprocess.run(["tc", "qdisc", "del", "dev", "lo", "root"], check=True)


@trouble("vendor's network silent", (5, 15), "vendor")
def silence_vendor(ordeal: Ordeal) -> Going:
    ordeal.vendor.fall_silent()
    yield
    ordeal.vendor.speak()


@trouble("vendor refuses connections", (5, 15), "vendor")
def cut_vendor(ordeal: Ordeal) -> Going:
    ordeal.vendor.cut()
    yield
    ordeal.vendor.restore()


# The vendor


def _vendor_fault(kind: str, seconds: float | None = None) -> Callable[[Ordeal], Going]:
    def play(ordeal: Ordeal) -> Going:
        fault = ordeal.world.faults.add(rsusim.Fault(kind=kind, times=None, seconds=seconds))
        yield
        fault.times = 0

    return play


# A call that hangs ends before its place runs out: the vendor counts it for as long as it hangs.
for _kind, _seconds in (("http_503", None), ("reset", None), ("hang", 12.0), ("slow", 3.0)):
    trouble(f"vendor: {_kind}", (5, 12), "vendor")(_vendor_fault(_kind, _seconds))


# What operators do


@dataclass(frozen=True)
class Command:
    """
    Attributes:
        codes: With which it may end where nothing is wrong and nobody stops it.
    """

    arguments: tuple[str, ...]
    codes: tuple[int, ...] = (0,)
    stdin: str = ""


COMMANDS: Final = (
    *("sync", "sync without calls left", "full sync", "backfill", "reconcile", "verify", "lookup"),
    *("pause", "rotate"),
)


def commands(ordeal: Ordeal) -> dict[str, Command]:
    """Return the commands of operators by name."""
    account = ordeal.world.accounts[AMPLE]
    race = min(ordeal.hot_races)
    rotate = ("partner", "rotate", AMPLE, "--api-key", account.api_key, "--secret-stdin", "--yes")
    return {
        "sync": Command(("sync", "--partner", AMPLE)),
        "sync without calls left": Command(("sync", "--partner", SCANT, "--no-wait"), (0, 3)),
        "full sync": Command(("sync", "--partner", AMPLE, "--full")),
        "backfill": Command(("backfill", "--partner", AMPLE)),
        "reconcile": Command(("reconcile", "--partner", AMPLE)),
        "verify": Command(("verify", "--partner", AMPLE)),
        "lookup": Command(("lookup", "1", "--race", str(race), "--partner", AMPLE, "--live")),
        "pause": Command(("partner", "pause", AMPLE)),
        "rotate": Command(rotate, stdin=account.api_secret),
    }


# What a command may end with while something is wrong: failed, or partly done.
IN_TROUBLE: Final = (0, 1, 3)
# Of a command that is stopped by a signal; before it listens to any, it ends by the signal itself.
STOPPED: Final = {
    signal.SIGINT: (130, -signal.SIGINT),
    signal.SIGTERM: (143, -signal.SIGTERM),
    signal.SIGKILL: (-signal.SIGKILL,),
}
STOPPED_SECONDS: Final = 10.0
COMMAND_SECONDS: Final = 90.0


def _command(name: str) -> Callable[[Ordeal], Going]:
    """Play a command, which is stopped in its middle or not."""

    def play(ordeal: Ordeal) -> Going:
        command = commands(ordeal)[name]
        stop = ordeal.random.choice((None, None, *STOPPED))
        label = f"{name.replace(' ', '-')}-{stop.name if stop else 'whole'}"
        process = ordeal.crew.start(label, *command.arguments, stdin=command.stdin)
        stopped: list[bool] = []

        def stop_it() -> None:
            assert stop is not None
            if process.poll() is None:
                ordeal.note_kill()
                stopped.append(True)
                process.send_signal(stop)

        if stop is not None:
            ordeal.later(ordeal.random.uniform(0.3, 3.0), stop_it)
        yield
        if stop is None:
            ordeal.wait_until(lambda: process.poll() is not None, COMMAND_SECONDS, f"{label} ended")
        else:
            ordeal.wait_until(lambda: stopped or process.poll() is not None, COMMAND_SECONDS, label)
            ordeal.wait_until(lambda: process.poll() is not None, STOPPED_SECONDS, f"{label} ended")
        troubled = f"command {name}" in ordeal.met
        codes = (*command.codes, *(IN_TROUBLE if troubled else ()))
        if stop is not None and stopped:
            codes = (*codes, *STOPPED[stop])  # it may have been about to end before the signal came
        ordeal.told.codes[f"{label} {process.returncode}"] += 1
        assert process.returncode in codes, (
            f"{label} ended with {process.returncode}, not {codes}: {ordeal.crew.said(label)[-1500:]}"
        )
        if name == "pause":
            code = ordeal.crew.run("partner", "resume", command.arguments[-1])
            assert code in ((0, 1) if troubled else (0,)), ordeal.crew.said("partner")[-1500:]

    return play


for _name in COMMANDS:
    trouble(f"command {_name}", (3, 5), OPERATOR)(_command(_name))


@contextmanager
def played(name: str, ordeal: Ordeal) -> Generator[None, None, None]:
    """Play a trouble: it is over when the block is left without an error."""
    going = TROUBLES[name].play(ordeal)
    next(going)
    ordeal.active.add(name)
    if len(ordeal.active) > 1:
        ordeal.met |= ordeal.active
    yield
    try:
        next(going, None)
    finally:
        ordeal.active.discard(name)


def may_make_networks() -> bool:
    """Say whether a network namespace of our own can be made, with what drops packets in it."""
    probe = "ip link set lo up && tc qdisc replace dev lo root pfifo limit 0"
    try:
        return (
            subprocess.run(["unshare", "-n", "sh", "-c", probe], capture_output=True, check=False).returncode
            == 0
        )
    except FileNotFoundError:
        return False
