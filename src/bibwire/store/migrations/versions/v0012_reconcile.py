"""Reconciliation: what deltas had missed, by event."""

from bibwire.store.migrate import run_sql_file

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    run_sql_file("0012_reconcile.sql")
