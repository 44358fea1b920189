"""When an event makes its race hot, and lists of what is to come."""

from bibwire.store.migrate import run_sql_file

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    run_sql_file("0028_race_days.sql")
