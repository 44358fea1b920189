"""
Writes the change feed, in the transaction that makes the changes.

It comes last in its transaction, because it holds the partner's feed until the commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from bibwire.domain.merge import BibMove, Kind, Merge
from bibwire.domain.records import Json
from bibwire.store.database import Connection, statements

encode_json = msgspec.json.Encoder(decimal_format="number").encode
_encode: Final = msgspec.json.Encoder().encode


class Line(NamedTuple):
    """A change as COPY reads it, but for the partner and its seq, which come last."""

    registration_id: int
    text: bytes


def line_of(merge: Merge, *, seen_at: datetime) -> Line:
    """Return the line of a merge."""
    number = merge.after.registration.registration_id
    return _line(
        merge.after.race_id,
        merge.after.registration.event_id,
        number,
        merge.kind,
        merge.fields,
        merge.modified_at,
        seen_at,
        merge.bib_from,
        merge.bib_to,
    )


def line_of_move(race_id: int, move: BibMove, *, seen_at: datetime) -> Line:
    """Return the line of a bib that moved alone."""
    number, event_id, bib_from, bib_to, _, modified = move
    return _line(race_id, event_id, number, move.kind, move.fields, modified, seen_at, bib_from, bib_to)


async def write(connection: Connection, partner_id: int, lines: Iterable[Line]) -> None:
    """Write lines, in the order of their registrations."""
    texts = [line.text for line in sorted(lines)]
    if not texts:
        return
    named = statements("feed")
    cursor = await connection.execute(named["take_seqs"], {"partner_id": partner_id, "number": len(texts)})
    head = await cursor.fetchone()
    assert head is not None
    first_seq = head[0] - len(texts) + 1
    async with connection.cursor().copy(named["copy_changes"]) as copy:
        await copy.write(
            b"".join([b"%b,%d,%d\n" % (text, partner_id, seq) for seq, text in enumerate(texts, first_seq)])
        )


async def write_loaded(
    connection: Connection,
    partner_id: int,
    race_id: int,
    counts: Mapping[str, Any],
    *,
    seen_at: datetime,
    history: bool = False,
) -> None:
    """
    Write that a race's first complete load ended here, once a race.

    Args:
        history: It is past events, named in `counts`, that came to a race loaded before.
    """
    kind = Kind.HISTORY_LOADED if history else Kind.LOADED
    line = _line(race_id, None, None, kind, dict(counts), None, seen_at, None, None)
    await write(connection, partner_id, [line])


def _line(
    race_id: int,
    event_id: int | None,
    registration_id: int | None,
    kind: Kind,
    fields: dict[str, Json],
    modified_at: datetime | None,
    seen_at: datetime,
    bib_from: int | None,
    bib_to: int | None,
) -> Line:
    told = encode_json(fields).decode()
    # A JSON array is a row of COPY's csv format: see copy_text.py. Within `told` all else is escaped.
    row = (race_id, event_id, registration_id, kind, told, modified_at, seen_at, bib_from, bib_to)
    return Line(registration_id or 0, _encode(row)[1:-1])
