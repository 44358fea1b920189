"""The shortage that was told, not the one foreseen last."""

from bibwire.store.migrate import run_sql_file

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    run_sql_file("0017_told_shortages.sql")
