"""The budget by urgency, what the vendor's throttling did to it, and statistics of calls."""

from bibwire.store.migrate import run_sql_file

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run_sql_file("0002_budget.sql")
