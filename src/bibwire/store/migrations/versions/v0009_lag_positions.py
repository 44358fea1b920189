"""Where the changes of an hour stand in the feed."""

from bibwire.store.migrate import run_sql_file

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    run_sql_file("0009_lag_positions.sql")
