"""What a changed row costs when everybody gets a bib at once."""

from bibwire.store.migrate import run_sql_file

revision = "0027"
down_revision = "0025"


def upgrade() -> None:
    run_sql_file("0027_bursts.sql")
