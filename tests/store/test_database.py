"""A database that is gone is noticed, over a network too."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import psycopg
import pytest

from bibwire.store.database import with_time_outs


def test_a_connection_over_a_network_is_given_time_outs(database_url: str) -> None:
    with psycopg.connect(with_time_outs(database_url)) as connection:
        options = connection.info.get_parameters()

    assert (options["tcp_user_timeout"], options["keepalives_idle"]) == ("15000", "5")
    assert options["dbname"] == psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("postgresql://u:p%40ss@a,b:5433/db?keepalives_idle=3", {"keepalives_idle": "3", "password": "p@ss"}),
        ("host=/tmp/x user='a b'", {"user": "a b", "host": "/tmp/x"}),
    ],
)
def test_what_the_user_says_stays(given: str, kept: dict[str, str]) -> None:
    found = psycopg.conninfo.conninfo_to_dict(with_time_outs(given))

    assert {name: found[name] for name in kept} == kept
    assert found["tcp_user_timeout"] == "15000"


def test_what_cannot_be_read_is_left_to_whoever_connects_with_it() -> None:
    assert with_time_outs("nonsense") == "nonsense"


def test_no_connection_is_opened_without_them() -> None:
    # The embedded server is reached by a socket; the original's database is given them by itself.
    apart = {"watched.py", "embedded.py", "original.py"}
    store = Path(str(resources.files("bibwire.store")))
    opening = re.compile(
        r"psycopg\.connect\(|psycopg\.(Async)?Connection\.connect\(|[^.]AsyncConnectionPool\("
    )

    found = {file.name for file in store.rglob("*.py") if opening.search(file.read_text("utf-8"))}

    assert found <= apart
