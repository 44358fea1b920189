"""
Newer versions of the program, as the next releases would be: the code of today, and a migration more.

A migration brings what migrations brought so far: columns with and without a default, a table, an index.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from bibwire.store.migrate import HEAD

SOURCE: Final = Path(__file__).parent.parent.parent / "src"
# Tables to which releases have added columns again and again.
GREW: Final = ("participants", "races", "events", "scopes", "streams", "plans", "sync_history")


def newer(folder: Path, number: int) -> Path:
    """
    Make the version that comes `number` releases after this one.

    Returns:
        The folder to have in PYTHONPATH.
    """
    made = folder / f"version-{number}"
    shutil.copytree(SOURCE, made, ignore=shutil.ignore_patterns("__pycache__"))
    store = made / "bibwire" / "store"
    for step in range(1, number + 1):
        revision, before = f"{int(HEAD) + step:04}", f"{int(HEAD) + step - 1:04}"
        (store / "migrations" / f"{revision}_newer.sql").write_text(_migration(revision))
        (store / "migrations" / "versions" / f"v{revision}_newer.py").write_text(
            "from bibwire.store.migrate import run_sql_file\n\n"
            f'revision = "{revision}"\ndown_revision = "{before}"\n\n\n'
            f'def upgrade() -> None:\n    run_sql_file("{revision}_newer.sql")\n'
        )
    program = store / "migrate.py"
    text = program.read_text()
    assert f'HEAD = "{HEAD}"' in text
    program.write_text(text.replace(f'HEAD = "{HEAD}"', f'HEAD = "{int(HEAD) + number:04}"'))
    return made


def _migration(revision: str) -> str:
    """Return what a release changes in the schema."""
    statements = [
        f"ALTER TABLE bibwire.{table} ADD COLUMN in_{revision} text,"
        f" ADD COLUMN known_in_{revision} boolean NOT NULL DEFAULT true;"
        for table in GREW
    ]
    statements += [
        f"CREATE TABLE bibwire.of_{revision} (partner_id bigint PRIMARY KEY"
        " REFERENCES bibwire.partners ON DELETE CASCADE);",
        f"CREATE INDEX participants_in_{revision} ON bibwire.participants (partner_id, in_{revision});",
    ]
    return "\n".join(statements) + "\n"
