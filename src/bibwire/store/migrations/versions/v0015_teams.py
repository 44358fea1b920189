"""Teams, with dates of their own."""

from bibwire.store.migrate import run_sql_file

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    run_sql_file("0015_teams.sql")
