"""
A column in a subquery says whose it is.

A bare name in a subquery means a column of the query around it if the subquery's tables have none of
that name, and no error says so. That is how a partner's later races were never polled.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources

import pytest
from sqlglot import exp, parse

from bibwire.store.database import statements

STATEMENTS = {
    f"{file.name.removesuffix('.sql')}.{name}": text
    for file in sorted(resources.files("bibwire.store").joinpath("sql").iterdir(), key=lambda f: f.name)
    for name, text in statements(file.name.removesuffix(".sql")).items()
}
# They have no subquery, and their options are PostgreSQL's own.
UNREAD = ("COPY ", "SET ", "LISTEN ", "LOCK ")


def bare_columns(text: str) -> Iterator[str]:
    """Yield the columns of subqueries without a table; the bodies of CTEs see nothing around them."""
    for tree in parse(text, dialect="postgres"):
        for column in () if tree is None else tree.find_all(exp.Column):
            if not column.table and _is_in_subquery(column):
                yield column.sql()


def _is_in_subquery(column: exp.Column) -> bool:
    around = 0
    node = column.parent
    while node is not None and not isinstance(node, exp.CTE):
        around += isinstance(node, exp.Select | exp.Update | exp.Delete)
        node = node.parent
    return around > 1


@pytest.mark.parametrize("name", STATEMENTS)
def test_columns_of_subqueries_name_their_table(name: str) -> None:
    text = STATEMENTS[name]
    if text.split("\n", 1)[0].startswith(UNREAD) or _first_line(text).startswith(UNREAD):
        return

    assert list(bare_columns(text)) == []


def _first_line(text: str) -> str:
    return next(line for line in text.splitlines() if line and not line.startswith("--"))


def test_the_fault_that_this_is_for_is_seen() -> None:
    fault = """
        WITH wanted AS (
            SELECT race_id
            FROM unnest(%(race_ids)s::bigint[]) AS race_id
            WHERE NOT EXISTS (
                SELECT FROM bibwire.scopes AS s
                WHERE s.partner_id = %(partner_id)s AND s.race_id = race_id
            )
        )
        SELECT race_id FROM wanted
    """

    assert list(bare_columns(fault)) == ["race_id"]
