"""Places for calls in flight that outlive a lost connection."""

from bibwire.store.migrate import run_sql_file

revision = "0020"
down_revision = "0017"


def upgrade() -> None:
    run_sql_file("0020_call_places.sql")
