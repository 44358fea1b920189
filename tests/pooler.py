"""A real connection pooler in front of a real PostgreSQL: PgBouncer, where it is installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import psycopg
import pytest

from tests.waiting import wait_until

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
needs_pgbouncer = pytest.mark.skipif(PGBOUNCER is None, reason="PgBouncer is not installed")


@contextmanager
def pooled(conninfo: str, mode: Literal["session", "transaction"], *, connections: int = 20) -> Iterator[str]:
    """
    Put a pooler before a database reached through a socket's folder; yield how to reach it.

    Args:
        connections: Of the server's, at most.
    """
    assert PGBOUNCER is not None
    to = psycopg.conninfo.conninfo_to_dict(conninfo)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="bibwire-pooler-", dir="/tmp"))
    # It refuses to be root, and whom the server belongs to may enter the socket's folder.
    owner = Path(str(to["host"])).stat()
    user = owner.st_uid if os.geteuid() == 0 else None
    group = owner.st_gid if os.geteuid() == 0 else None
    (folder / "pgbouncer.ini").write_text(
        "[databases]\n"
        f"* = host={to['host']} port={to.get('port', 5432)} user={to['user']}\n"
        "[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = {mode}\ndefault_pool_size = {connections}\n"
    )
    folder.chmod(0o755)
    process = subprocess.Popen(
        [PGBOUNCER, "-q", folder / "pgbouncer.ini"], user=user, group=group, stderr=subprocess.DEVNULL
    )
    try:
        address = f"host=127.0.0.1 port={port} user={to['user']} dbname={to['dbname']}"

        def answers() -> bool:
            assert process.poll() is None, "it did not start"
            with suppress(psycopg.OperationalError), psycopg.connect(address):
                return True
            return False

        wait_until(answers)
        yield address
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)
