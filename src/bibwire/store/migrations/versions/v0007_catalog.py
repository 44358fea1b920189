"""An event lasts until the later of its start and end."""

from bibwire.store.migrate import run_sql_file

revision = "0007"
down_revision = "0005"


def upgrade() -> None:
    run_sql_file("0007_catalog.sql")
