"""
A set-up does what the program does: no test writes rows that the program should write.

Rows of `scopes` that tests wrote hid for a whole release that the planner wrote none. So a test that
writes to a table says here which one, and why the program cannot.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent

# By file: the tables, and why the program does not write these rows.
ALLOWED = {
    "children.py": ("page", "a temporary table, in a page that is sent and never ends"),
    "cli/test_adopt.py": (
        "partners providers timing_partners partner_provider_credentials runsignup_participants",
        "the system that is adopted is another one; no command renames a partner",
    ),
    "cli/test_connections.py": ("bibs", "a user's own table"),
    "cli/test_partner.py": (
        "procrastinate_workers procrastinate_jobs",
        "a worker that lives and works on nothing, and one that took its jobs",
    ),
    "cli/test_status.py": (
        "procrastinate_workers procrastinate_jobs chores",
        "the queue dates its chores by the database's clock; 1,234 jobs are not worked on in a test",
    ),
    "cli/test_verify.py": ("participants", "altered, so that a verification sees it"),
    "e2e/fences.py": ("fences", "a table of the tests' own"),
    "e2e/test_altered_rows.py": (
        "participants races events teams",
        "altered, so that a reconciliation repairs it",
    ),
    "e2e/test_kill.py": (
        "scopes",
        "leases run out, and are taken over, by the database's clock, which nobody moves",
    ),
    "e2e/test_one_failure_stops_nothing_else.py": ("credentials", "a sealed key that was damaged"),
    "e2e/test_random_histories.py": ("*", "the database is emptied between two histories"),
    "e2e/test_reconcile.py": ("participants", "altered, so that a reconciliation finds it"),
    "e2e/test_removed_people.py": ("participants", "altered, so that a verification sees it"),
    "e2e/test_secrets.py": ("credentials", "what a dump of the database says, not a statement"),
    "e2e/test_teams.py": (
        "teams team_listings",
        "a mirror filled by a version that had no such tables",
    ),
    "e2e/test_verify.py": (
        "participants changes call_minutes",
        "altered, so that a verification sees it; a count that a bug lost",
    ),
    "seasons/season.py": ("procrastinate_workers", "the sign of a worker whose time is moved"),
    "store/jobs_child.py": ("ledger", "a table of the tests' own"),
    "store/test_fetch.py": ("partners", "any statement, to see it rolled back"),
    "store/test_jobs.py": (
        "* gates before ledger procrastinate_jobs procrastinate_workers procrastinate_events"
        " engine_migrations",
        "tables of the tests' own; workers that died, work that failed long ago, and other versions",
    ),
    "store/test_leases.py": ("scopes", "leases run out by the database's clock, which nobody moves"),
    "store/test_partners.py": ("credentials", "sealed keys that somebody moved"),
    "store/test_permits.py": (
        "call_minutes",
        "another version's counting; and a crowd that would take minutes of calls",
    ),
    "store/test_places.py": ("call_places", "a server that crashed is put back for the next test"),
    "store/test_refusals.py": ("partners races", "statements that PostgreSQL refuses"),
    "store/test_schedule.py": ("procrastinate_jobs", "jobs that the queue lost"),
    "store/test_schema.py": ("schema_version", "a database of another version"),
    "store/test_session_settings.py": ("hidden", "a table of the tests' own"),
}

WRITE = re.compile(
    r"""
    \b(?: INSERT\s+INTO | DELETE\s+FROM | MERGE\s+INTO | TRUNCATE(?:\s+TABLE)?
        | UPDATE (?= \s+(?:ONLY\s+)?\S+\s+(?:AS\s+\w+\s+)?SET\b )
        | COPY (?= \s+[\w.*]+\s*(?:\([^()]*\)\s*)?FROM\b )
    )
    \s+(?:ONLY\s+)?([\w.*]+)
    """,
    re.IGNORECASE | re.VERBOSE,
)


def texts(tree: ast.AST) -> Iterator[str]:
    """Yield the texts of a module; what an f-string puts in stands as a star."""
    nodes = list(ast.walk(tree))
    parts = {part for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        match node:
            case ast.JoinedStr(values=values):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in values)
            case ast.Constant(value=str(text)) if node not in parts:
                yield text
            case ast.Constant(value=bytes(data)):
                yield data.decode("latin-1")


def tables_written(source: str) -> set[str]:
    """Return the tables that SQL in a module's texts writes to, without their schemas."""
    return {
        name.lower().rpartition(".")[2] for text in texts(ast.parse(source)) for name in WRITE.findall(text)
    }


def test_no_test_writes_rows_that_the_program_should_write() -> None:
    unexplained = {}
    unneeded = {}
    for path in sorted(TESTS.rglob("*.py")):
        name = path.relative_to(TESTS).as_posix()
        allowed = set(ALLOWED.get(name, ("", ""))[0].split())
        written = set() if path == Path(__file__) else tables_written(path.read_text("utf-8"))
        if written - allowed:
            unexplained[name] = written - allowed
        if allowed - written:
            unneeded[name] = allowed - written

    assert unexplained == {}, "Set up through the program; if it cannot write such rows, say why in ALLOWED."
    assert unneeded == {}
    assert {*ALLOWED} <= {path.relative_to(TESTS).as_posix() for path in TESTS.rglob("*.py")}


def test_each_way_to_write_is_seen_and_reading_is_not() -> None:
    source = '''
a = "INSERT INTO bibwire.scopes (race_id) VALUES (1)"
b = b"""
    update  only bibwire.plans set next_plan_at = now()
"""
c = f"DELETE FROM bibwire.{table}"
d = "UPDATE bibwire.credentials AS a " "SET kind = 'key'"
e = ("TRUNCATE bibwire.doubts", "COPY bibwire.teams (team_id) FROM STDIN", "MERGE INTO races AS r USING x")
f = "SELECT * FROM bibwire.events FOR UPDATE OF e"
g = ["COPY (SELECT * FROM streams) TO STDOUT", "LOCK TABLE bibwire.partners", f"{x} update the plan"]
'''
    assert tables_written(source) == {"scopes", "plans", "*", "credentials", "doubts", "teams", "races"}
