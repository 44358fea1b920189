"""Whose clock is wrong, and until when polls are put off."""

from bibwire.store.migrate import run_sql_file

revision = "0022"
down_revision = "0020"


def upgrade() -> None:
    run_sql_file("0022_clocks.sql")
