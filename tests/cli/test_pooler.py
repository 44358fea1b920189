"""Behind a pooler: in session mode all works; in transaction mode, where no lock holds, nothing begins."""

from __future__ import annotations

import psycopg
import pytest

import rsusim
from tests.cli.conftest import Shell
from tests.pooler import needs_pgbouncer, pooled

pytestmark = [needs_pgbouncer, pytest.mark.every_postgres]


@pytest.mark.parametrize("connections", [20, 1])
def test_nothing_begins_where_a_transaction_borrows_its_connection(
    connections: int, shell: Shell, empty_database_url: str
) -> None:
    with pooled(empty_database_url, "transaction", connections=connections) as address:
        for command in (["init"], ["sync"], ["run"], ["worker"], ["backfill"]):
            ended = shell.run(*command, DATABASE_URL=address)
            assert ended.code == 1, command
            assert "pooler in transaction mode" in ended.told
            assert "BIBWIRE_DATABASE_URL" in ended.told

        ended = shell.run("doctor", DATABASE_URL=address)

        assert ended.code == 1
        [line] = [line for line in ended.out.splitlines() if line.startswith("FAIL database")]
        assert "pooler in transaction mode" in line
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT to_regnamespace('bibwire')").fetchone() == (None,)


def test_a_pool_in_session_mode_is_as_good_as_the_server(
    shell: Shell, empty_database_url: str, world: rsusim.World
) -> None:
    with pooled(empty_database_url, "session") as address:
        shell.environment["BIBWIRE_DATABASE_URL"] = address
        assert shell.run("init").code == 0
        assert shell.add(world.accounts["Peak Timing"]).code == 0

        assert shell.run("sync").code == 0

        assert "FAIL database" not in shell.run("doctor").out
        [partner] = shell.run("status", "--json").json["partners"]
        assert partner["participants"] > 0
