"""
The vendor's endpoints that Bibwire uses: one entry each.

Only what never varies between calls is here. `page` names the vendor's documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Endpoint:
    """
    One endpoint.

    `name` is what permits and call reports say; `page_size` the most rows asked at once,
    which is also the most the vendor allows.
    """

    name: str
    path: str
    fixed: Mapping[str, str]
    page_size: int | None
    page: str

    def path_for(self, race_id: int | None = None) -> str:
        return self.path if race_id is None else self.path.format(race_id=race_id)


def _fixed(**parameters: str) -> Mapping[str, str]:
    # Without format=json the vendor answers XML.
    return MappingProxyType({"format": "json", **parameters})


RACES: Final = Endpoint(
    name="races",
    path="/races",
    # events=T: no call per race. Sorted by date ascending, races that appear while the list is
    # being read mostly come after the page that is read.
    fixed=_fixed(events="T", sort="date ASC"),
    page_size=1000,
    page="https://runsignup.com/API/races/GET",
)

RACE: Final = Endpoint(
    name="race",
    path="/race/{race_id}",
    fixed=_fixed(),
    page_size=None,
    page="https://runsignup.com/API/race/:race_id/GET",
)

PARTICIPANTS: Final = Endpoint(
    name="participants",
    path="/race/{race_id}/participants",
    # supports_nb=T: without it the gender X is misreported.
    fixed=_fixed(supports_nb="T", sort="registration_id ASC"),
    page_size=2500,
    page="https://runsignup.com/API/race/:race_id/participants/GET",
)

REMOVED_PARTICIPANTS: Final = Endpoint(
    name="removed-participants",
    path="/race/{race_id}/removed-participants",
    fixed=_fixed(supports_nb="T", sort="registration_id ASC"),
    page_size=2500,
    page="https://runsignup.com/API/race/:race_id/removed-participants/GET",
)

PARTICIPANT_COUNTS: Final = Endpoint(
    name="participant-counts",
    path="/race/{race_id}/participant-counts",
    fixed=_fixed(),
    page_size=None,
    page="https://runsignup.com/API/race/:race_id/participant-counts/GET",
)

TEAMS: Final = Endpoint(
    name="teams",
    path="/race/{race_id}/teams",
    fixed=_fixed(),
    # No most is documented: the least of those that are, so that it is not refused.
    page_size=1000,
    page="https://runsignup.com/API/race/:race_id/teams/GET",
)

ALL: Final = (RACES, RACE, PARTICIPANTS, REMOVED_PARTICIPANTS, PARTICIPANT_COUNTS, TEAMS)
