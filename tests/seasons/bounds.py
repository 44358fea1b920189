"""
What a program that runs for years must not exceed: calls, jobs that wait, rows, sweeps at a time.

As in `watch`, RunSignup's log and truth are believed, and of the program's tables what users read. Figures
come from the contract (design.md sections 4 and 8) and not from the program.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rsusim.log import RequestInfo
from tests.seasons.rows import too_many
from tests.seasons.watch import DAY, HOUR, LISTED_WITHIN, may_be_old

if TYPE_CHECKING:
    from tests.seasons.season import Season
    from tests.seasons.troubles import Troubles
    from tests.seasons.watch import Watch

# A turn of at most a minute, behind one that was there before, each with a call that is tried for a minute.
LONGEST_WAIT: Final = 240.0
# After a person's command or a change of the lists: what they set off is done by then.
SETTLED: Final = 1800.0
# So much more than the tiers take may a quiet world cost.
MARGIN: Final = 1.1
# A poll reads the people's list and, at most as often, the removed list.
CALLS_A_POLL: Final = 2.0
# The list of coming races, four times an hour; all lists, at 06:00 and 18:00, of a few pages.
LISTS_AN_HOUR: Final = 4.0
CALLS_OF_ALL_LISTS: Final = 4.0
# About daily a race is listed in full in place of a poll: with counts, and with the list of its teams.
CALLS_A_LISTING: Final = 4.0
# docs/verify.md: a partner is given so many, retries included.
CALLS_A_NIGHT: Final = 40.0
# In the sleepy hours of whoever runs it: 03:00, by its clocks. Here these are those of UTC.
NIGHTLY: Final = 3 * HOUR
# Told an hour later at most: it is looked for with every plan, and asked again hourly.
TOLD_WITHIN: Final = 1.5 * HOUR
SWEPT: Final = ("participants", "removed-participants")


@dataclass(slots=True)
class _Quiet:
    """What a partner's quiet hours cost, and what they may have cost."""

    hours: float = 0.0
    polls: float = 0.0
    nights: set[float] = field(default_factory=set)
    lists: set[float] = field(default_factory=set)
    calls: int = 0


