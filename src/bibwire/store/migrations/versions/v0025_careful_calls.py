"""A long pause is believed for minutes, then tried by one careful call."""

from bibwire.store.migrate import run_sql_file

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    run_sql_file("0025_careful_calls.sql")
