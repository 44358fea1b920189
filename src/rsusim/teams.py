"""
All that happens to teams: made, renamed, numbered, removed, joined and left.

A team's own change moves its `last_modified`, and by a quirk only that of its members (section
14). Members who come or go move the team's. Every method may be called from any thread.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from rsusim import names
from rsusim.records import TEAM_FIELDS, Team
from rsusim.registrations import Registrations


class Teams(Registrations):
    """What tests and `life` do to teams."""

    def teams_of(self, event: int) -> list[Team]:
        """Return the teams of an event as readers see them, in the order they were made."""
        with self.lock:
            self.settle()
            return [row.team for row in self.rosters.standings(event)]

    def members_of(self, team_id: int) -> list[int]:
        """Return the active registrations in a team as readers see them, ascending."""
        with self.lock:
            self.settle()
            return list(self.rosters.members(team_id))

    def add_team(
        self, event: int, name: str | None = None, *, published_after: float | None = None, **fields: Any
    ) -> int:
        """
        Add a team with nobody in it and return its id.

        Args:
            event: Event id.
            name: As typed; None invents one.
            published_after: Simulated seconds until readers see it.
            fields: Other values by their flat names: `team_bib_num`, `team_gender` and so on.
        """
        _check(fields)
        with self.lock:
            self.settle()
            if event not in self.events:
                raise KeyError(f"no event {event}")
            team_id = self.rosters.new_id()
            if name is None:
                name = f"{names.TEAM_NAMES[team_id % len(names.TEAM_NAMES)]} {team_id % 1000}"
            self._versions += 1
            now = int(self.clock.shown())
            values = {"team_name": name, **fields}
            team = Team(team_id, event, last_modified=now, number=self._versions, **values)
            self.rosters.add(team)
            self.publish(lambda: self.rosters.show(team), published_after)
            return team_id

    def edit_team(self, team_id: int, *, published_after: float | None = None, **fields: Any) -> None:
        """
        Change a team by its flat names; moves its `last_modified`, and its members' by quirk only.

        The rows of its members show the change at once, but for what was edited in a row itself.
        """
        _check(fields)
        self._alter(team_id, fields, published_after, self.quirks.team_edit_moves_members)

    def rename_team(self, team_id: int, name: str, *, published_after: float | None = None) -> None:
        self.edit_team(team_id, team_name=name, published_after=published_after)

    def assign_team_bib(self, team_id: int, bib: Any, *, published_after: float | None = None) -> None:
        """Give the team another bib; None takes it away."""
        self.edit_team(team_id, team_bib_num=bib, published_after=published_after)

    def remove_team(self, team_id: int, *, published_after: float | None = None) -> None:
        """Delete a team; its members stay, in no team."""
        moves = self.quirks.team_removal_moves_members
        self._alter(team_id, {"removed": True}, published_after, moves)

    def _alter(
        self, team_id: int, fields: dict[str, Any], published_after: float | None, moves_members: bool
    ) -> None:
        with self.lock:
            self.settle()
            head = self.rosters.head(team_id)
            self._versions += 1
            now = int(self.clock.shown())
            team = replace(head, last_modified=now, number=self._versions, **fields)
            members = self.rosters.coming(head) if moves_members else ()
            self.rosters.change(team)
            self.publish(lambda: self.rosters.show(team), published_after)
            for number in members:
                self._change(self.registrations[number], published_after=published_after)

    def join_team(self, registration_id: int, team_id: int, *, published_after: float | None = None) -> None:
        """
        Put a registration into a team of its event, out of any other; both teams move, and it.

        Raises:
            ValueError: If the team is one of another event.
        """
        with self.lock:
            self.settle()
            event = self.registrations[registration_id].head.event_id
            if self.rosters.head(team_id).event_id != event:
                raise ValueError(f"team {team_id} is none of event {event}")
            self._put_into(registration_id, team_id, published_after)

    def leave_team(self, registration_id: int, *, published_after: float | None = None) -> None:
        """Take a registration out of its team; the team moves, and it."""
        with self.lock:
            self._put_into(registration_id, None, published_after)

    def _put_into(self, number: int, team_id: int | None, published_after: float | None) -> None:
        self._change(
            self.registrations[number],
            published_after=published_after,
            moves=self.quirks.edit_moves_last_modified,
            patch={"team_id": team_id},
            forget=TEAM_FIELDS,
        )


def _check(fields: Iterable[str]) -> None:
    if unknown := sorted(set(fields) - set(TEAM_FIELDS)):
        raise TypeError(f"a team has no fields {unknown}; it has {', '.join(TEAM_FIELDS)}")
