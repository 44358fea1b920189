"""What PostgreSQL, or what stands in its place, says when it does not let us in: told with what to do."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bibwire.store import embedded
from tests.cli.conftest import Shell

PASSWORD = "a-password-of-ours"
LOGIN = "correct user and password in BIBWIRE_DATABASE_URL"


@dataclass
class Guarded:
    """A server that asks `locked` for a password, lets `timer` in, and nobody else."""

    conninfo: str

    def as_user(self, **changed: str) -> str:
        known = conninfo_to_dict(self.conninfo)
        named = {name: str(known[name]) for name in ("host", "port")}
        return make_conninfo("", **named, **({"dbname": "postgres"} | changed))


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    home = Path(tempfile.mkdtemp(prefix="bibwire-guarded-", dir="/tmp"))
    home.chmod(0o755)
    try:
        with embedded.start(home) as server, psycopg.connect(server.conninfo, autocommit=True) as owner:
            for role in ("locked", "timer", "outsider"):
                owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'".encode())
            ways = {
                owner.info.user: "trust",
                "timer": "trust",
                "nobody_here": "trust",
                "locked": "scram-sha-256",
            }
            (home / "postgres" / "data" / "pg_hba.conf").write_text(
                "".join(f"local all {user} {way}\n" for user, way in ways.items())
            )
            owner.execute("SELECT pg_reload_conf()")
            yield Guarded(server.conninfo)
    finally:
        shutil.rmtree(home)


@pytest.mark.parametrize(
    ("changed", "said", "remedy"),
    [
        (
            {"user": "locked", "password": "a-wrong-one"},
            'password authentication failed for user "locked"',
            LOGIN,
        ),
        ({"user": "locked"}, "no password supplied", LOGIN),
        ({"user": "nobody_here"}, 'role "nobody_here" does not exist', LOGIN),
        (
            {"user": "timer", "dbname": "race mirror"},
            'database "race mirror" does not exist',
            "make it there with createdb 'race mirror', or correct the name in BIBWIRE_DATABASE_URL",
        ),
        (
            {"user": "outsider", "password": PASSWORD},
            "no pg_hba.conf entry",
            "whoever runs that server has to allow this host, user and database in its pg_hba.conf",
        ),
    ],
)
def test_a_server_that_does_not_let_us_in_is_told_with_what_to_do(
    bare: Shell, guarded: Guarded, changed: dict[str, str], said: str, remedy: str
) -> None:
    bare.secrets += [PASSWORD, "a-wrong-one"]

    ended = bare.run("status", DATABASE_URL=guarded.as_user(**changed))

    assert ended.code == 1
    assert said in ended.told
    assert ended.told.endswith(f": {remedy}.")
    assert remedy in bare.run("doctor", DATABASE_URL=guarded.as_user(**changed)).out


@pytest.fixture
def web_server() -> Iterator[int]:
    """The port of something that speaks HTTP, whatever it is asked."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        connection.recv(1000)
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.parametrize("mode", ["prefer", "disable"])
def test_what_answers_and_is_no_postgresql_is_said_to_be_none(
    bare: Shell, web_server: int, mode: str
) -> None:
    address = f"postgresql://timer:{PASSWORD}@127.0.0.1:{web_server}/mirror?sslmode={mode}"
    bare.secrets.append(PASSWORD)

    ended = bare.run("status", DATABASE_URL=address)

    assert ended.code == 1
    assert f"127.0.0.1, port {web_server}: " in ended.told
    assert ended.told.endswith(
        "what answers there is no PostgreSQL; correct host and port in BIBWIRE_DATABASE_URL."
    )
