"""When each scope is polled next, and what was planned."""

from bibwire.store.migrate import run_sql_file

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    run_sql_file("0004_schedule.sql")
