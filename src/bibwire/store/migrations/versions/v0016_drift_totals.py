"""Drift found so far: a total that is not pruned."""

from bibwire.store.migrate import run_sql_file

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    run_sql_file("0016_drift_totals.sql")
