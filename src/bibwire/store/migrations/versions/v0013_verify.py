"""When mirrors are verified, and what that found."""

from bibwire.store.migrate import run_sql_file

revision = "0013"
down_revision = "0010"


def upgrade() -> None:
    run_sql_file("0013_verify.sql")
