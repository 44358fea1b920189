"""The queue of work: the engine's own schema, then what we add to it."""

from alembic import op

from bibwire.store import jobs_schema
from bibwire.store.migrate import run_sql_file

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    jobs_schema.install(op.get_bind().connection.driver_connection)  # type: ignore[arg-type]
    run_sql_file("0003_jobs.sql")
