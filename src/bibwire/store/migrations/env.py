"""What Alembic runs: it finds its connection where `migrate.upgrade` put it."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table="schema_version",
    version_table_schema="bibwire",
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
