"""
Turns what the store tells into Prometheus metrics: names, units, labels.

docs/metrics.md explains each; a test holds the two together. A partner is named by its name, a
race by its number, and nothing else of people or secrets is in a label. What is not known has no
sample: an age of nothing would be a lie.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from bibwire import __version__
from bibwire.store.metrics import Facts, PartnerFacts, RaceFacts

Sample = tuple[tuple[object, ...], float | None]

_PARTNER = ("partner",)
_RACE = ("partner", "race_id")


class FactsCollector(Collector):
    """The metrics of one reading; None: the database could not be read."""

    def __init__(self, facts: Facts | None) -> None:
        self._facts = facts

    def collect(self) -> Iterator[Metric]:
        yield _gauge("bibwire_up", "Whether the database could be read.", (), [((), self._facts is not None)])
        yield InfoMetricFamily("bibwire_build", "Which Bibwire tells this.", value={"version": __version__})
        if self._facts is not None:
            yield from _of_races(self._facts.races)
            yield from _of_partners(self._facts.partners)
            yield from _of_budgets(self._facts)
            yield from _of_drift(self._facts)
            yield from _of_jobs(self._facts)


def registry_of(facts: Facts | None) -> CollectorRegistry:
    """Return a registry that holds these metrics alone."""
    registry = CollectorRegistry(auto_describe=True)
    registry.register(FactsCollector(facts))
    return registry


def as_text(facts: Facts | None) -> str:
    """Return the metrics in Prometheus' text format."""
    return generate_latest(registry_of(facts)).decode()


def _gauge(
    name: str, documentation: str, labels: Sequence[str], samples: Iterable[Sample]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, documentation, labels=labels)
    for values, number in samples:
        if number is not None:
            family.add_metric([str(value) for value in values], float(number))
    return family


def _of_races(races: Sequence[RaceFacts]) -> Iterator[Metric]:
    def each(name: str, documentation: str, numbers: Iterable[float | None]) -> Metric:
        keys = [(race.partner, race.race_id) for race in races]
        return _gauge(f"bibwire_race_{name}", documentation, _RACE, zip(keys, numbers, strict=True))

    yield each(
        "age_seconds",
        "Age of a live race's registrations; none before its first load.",
        (race.age_seconds for race in races),
    )
    yield each("target_seconds", "How old they may be.", (race.target_seconds for race in races))
    yield each(
        "late", "Whether they are older, by more than a poll takes, or not loaded.", (r.late for r in races)
    )
    yield each("failing", "Whether its sweeps fail.", (race.failing for race in races))
    yield _gauge(
        "bibwire_race_detection_lag_seconds",
        "How soon after the vendor knew of a change we did, of the newest hour with changes; 1 is the worst.",
        (*_RACE, "quantile"),
        (
            ((race.partner, race.race_id, quantile), seconds)
            for race in races
            for quantile, seconds in (
                ("0.5", race.p50_seconds),
                ("0.95", race.p95_seconds),
                ("1", race.worst_seconds),
            )
        ),
    )


def _of_partners(partners: Sequence[PartnerFacts]) -> Iterator[Metric]:
    def each(name: str, documentation: str, numbers: Iterable[float | None]) -> Metric:
        keys = [(partner.partner,) for partner in partners]
        return _gauge(f"bibwire_{name}", documentation, _PARTNER, zip(keys, numbers, strict=True))

    yield each("partner_paused", "Whether it was paused.", (p.paused for p in partners))
    yield each("partner_failing", "Whether its key is refused.", (p.failing for p in partners))
    yield each(
        "quarantined_records", "Records of it that cannot be represented.", (p.quarantined for p in partners)
    )
    yield each(
        "doubted_events",
        "Events whose full listing was too short to be believed.",
        (p.doubted for p in partners),
    )
    yield each(
        "verification_timestamp_seconds",
        "When its mirror was last verified; none before the first time.",
        (p.verified_at for p in partners),
    )
    yield each("verification_passed", "Whether nothing failed then.", (_passed(p) for p in partners))
    yield _gauge(
        "bibwire_verification_failures",
        "Checks that failed then (fail), or could not be made (error).",
        (*_PARTNER, "verdict"),
        (
            ((p.partner, verdict), checks)
            for p in partners
            for verdict, checks in (("fail", p.checks_failed), ("error", p.checks_unfinished))
        ),
    )


