"""The relay hands on what a network would: also that a process behind a connection was killed."""

from __future__ import annotations

import socket
import struct
import tempfile
from pathlib import Path

from tests.relay import Relay
from tests.waiting import PATIENCE_SECONDS


def test_who_is_killed_with_answers_unread_is_gone_for_the_server() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, socket.socket(socket.AF_UNIX) as listening:
        path = Path(folder, "s")
        listening.bind(str(path))
        listening.listen()
        relay = Relay(path)
        relay.start()
        client = socket.create_connection(("127.0.0.1", relay.port))
        server, _ = listening.accept()
        with server:
            # What the system does with the connection of a process that is killed then: it is reset.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            server.settimeout(PATIENCE_SECONDS)
            assert server.recv(10) == b""
        relay.stop()
