"""What a backfill adds is told by a kind of its own."""

from bibwire.store.migrate import run_sql_file

revision = "0024"
down_revision = "0022"


def upgrade() -> None:
    run_sql_file("0024_history_loaded.sql")
