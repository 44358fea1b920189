"""Backfill: what is loaded of events that are over, page by page."""

from bibwire.store.migrate import run_sql_file

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    run_sql_file("0011_backfill.sql")
