"""The hour's calls and the two in flight are limits for all processes together, however they end."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest

from tests import children

LIMIT = 150
ALLOWED = 147  # the limit less the margin of 2 %


@pytest.fixture
def database(database_url: str) -> Iterator[psycopg.Connection[tuple[int]]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def credential_id(database: psycopg.Connection[tuple[int]]) -> int:
    """A credential of LIMIT calls an hour."""
    row = database.execute(
        """
        WITH p AS (INSERT INTO bibwire.partners (name) VALUES ('Peak Timing') RETURNING partner_id)
        INSERT INTO bibwire.credentials (partner_id, kind, fingerprint, calls_per_hour, key_encrypted)
        SELECT partner_id, 'bearer', 'abcd', %s, '' FROM p
        RETURNING credential_id
        """,
        (LIMIT,),
    ).fetchone()
    assert row is not None
    return row[0]


def spend(database_url: str, credential_id: int, *, processes: int, calls: int = 10_000) -> list[int]:
    """Spend in several processes at once; return how many calls each made."""
    started = children.start_together(processes, "spend", database_url, credential_id, calls)
    return [int(child.communicate(timeout=120)[0]) for child in started]


def move_back(database: psycopg.Connection[tuple[int]], minutes: int) -> None:
    """Let the calls made so far have been made that much earlier."""
    database.execute(
        "UPDATE bibwire.call_minutes SET minute = minute - make_interval(mins => %s)", (minutes,)
    )


@pytest.mark.every_postgres
def test_four_processes_together_make_the_hours_calls_and_not_one_more(
    database_url: str, credential_id: int, database: psycopg.Connection[tuple[int]]
) -> None:
    made = spend(database_url, credential_id, processes=4)

    assert sum(made) == ALLOWED
    assert sum(share > 0 for share in made) > 1, "only one process got any: nothing was shared"
    assert database.execute("SELECT sum(calls) FROM bibwire.call_minutes").fetchone() == (ALLOWED,)


def test_a_call_counts_for_a_whole_hour_and_no_longer(
    database_url: str, credential_id: int, database: psycopg.Connection[tuple[int]]
) -> None:
    assert spend(database_url, credential_id, processes=1, calls=40) == [40]
    move_back(database, 59)
    assert spend(database_url, credential_id, processes=1) == [ALLOWED - 40]
    move_back(database, 3)

    assert spend(database_url, credential_id, processes=1) == [40]


def test_four_processes_together_have_two_calls_in_flight_and_not_three(database_url: str) -> None:
    started = children.start_together(4, "call", database_url, 15)
    held = [line.split() for child in started for line in child.communicate(timeout=120)[0].splitlines()]

    edges = sorted(
        [(float(begun), 1) for begun, _ in held] + [(float(ended), -1) for _, ended in held],
    )
    in_flight = highest = 0
    for _, step in edges:
        in_flight += step
        highest = max(highest, in_flight)
    assert len(held) == 4 * 3 * 15
    assert highest == 2


@pytest.mark.every_postgres
def test_a_killed_process_gives_its_places_back_at_once(database_url: str) -> None:
    holder = children.start("hold_places", database_url)
    assert children.said(holder).readline() == "held\n"
    [waiting] = children.start_together(1, "call", database_url, 1)
    time.sleep(0.5)
    assert waiting.poll() is None, "a third call was let through"

    holder.kill()
    holder.communicate()

    out, _ = waiting.communicate(timeout=10)
    assert len(out.splitlines()) == 3
