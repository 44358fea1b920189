"""What a listing alone does not prove is kept until something else does."""

from bibwire.store.migrate import run_sql_file

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    run_sql_file("0010_doubts.sql")
