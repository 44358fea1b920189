"""
Whether a command's exit code is true: 0 only if all was done, and never where nothing could be done.

What was done is read off RunSignup's log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.seasons.watch import READ_ALL_THE_SAME, may_be_old

if TYPE_CHECKING:
    from tests.seasons.season import Season
    from tests.seasons.watch import Watch

# What a command reads of each race before it may say that all is well; None: of one race at least.
READS: Final[dict[str, frozenset[str] | None]] = {
    "sync": frozenset({"participants"}),
    # A race whose counts are what the mirror has is not listed.
    "reconcile": frozenset({"participants", "participant-counts"}),
    "verify": None,
}


class Exits:
    """The exit codes of one season's commands."""

    def __init__(self, season: Season, watch: Watch) -> None:
        self._season = season
        self._watch = watch

    def is_true(self, command: str, code: int, name: str, began: float) -> None:
        """Check the code with which a command for a partner has just ended that began at an instant."""
        if code != 0 or name not in self._watch.partners:
            return
        season, now = self._season, self._season.now.timestamp()
        answered = {
            (info.endpoint, info.race_id)
            for info in season.world.log.requests
            if info.at >= began
            and info.account == name
            and info.status == 200
            and info.error is None
            and info.fault in READ_ALL_THE_SAME
        }
        with season.world:
            races = [
                race.race_id
                for race in season.world.truth(name)
                if may_be_old(race, began) is not None
                and may_be_old(race, now) is not None
                # Until then no list has told of it.
                and self._watch.known_at(name, race.race_id) < began
            ]
        reads = READS[command]
        if reads is None:
            assert answered or not races, (
                f"{command} of {name} says that all is well, and nothing was answered"
            )
            return
        for race in races:
            assert any((endpoint, race) in answered for endpoint in reads), (
                f"{command} of {name} says that all is well, and race {race} was not read"
            )