def _passed(partner: PartnerFacts) -> bool | None:
    failures = partner.checks_failed + partner.checks_unfinished
    return None if partner.verified_at is None and not failures else not failures


def _of_budgets(facts: Facts) -> Iterator[Metric]:
    partners = facts.partners
    yield _gauge(
        "bibwire_budget_calls_last_hour",
        "Calls that the budget counts in the last hour.",
        (*_PARTNER, "class"),
        (((p.partner, urgency), calls) for p in partners for urgency, calls in p.calls.items()),
    )
    yield _gauge(
        "bibwire_budget_limit_calls",
        "Calls an hour that are allowed at present.",
        _PARTNER,
        (((p.partner,), p.limit) for p in partners),
    )
    yield _gauge(
        "bibwire_budget_blocked",
        "Whether no call may be made now, because the vendor asked for none.",
        _PARTNER,
        (((p.partner,), p.blocked) for p in partners),
    )
    yield _gauge(
        "bibwire_callers_blocked",
        "Caller registrations under which no call may be made now.",
        (),
        [((), facts.callers_blocked)],
    )
    for name, documentation, number in (
        ("calls", "Calls that ended in the last hour, retries counted.", [e.calls for e in facts.endpoints]),
        ("errors", "Those of them that failed in whatever way.", [e.errors for e in facts.endpoints]),
    ):
        keys = [(each.partner, each.endpoint) for each in facts.endpoints]
        labels = (*_PARTNER, "endpoint")
        yield _gauge(
            f"bibwire_endpoint_{name}_last_hour", documentation, labels, zip(keys, number, strict=True)
        )


def _of_drift(facts: Facts) -> Iterator[Metric]:
    drift = CounterMetricFamily(
        "bibwire_drift_rows",
        "Rows of the mirror that changes had missed, as full listings found them; they were mended.",
        labels=(*_PARTNER, "kind"),
    )
    for partner in facts.partners:
        for kind, rows in partner.drift.items():
            drift.add_metric([partner.partner, kind], rows)
    yield drift
    oldest: dict[str, float] = {}
    for race in facts.races:
        if race.listed_seconds is not None:
            oldest[race.partner] = max(oldest.get(race.partner, 0.0), race.listed_seconds)
    yield _gauge(
        "bibwire_reconciliation_age_seconds",
        "Since the loaded live race that waits longest was last listed in full.",
        _PARTNER,
        (((partner,), seconds) for partner, seconds in oldest.items()),
    )


def _of_jobs(facts: Facts) -> Iterator[Metric]:
    jobs = facts.jobs
    yield _gauge("bibwire_workers", "Workers that are alive.", (), [((), jobs.workers)])
    counts = (("waiting", jobs.todo), ("running", jobs.doing), ("failed", jobs.failed))
    yield _gauge(
        "bibwire_queue_jobs", "Jobs in the queue.", ("status",), (((name,), n) for name, n in counts)
    )
    yield _gauge(
        "bibwire_queue_stalled_jobs",
        "Running jobs whose worker gives no sign.",
        (),
        [((), jobs.stalled)],
    )
    yield _gauge(
        "bibwire_queue_oldest_waiting_seconds",
        "For how long the first of those that wait has waited; 0: none waits.",
        (),
        [((), jobs.oldest_todo_seconds or 0.0)],
    )
    for name, seconds in (("planner", jobs.planner_seconds), ("rescue", jobs.rescue_seconds)):
        yield _gauge(
            f"bibwire_{name}_age_seconds",
            f"Since the {name} last came to its end; none before the first time.",
            (),
            [((), seconds)],
        )
