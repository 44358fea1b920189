"""
Which teams there are and who is in them (section 14), derived until something happens to them.

A team costs nothing before it is edited, and who is in it is found by one walk over its event when
first asked for, which is kept until somebody comes or goes. Whoever shows a team's id in its row
and is active is a member; a `team_id` edited to one of the event's teams joins it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rsusim import people
from rsusim.records import ABSENT, ACTIVE, MOST_TEAMS, Registration, Team, Version

if TYPE_CHECKING:
    from rsusim.state import State

_FIRST_ADDED: Final = 700_000_001  # far above the derived ids of events numbered as `World` does


@dataclass(frozen=True, slots=True)
class Standing:
    """A team as readers see it, with its active members ascending and its last change."""

    team: Team
    members: tuple[int, ...]
    last_modified: int


class Rosters:
    """The teams of a world; everything here runs under its lock."""

    def __init__(self, state: "State") -> None:
        self._state = state
        self._made_at = int(state.clock.time())
        self._next_id = _FIRST_ADDED
        self._heads: dict[int, Team] = {}  # how they stand, of those added or edited
        self._shown: dict[int, Team] = {}  # what readers see of the same
        self._added: dict[int, list[int]] = {}  # event -> teams that are not derived
        self._moved: dict[int, int] = {}  # team -> when a member last came or went
        # event -> (world's generation, team -> members)
        self._members: dict[int, tuple[int, dict[int, tuple[int, ...]]]] = {}

    # Teams

    def head(self, team_id: int) -> Team:
        """
        Return how a team stands, published or not.

        Raises:
            KeyError: If there is no such team, or none any more.
        """
        team = self._heads.get(team_id) or self._derived(team_id)
        if team is None or team.removed:
            raise KeyError(f"no team {team_id}")
        return team

    def shown(self, team_id: int) -> Team | None:
        """Return what readers see of a team; None if they see none."""
        team = self._shown.get(team_id) or self._derived(team_id)
        return None if team is None or team.removed else team

    def is_known(self, team_id: Any) -> bool:
        """Tell whether a value is the id of a team that there is or was."""
        return type(team_id) is int and (team_id in self._heads or self._derived(team_id) is not None)

    def new_id(self) -> int:
        while self.is_known(self._next_id):
            self._next_id += 1
        self._next_id += 1
        return self._next_id - 1

    def add(self, team: Team) -> None:
        """Note a new team; `show` publishes it."""
        self._heads[team.team_id] = team
        self._added.setdefault(team.event_id, []).append(team.team_id)

    def change(self, team: Team) -> None:
        """Note how a team stands now; `show` publishes it."""
        self._heads[team.team_id] = team

    def show(self, team: Team) -> None:
        """Let readers see a change, unless they see a later one already."""
        old = self._shown.get(team.team_id)
        if old is not None and old.number >= team.number:
            return
        self._shown[team.team_id] = team
        state = self._state
        for number in state.indexes[team.event_id].active.ids:
            registration = state.registrations[number]
            version = state.lingering.get(number) or registration.shown
            if version is not None and self._team_id_of(registration, version) == team.team_id:
                version.cache = None  # its row tells of the team

    def ids(self, event_id: int) -> list[int]:
        """Return the ids of all teams an event has or had, in the order they were made."""
        first = event_id * MOST_TEAMS
        derived = range(first, first + self._state.events[event_id].team_count)
        return [*derived, *self._added.get(event_id, ())]

    def standings(self, event_id: int) -> list[Standing]:
        """Return the teams of an event as readers see them, in the order they were made."""
        members, standings = self._roster(event_id), []
        for team_id in self.ids(event_id):
            team = self.shown(team_id)
            if team is None:
                continue
            numbers = members.get(team_id, ())
            joined = (self._state.registrations[number].registered_at for number in numbers)
            changed = max(team.last_modified, self._moved.get(team_id, 0), *joined)
            standings.append(Standing(team, numbers, changed))
        return standings

    def _derived(self, team_id: int) -> Team | None:
        event = self._state.events.get(team_id // MOST_TEAMS)
        number = team_id % MOST_TEAMS
        if event is None or number >= event.team_count:
            return None
        return people.team(event, number, self._made_at)

    # Members

    def team_of(self, registration: Registration, version: Version) -> Team | None:
        """Return the team a registration is in, as readers see the team."""
        team_id = self._team_id_of(registration, version)
        return None if team_id is None else self.shown(team_id)

    def members(self, team_id: int) -> tuple[int, ...]:
        """Return the active registrations in a team as readers see them, ascending."""
        team = self.shown(team_id)
        return self._roster(team.event_id).get(team_id, ()) if team else ()

    def coming(self, team: Team) -> list[int]:
        """Return the active registrations in a team as they stand, published or not."""
        state = self._state
        return [
            number
            for number, registration in state.registrations.items()
            if registration.head.event_id == team.event_id
            and registration.head.status == ACTIVE
            and self._team_id_of(registration, registration.head) == team.team_id
        ]

    def follow(self, registration: Registration, old: Version | None, changed_at: int) -> None:
        """Note that readers see a registration change, which moves a team it came to or left."""
        new = registration.shown
        assert new is not None, "what readers see has changed"
        if old is not None and (old.patch, old.status, old.event_id) == (new.patch, new.status, new.event_id):
            return
        left, joined = self._active_in(registration, old), self._active_in(registration, new)
        if left == joined:
            return
        for team_id, version in ((left, old), (joined, new)):
            if team_id is not None and version is not None:
                self._moved[team_id] = max(self._moved.get(team_id, 0), changed_at)
                self.forget(version.event_id)

    def forget(self, event_id: int) -> None:
        """Walk over the event again when its members are next asked for."""
        self._members.pop(event_id, None)

    def _roster(self, event_id: int) -> Mapping[int, tuple[int, ...]]:
        state = self._state
        kept = self._members.get(event_id)
        if kept is not None and kept[0] == state.generation:
            return kept[1]
        lists: dict[int, list[int]] = {}
        if self.ids(event_id):
            for number in state.indexes[event_id].active.ids:
                registration = state.registrations[number]
                team_id = self._active_in(registration, registration.shown)
                if team_id is not None:
                    lists.setdefault(team_id, []).append(number)
        members = {team_id: tuple(numbers) for team_id, numbers in lists.items()}
        self._members[event_id] = state.generation, members
        return members

    def _active_in(self, registration: Registration, version: Version | None) -> int | None:
        if version is None or version.status != ACTIVE:
            return None
        return self._team_id_of(registration, version)

    def _team_id_of(self, registration: Registration, version: Version) -> int | None:
        """Return the team, removed ones too, that was joined by an edit or is derived."""
        chosen = version.patch.get("team_id", ABSENT)
        if chosen is not ABSENT:
            if not self.is_known(chosen):
                return None  # it left, or a test made the id up
            if chosen // MOST_TEAMS == version.event_id or chosen in self._added.get(version.event_id, ()):
                return int(chosen)
        state = self._state
        return people.team_of(state.seed, registration.registration_id, state.events[version.event_id])