class Bounds:
    """
    The bounds of one season.

    Args:
        goes_on: Says whether a person's command or a trouble goes on.
    """

    def __init__(self, season: Season, watch: Watch, troubles: Troubles, goes_on: Callable[[], bool]) -> None:
        self._season = season
        self._watch = watch
        self._troubles = troubles
        self._goes_on = goes_on
        self._began = self._looked = season.now.timestamp()
        # When something last happened, or a command that a person gave was still going on.
        self._disturbed = self._began
        self._logged = 0
        self._quiet: dict[str, _Quiet] = {}
        self._under_way: dict[tuple[str, int], list[RequestInfo]] = {}
        self._verified: dict[str, datetime | None] = {}

    def disturb(self) -> None:
        """Something happens."""
        self._disturbed = self._season.now.timestamp()

    def look(self) -> None:
        """Check every bound."""
        now = self._season.now.timestamp()
        if self._goes_on():
            self._disturbed = now
        fresh = self._season.world.log.requests[self._logged :]
        self._logged += len(fresh)
        self._one_sweep_at_a_time(fresh)
        self._quiet_hours_cost_little(fresh, now)
        if self._season.server.is_up and not self._watch.is_locked:
            self._jobs_are_done()
            self._tables_are_bounded()
            self._nights_are_verified(now)
        self._looked = now

    def _is_well_since(self, instant: float) -> bool:
        return not self._watch.is_disturbed(None, since=instant)

    # Calls

    def _one_sweep_at_a_time(self, fresh: list[RequestInfo]) -> None:
        """
        A sweep makes one call after the other: two of a race at a time are two sweeps.

        Two sweeps of which neither calls while the other's call is under way look like two in a row. A
        look-up and a verification take no lease; whoever is frozen, killed or told to leave gives its own up
        before the vendor has answered its last call.
        """
        for info in fresh:
            if info.endpoint not in SWEPT or "search_bib" in info.query or info.account is None:
                continue
            key = (info.account, info.race_id or 0)
            others = [each for each in self._under_way.get(key, ()) if _lasts_until(each) > info.at]
            self._under_way[key] = [*others, info]
            if (
                others
                # With a partner that was removed since, what was done for it is forgotten.
                and self._watch.partners.get(info.account, info.at) < info.at
                and not self._troubles.took_a_lease(info.at)
                and not self._some_ended_early(info.at)
                and not self._is_verified_at(info.account, info.at)
            ):
                raise AssertionError(
                    f"{info.account}: two sweeps of race {info.race_id} at {_utc(info.at)}:"
                    f" {info.endpoint} {info.query} while {others[-1].endpoint} {others[-1].query} goes on"
                )

    def _some_ended_early(self, at: float) -> bool:
        return any(ended - 5 <= at <= ended + 60 for ended in self._troubles.ended_early)

    def _is_verified_at(self, name: str, at: float) -> bool:
        return bool(
            self._season.rows(
                "SELECT FROM bibwire.sync_history AS h JOIN bibwire.partners AS p USING (partner_id)"
                " WHERE p.name = %(name)s AND h.kind = 'verify' AND h.started_at <= %(at)s"
                " AND coalesce(h.finished_at, h.started_at + interval '15 minutes') >= %(at)s LIMIT 1",
                name=name,
                at=datetime.fromtimestamp(at, UTC),
            )
        )

    def _quiet_hours_cost_little(self, fresh: list[RequestInfo], now: float) -> None:
        """
        Where nothing happens, no more calls are made than tiers, lists and nights need.

        Hours with a hot race are left out: those have what calls are left. Quiet hours are added up, so that
        what is done once a day weighs what it weighs in a day.
        """
        before = self._looked
        if self._disturbed + SETTLED > before or not self._is_well_since(before - SETTLED):
            return
        for name, settled in self._watch.partners.items():
            if name in self._watch.partners_paused or before < settled + SETTLED:
                continue
            with self._season.world:
                races = self._season.world.truth(name)
            ages = [min(may_be_old(race, at) or DAY for at in (before, now)) for race in races]
            if any(age <= 60 for age in ages):
                continue
            quiet = self._quiet.setdefault(name, _Quiet())
            hours = (now - before) / HOUR
            quiet.hours += hours
            quiet.polls += sum((now - before) / age for age in ages)
            quiet.nights |= {at for at in [_last(now, NIGHTLY)] if at > before - TOLD_WITHIN}
            quiet.lists |= {at for hour in (6, 18) if (at := _last(now, hour * HOUR)) > before - HOUR}
            quiet.calls += sum(info.account == name for info in fresh)
            days = 1 + (now - self._began) / DAY
            most = (
                MARGIN * (CALLS_A_POLL * quiet.polls + LISTS_AN_HOUR * quiet.hours)
                + CALLS_A_LISTING * len(races) * days
                + CALLS_A_NIGHT * len(quiet.nights)
                + CALLS_OF_ALL_LISTS * (1 + len(quiet.lists))
            )
            assert quiet.calls <= most, (
                f"{name}: {quiet.calls} calls in {quiet.hours:.1f} quiet hours, and {most:.0f} is the most"
            )

    # The database

    def _jobs_are_done(self) -> None:
        """While nothing is wrong no job waits long, none fails, and none is left by a worker that is gone."""
        now = self._season.now.timestamp()
        if not self._is_well_since(now - LONGEST_WAIT):
            return
        for row in self._season.rows(
            "SELECT j.status::text, j.task_name, j.args::text,"
            " extract(epoch FROM now() - max(e.at))::float8 AS seconds"
            " FROM bibwire_jobs.procrastinate_jobs AS j JOIN bibwire_jobs.procrastinate_events AS e"
            " ON e.job_id = j.id GROUP BY j.id ORDER BY j.id"
        ):
            assert row["status"] != "failed", f"a job failed, and nothing is wrong: {row}"
            assert row["status"] != "todo" or row["seconds"] <= LONGEST_WAIT, (
                f"a job waits for {row['seconds']:.0f} s: {row}"
            )

    def _tables_are_bounded(self) -> None:
        found = list(too_many(self._season))
        assert not found, "; ".join(found)

    # Nights

    def _nights_are_verified(self, now: float) -> None:
        """
        Each partner's mirror is verified each night, and nothing fails where nothing was wrong.

        But for a night with a hot race: that has what calls there are.
        """
        rows = self._season.rows(
            "SELECT p.name, l.verified_at, l.verify_failures FROM bibwire.partners AS p"
            " JOIN bibwire.plans AS l USING (partner_id)"
        )
        for row in rows:
            name, at = row["name"], row["verified_at"]
            if name not in self._watch.partners:
                continue
            settled = self._watch.partners[name]
            if name in self._verified and at != self._verified[name] and at is not None:
                self._is_verified_truly(name, at.timestamp(), row["verify_failures"] or [])
            self._verified[name] = at
            night = _last(now - TOLD_WITHIN, NIGHTLY)
            if (
                night > max(self._began, settled + SETTLED)
                and self._is_well_since(night - SETTLED)
                and name not in self._watch.partners_paused
                and not self._is_hot(name, night - HOUR, now)
            ):
                assert (at.timestamp() if at else 0.0) >= night, (
                    f"{name}: not verified since {_utc(night)}; last: {at}"
                )

    def _is_hot(self, name: str, first: float, last: float) -> bool:
        with self._season.world:
            races = self._season.world.truth(name)
        return any(may_be_old(race, at) == 60.0 for race in races for at in (first, (first + last) / 2, last))

    def _is_verified_truly(self, name: str, at: float, failures: list[dict[str, object]]) -> None:
        changed = max((w for (n, _), w in self._watch.changed.items() if n == name), default=0.0)
        if changed + LISTED_WITHIN + LONGEST_WAIT > at or not self._is_well_since(at - SETTLED):
            return
        # Commands may have used up the calls that the checks would take; then it is said that some were not.
        wrong = [each for each in failures if each["verdict"] == "fail" or self._disturbed + HOUR < at]
        assert not wrong, f"{name}: the verification of {_utc(at)} failed, and nothing was wrong: {wrong}"


def _lasts_until(info: RequestInfo) -> float:
    return float("inf") if info.over_at is None else info.over_at


def _last(now: float, of_day: float) -> float:
    """Return the last instant at which a day was so many seconds old."""
    return (now - of_day) // DAY * DAY + of_day


def _utc(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%d %H:%M:%S}"
