"""What monitors are told is true of all processes, bounded, and never in the way of the work."""

from __future__ import annotations

import re
import time
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from psycopg import sql

import rsusim
from tests.cli.conftest import Shell
from tests.cli.test_status import Observer, chores_ran, worker_gives_signs
from tests.cli.test_status import observer as observer
from tests.cli.test_sync import first_race

ROOT = Path(__file__).parents[2]
Labels = frozenset[tuple[str, str]]


class Scraped(dict[tuple[str, Labels], float]):
    """Values by name and labels."""

    def __init__(self, text: str) -> None:
        super().__init__(
            ((sample.name, frozenset(sample.labels.items())), sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        )

    def value(self, name: str, **labels: object) -> float | None:
        return self.get((name, frozenset((label, str(value)) for label, value in labels.items())))

    def of(self, name: str) -> list[dict[str, str]]:
        """Return the labels of each sample of that name."""
        return [dict(labels) for each, labels in self if each == name]

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self}


def metrics(shell: Shell) -> Scraped:
    ended = shell.run("metrics")
    assert (ended.code, ended.err) == (0, "")
    return Scraped(ended.out)


def test_drift_is_counted_and_stands_when_its_findings_are_pruned(
    shell: Shell, peak: rsusim.Account, world: rsusim.World, observer: Observer
) -> None:
    race, event = first_race(world)
    shell.run("sync")
    before = metrics(shell)
    assert before.value("bibwire_drift_rows_total", partner=peak.name, kind="extra") == 0
    world.vanish(world.active(event)[0])
    assert shell.run("reconcile", "--race", str(race)).code == 0

    found = metrics(shell)
    observer.execute("DELETE FROM bibwire.reconciliations")
    pruned = metrics(shell)

    for each in (found, pruned):
        assert each.value("bibwire_drift_rows_total", partner=peak.name, kind="extra") == 1
        assert each.value("bibwire_drift_rows_total", partner=peak.name, kind="missing") == 0


def test_a_reconciliation_s_age_is_that_of_the_race_that_waits_longest(
    shell: Shell, peak: rsusim.Account, world: rsusim.World, observer: Observer
) -> None:
    shell.run("sync")
    observer.execute(
        "UPDATE bibwire.scopes SET loaded_at = now() - interval '9 days', reconciled_at = now()"
        " - CASE WHEN race_id = %s THEN interval '30 hours' ELSE interval '1 hour' END",
        (first_race(world)[0],),
    )

    age = metrics(shell).value("bibwire_reconciliation_age_seconds", partner=peak.name)

    assert age is not None
    assert 0 <= age - 30 * 3600 < 600


def test_what_stands_badly_is_told(
    shell: Shell, peak: rsusim.Account, world: rsusim.World, observer: Observer
) -> None:
    shell.run("sync")
    race = first_race(world)[0]
    plant_everything(observer, race)
    key = {"partner": peak.name}

    found = metrics(shell)

    assert found.value("bibwire_race_failing", **key, race_id=race) == 1
    assert found.value("bibwire_race_late", **key, race_id=race) == 1
    assert found.value("bibwire_race_detection_lag_seconds", **key, race_id=race, quantile="0.95") == 8
    assert found.value("bibwire_budget_blocked", **key) == 1
    assert found.value("bibwire_callers_blocked") == 1
    assert found.value("bibwire_partner_failing", **key) == 1
    assert found.value("bibwire_verification_passed", **key) == 0
    assert found.value("bibwire_verification_failures", **key, verdict="fail") == 2
    assert found.value("bibwire_verification_failures", **key, verdict="error") == 1
    verified = found.value("bibwire_verification_timestamp_seconds", **key)
    assert verified is not None
    assert abs(time.time() - 3600 - verified) < 600
    assert found.value("bibwire_quarantined_records", **key) == 1
    assert found.value("bibwire_doubted_events", **key) == 1
    planned = found.value("bibwire_planner_age_seconds")
    assert planned is not None
    assert 7200 <= planned < 7800
    assert found.value("bibwire_queue_jobs", status="waiting") == 3
    assert found.value("bibwire_endpoint_errors_last_hour", **key, endpoint="races") == 7
    # What has no person to look after it is no alarm.
    observer.execute("UPDATE bibwire.partners SET paused_at = now()")
    paused = metrics(shell)
    assert paused.value("bibwire_partner_paused", **key) == 1
    assert paused.of("bibwire_race_age_seconds") == paused.of("bibwire_race_late") == []


def plant_everything(observer: Observer, race: int) -> None:
    """Store whatever can be told of a partner, so that each metric has a sample."""
    worker_gives_signs(observer)
    chores_ran(observer, planner="2 hours", rescue="5 seconds")
    for statement in (
        "INSERT INTO bibwire_jobs.procrastinate_jobs (queue_name, task_name)"
        " SELECT 'sweep', 'sweep' FROM generate_series(1, 3)",
        "UPDATE bibwire.scopes SET failing_since = now(), last_error = 'canary' WHERE race_id = {race}",
        "UPDATE bibwire.streams SET cursor_at = now() - interval '1 day' WHERE race_id = {race}",
        "INSERT INTO bibwire.detection_lag (partner_id, race_id, hour, changes, p50_seconds, p95_seconds,"
        " worst_seconds) SELECT partner_id, {race}, date_trunc('hour', now()), 9, 4, 8, 12"
        " FROM bibwire.partners",
        "UPDATE bibwire.credentials SET failing_since = now(), failing_reason = 'canary',"
        " blocked_until = now() + interval '1 hour', blocked_reason = 'canary', throttled_at = now()",
        "INSERT INTO bibwire.callers (caller_digest, blocked_until) VALUES ('x', now() + interval '1 hour')",
        "INSERT INTO bibwire.plans (partner_id) SELECT partner_id FROM bibwire.partners"
        " ON CONFLICT DO NOTHING",
        "UPDATE bibwire.plans SET verified_at = now() - interval '1 hour', verify_failures ="
        """ '[{{"verdict": "fail"}}, {{"verdict": "fail"}}, {{"verdict": "error"}}]'""",
        "INSERT INTO bibwire.quarantine (partner_id, source, reason, raw, raw_hash, first_seen_at,"
        " last_seen_at) SELECT partner_id, 'races', 'canary', 'canary', 'x', now(), now()"
        " FROM bibwire.partners",
        "INSERT INTO bibwire.doubts (partner_id, race_id, event_id, listing_high, listed)"
        " SELECT partner_id, {race}, 1, now(), 0 FROM bibwire.partners",
        "INSERT INTO bibwire.call_stats (credential_id, minute, endpoint, calls, errors, bytes, latency)"
        " SELECT credential_id, date_trunc('minute', now()), 'races', 9, 7, 0, '{{}}'"
        " FROM bibwire.credentials ON CONFLICT (credential_id, minute, endpoint) DO UPDATE SET errors = 7",
    ):
        observer.execute(sql.SQL(statement).format(race=sql.Literal(race)))


def test_no_scrape_reads_the_people_or_the_feed() -> None:
    told = (ROOT / "src/bibwire/store/sql/metrics.sql").read_text()

    assert not re.search(r"\b(participants|changes|bib_changes)\b", re.sub(r"--.*", "", told))
