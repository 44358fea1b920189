"""What is known of the vendor's facts: how long an event lasts, and as of when."""

from bibwire.store.migrate import run_sql_file

revision = "0007"
down_revision = "0005"


def upgrade() -> None:
    run_sql_file("0007_facts.sql")
