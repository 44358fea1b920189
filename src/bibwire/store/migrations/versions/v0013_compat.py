"""Views with the names and columns of the original, so that its queries and dashboards go on."""

from bibwire.store.migrate import run_sql_file

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    run_sql_file("0013_compat.sql")
