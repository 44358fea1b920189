"""
A world: accounts, races, events and registrations under one simulated clock.

This is what tests and `life` speak to. Every public method may be called from any thread, while
the server answers: one lock guards the whole, and a reader sees each change whole or not at all.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Self
from zoneinfo import ZoneInfo

from rsusim import names, people
from rsusim.accounts import ACCESS_TOKEN_SECONDS, CODE_SECONDS, Account, Mint
from rsusim.clock import Clock
from rsusim.faults import Faults
from rsusim.index import EventIndex
from rsusim.log import RequestInfo, RequestLog
from rsusim.records import MOST_TEAMS, Event, EventDays, Period, Race
from rsusim.teams import Teams
from rsusim.truth import RaceTruth, teams_truth_of, truth_of

Hook = Callable[[RequestInfo], None]
DAY = 86_400


class World(Teams):
    """
    The simulated vendor's whole state.

    Args:
        seed: Everything derived follows from it.
        now: Aware start instant.
        speed: Simulated seconds a real second; 0 is a frozen clock.
    """

    def __init__(
        self, seed: int = 1, now: datetime = datetime(2026, 10, 2, 12, tzinfo=UTC), speed: float = 0
    ) -> None:
        super().__init__(seed, Clock(now, speed))
        mint = Mint(seed)
        self._mint = mint
        self.caller = mint.caller(1000 + seed % 1000)
        self.callers = {self.caller.registration: self.caller.secret}
        self.oauth_client = mint.oauth_client()
        self.accounts: dict[str, Account] = {}
        self.rights: dict[str, dict[int, bool]] = {}  # account -> race -> has it now
        self.tokens: dict[str, tuple[str, float | None]] = {}  # token -> account, until
        self.codes: dict[str, tuple[str, float]] = {}  # authorisation code -> account, until
        self.faults = Faults(seed)
        self.log = RequestLog()
        self._before: list[Hook] = []
        self._after: list[Hook] = []
        self._next_race = 16_000 + seed % 100
        self._next_event = 801_001
        self._next_days = 311_111

    # Time

    @property
    def now(self) -> datetime:
        """The simulated instant, aware, in UTC."""
        return self.clock.now

    def advance(self, seconds: float) -> None:
        """Move simulated time on; what was to be published by then is."""
        with self.lock:
            self.clock.advance(seconds)
            self.settle()

    # Accounts and rights

    def add_partner(self, name: str) -> Account:
        """Add an account with every kind of credential. Names are unique."""
        with self.lock:
            if name in self.accounts:
                raise ValueError(f"there is a partner {name!r} already")
            account = self._mint.account(name)
            self.accounts[name] = account
            self.rights[name] = {}
            self.tokens[account.bearer_token] = (name, None)
            return account

    def add_partner_to_race(self, partner: Account | str, race: int) -> None:
        self.grant(partner, race)

    def grant(self, partner: Account | str, race: int) -> None:
        with self.lock:
            self.rights[_name(partner)][self.races[race].race_id] = True

    def withdraw(self, partner: Account | str, race: int) -> None:
        """Take away an account's rights on a race (section 17)."""
        with self.lock:
            self.rights[_name(partner)][self.races[race].race_id] = False

    def may_read(self, account: str, race: int) -> bool:
        return self.rights.get(account, {}).get(race, False)

    def issue_token(self, account: str) -> str:
        """Return a new access token, good for 30 simulated days."""
        with self.lock:
            token = self._mint.token()
            self.tokens[token] = (account, self.clock.time() + ACCESS_TOKEN_SECONDS)
            return token

    def issue_code(self, partner: Account | str) -> str:
        """Return an authorisation code, as the browser step would, good for 5 minutes."""
        with self.lock:
            code = self._mint.secret(48)
            self.codes[code] = (_name(partner), self.clock.time() + CODE_SECONDS)
            return code

    # Races and events

    def add_race(
        self,
        partners: Sequence[Account | str] = (),
        name: str | None = None,
        timezone: str = "America/New_York",
        *,
        race_id: int | None = None,
        **fields: Any,
    ) -> int:
        """
        Add a race and return its id.

        Args:
            partners: Accounts with rights on it.
            name: As typed by the organiser; None invents one.
            timezone: IANA name; events' times are in it.
            race_id: A wanted id; None takes the next.
            fields: Other attributes of `records.Race`.
        """
        with self.lock:
            if race_id is None:
                self._next_race += 1 + people.mix(self._next_race ^ self.seed) % 40
                race_id = self._next_race
            h = people.mix(self.seed ^ race_id * 7919)
            words = names.RACE_WORDS
            city, state, zip_prefix, country = names.PLACES[(h >> 20) % 16]
            now = int(self.clock.time())
            if name is None:
                name = f"{words[0][h % len(words[0])]} {words[1][(h >> 8) % len(words[1])]}"
            description = (
                f"<p>{name.strip()}: fast &amp; flat.&nbsp; Chili!</p>\r\n<p>Don&rsquo;t miss it.</p>"
            )
            defaults: dict[str, Any] = {
                "created": now - 400 * DAY,
                "last_modified": now - 30 * DAY,
                "description": description if h & 3 else "",
                "url": f"https://runsignup.com/Race/{state}/{city.replace(' ', '')}/Race{race_id}",
                "address": {
                    "street": "100 Pier St" if h & 4 else "",
                    "street2": None,
                    "city": city,
                    "state": state,
                    "zipcode": f"{zip_prefix}00",
                    "country_code": country,
                },
                "logo_url": (None, "https://d368g9lw5ileu7.cloudfront.net/")[h >> 5 & 1],
                "fb_page_id": "samplerun" if h & 64 else None,
            }
            zone = ZoneInfo(timezone)
            race = Race(race_id, name, timezone, zone, **{**defaults, **fields})
            self.races[race_id] = race
            for partner in partners:
                self.grant(partner, race_id)
            return race_id

    def edit_race(self, race: int, *, published_after: float | None = None, **fields: Any) -> None:
        """
        Change attributes of a race; moves its `last_modified`.

        A `timezone` that names none, as people type them, needs the `zone` that is meant.
        """
        with self.lock:
            record = self.races[race]
            _has(record, fields)
            if "timezone" in fields and "zone" not in fields:
                fields["zone"] = ZoneInfo(fields["timezone"])
            fields.setdefault("last_modified", int(self.clock.shown()))

            def show() -> None:
                _assign(record, fields)
                self.generation += 1
                if "zone" in fields:
                    self._restart_events(record)

            self.publish(show, published_after)

    def remove_race(self, race: int) -> None:
        """Delete a race: it is not listed any more and answers error 201."""
        self.edit_race(race, removed=True)

    def add_event(
        self,
        race: int,
        name: str = "5K",
        start: datetime | None = None,
        end: datetime | None = None,
        distance: str | None = "5K",
        *,
        event_id: int | None = None,
        published_after: float | None = None,
        fee: int = 3500,
        opens: int | None = None,
        **fields: Any,
    ) -> int:
        """
        Add an event and return its id. Events of one calendar year share a set of race days.

        Args:
            race: Race id.
            name: As typed.
            start: Naive, in the race's zone; None is 30 days from now at 08:00.
            end: Naive, in the race's zone, or None.
            distance: Free text or None.
            event_id: A wanted id; None takes the next.
            published_after: Simulated seconds until readers see it.
            fee: Cents, of the only registration period.
            opens: Epoch seconds; None is 240 days before the start.
            fields: Other attributes of `records.Event`.
        """
        with self.lock:
            record = self.races[race]
            if start is None:
                day = self.now.astimezone(record.zone).replace(tzinfo=None) + timedelta(days=30)
                start = day.replace(hour=8, minute=0, second=0, microsecond=0)
            if start.tzinfo is not None or (end is not None and end.tzinfo is not None):
                raise ValueError("event times are naive, in the race's zone")
            _check_teams(fields)
            if event_id is None:
                event_id = self._next_event
                self._next_event += 1
            self._next_event = max(self._next_event, event_id + 1)
            starts_at = int(start.replace(tzinfo=record.zone).timestamp())
            opened = starts_at - 240 * DAY if opens is None else opens
            fields.setdefault("periods", [Period(opened, starts_at - 2 * DAY, fee, 100 + fee // 20)])
            days = self._days_of(record, start.date(), (end or start).date())
            event = Event(
                event_id,
                race,
                days.race_event_days_id,
                name,
                start,
                end,
                starts_at,
                distance,
                opened,
                **fields,
            )
            event.published = False
            self.events[event_id] = event
            self.indexes[event_id] = EventIndex()
            record.event_ids.append(event_id)
            days.event_ids.append(event_id)
            self.publish(lambda: _assign(event, {"published": True}), published_after)
            return event_id

    def edit_event(self, event: int, *, published_after: float | None = None, **fields: Any) -> None:
        """Change attributes of an event, and with `start` its instant; moves the race's record."""
        with self.lock:
            record = self.events[event]
            _has(record, fields)
            _check_teams(fields)
            race = self.races[record.race_id]
            if "start" in fields:
                fields["starts_at"] = int(fields["start"].replace(tzinfo=race.zone).timestamp())
            stamp = {"last_modified": int(self.clock.shown())}

            def show() -> None:
                _assign(record, fields)
                _assign(race, stamp)
                self.generation += 1

            self.publish(show, published_after)

    def remove_event(self, event: int) -> None:
        """Delete an event: it is not listed any more and answers error 301."""
        self.edit_event(event, published=False)

    def bundle(self, race: int, sub_events: Sequence[int], name: str = "Challenge") -> int:
        """Add a super event over `sub_events`, which starts with the first of them."""
        first = min((self.events[number] for number in sub_events), key=lambda e: e.starts_at)
        return self.add_event(race, name, first.start, None, None, sub_event_ids=list(sub_events))

    def _days_of(self, race: Race, first: date, last: date) -> EventDays:
        for days in race.days:
            if days.first.year == first.year:
                days.first, days.last = min(days.first, first), max(days.last, last)
                return days
        self._next_days += 11
        days = EventDays(self._next_days, first, last)
        race.days.append(days)
        return days

    def _restart_events(self, race: Race) -> None:
        for number in race.event_ids:
            event = self.events[number]
            event.starts_at = int(event.start.replace(tzinfo=race.zone).timestamp())

    # What a test wants to know and to do

    def truth(self, partner: Account | str) -> list[RaceTruth]:
        """Return what a perfect mirror of this account would hold now; see `truth`."""
        with self.lock:
            self.settle()
            return truth_of(self, _name(partner))

    def teams_truth(self, partner: Account | str, race: int | None = None) -> list[dict[str, Any]]:
        """Return all teams of an account, or of one race of it, as they are now; see `truth`."""
        with self.lock:
            self.settle()
            return teams_truth_of(self, _name(partner), race)

    def before_answer(self, hook: Hook) -> None:
        """Call `hook` for each request just before its rows are read, on the server's thread."""
        self._before.append(hook)

    def after_answer(self, hook: Hook) -> None:
        """Call `hook` for each request once its rows were read, just before it is sent."""
        self._after.append(hook)

    def clear_hooks(self) -> None:
        self._before.clear()
        self._after.clear()

    def call_before(self, info: RequestInfo) -> None:
        for hook in tuple(self._before):
            hook(info)

    def call_after(self, info: RequestInfo) -> None:
        for hook in tuple(self._after):
            hook(info)

    def __enter__(self) -> Self:
        """Hold the lock: what happens inside is seen by readers as one change."""
        self.lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.release()


def _name(partner: Account | str) -> str:
    return partner if isinstance(partner, str) else partner.name


def _has(record: Race | Event, fields: dict[str, Any]) -> None:
    if unknown := [name for name in fields if not hasattr(record, name)]:
        raise TypeError(f"unknown fields {unknown}; put what the reference lacks into extra={{}}")


def _check_teams(fields: dict[str, Any]) -> None:
    if not 0 <= fields.get("team_count", 0) <= MOST_TEAMS:
        raise ValueError(f"team_count is 0 to {MOST_TEAMS}; add_team adds more")


def _assign(record: Race | Event, fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        setattr(record, name, value)
