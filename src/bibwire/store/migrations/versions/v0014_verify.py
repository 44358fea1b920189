"""When mirrors are verified, and what that found."""

from bibwire.store.migrate import run_sql_file

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    run_sql_file("0014_verify.sql")
