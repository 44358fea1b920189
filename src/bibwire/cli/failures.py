"""What a command could not do, told to people: without a network that is one thing, for all partners."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bibwire.engine.reports import SyncError, SyncProgress
    from bibwire.runtime import Runtime

NO_PARTNER = "No partner is stored yet. Add one with: bibwire partner add NAME --api-key KEY"


def out_of_reach(errors: Sequence[str]) -> str | None:
    """Return what to say once where RunSignup was not reached for some; None where it was for all."""
    from bibwire.domain.errors import VendorUnreachable

    return next((error for error in errors if error.startswith(VendorUnreachable.BEGINS)), None)


def rows(errors: Sequence[SyncError]) -> list[tuple[str, str, str]]:
    """Return partner, races and reason of what failed alike; for want of a network that is all of it."""
    lost = [error for error in errors if out_of_reach([error.error])]
    names = {error.partner for error in lost}
    found: dict[tuple[str, str], list[int]] = {}
    for error in errors:
        if error in lost:
            whose = error.partner if len(names) == 1 else f"{len(names):,} partners"
            found[whose, lost[0].error] = []
        else:
            races = found.setdefault((error.partner, error.error), [])
            if error.race_id is not None:
                races.append(error.race_id)
    return [(whose, ", ".join(map(str, races)) or "(all)", why) for (whose, why), races in found.items()]


def sentence(errors: Sequence[SyncError], done: str, again: str) -> str:
    """
    Say in a sentence what failed first, and how much more did.

    Args:
        done: What became of the command, for instance `nothing could be synced`.
        again: The sentence that says what to do then.
    """
    from bibwire.cli.terminal import counted, plain

    again = remedy(errors) or again
    found = rows(errors)
    reason = out_of_reach([error.error for error in errors])
    if reason is not None and len(found) == 1:
        names = {error.partner for error in errors}
        whose = plain(next(iter(names))) if len(names) == 1 else counted(len(names), "partner")
        return f"{reason}: {done} of {whose}. Check the network. {again}"
    partner, _, why = found[0]
    more = f" (and {len(found) - 1:,} more)" if len(found) > 1 else ""
    race_id = errors[0].race_id
    where = partner if race_id is None or errors[0].partner != partner else f"{partner}, race {race_id}"
    return f"{done}: {plain(where)}: {plain(why).rstrip('.')}{more}. {again}"


def remedy(errors: Sequence[SyncError]) -> str | None:
    """Return what helps where RunSignup rejects a key; None where it rejects none."""
    from bibwire.cli.terminal import plain
    from bibwire.domain.key_refusals import REFUSED, given_key
    from bibwire.store.partners import partner_command

    for error in errors:
        if given := given_key(error.error):
            return plain(given.remedy)
        if REFUSED in error.error:
            again = partner_command("rotate", error.partner, options="--api-key KEY")
            return f"Store a new key: {plain(again)}"
    return None


def with_trouble(watch: Callable[[SyncProgress], None] | None) -> Callable[[SyncProgress], None]:
    """Return `watch` that also says, once, that RunSignup is not reached and tried again."""
    told = False

    def tell(state: SyncProgress) -> None:
        nonlocal told
        if state.trouble and not told:
            from bibwire.cli.terminal import complain

            told = True
            complain(f"{state.trouble}; trying again ...", prefix="")
        if watch is not None:
            watch(state)

    return tell


def tell_nobody(idle: str | None) -> None:
    """Say on standard error that nothing was done: the wrong database, and a cron job that looks well."""
    from bibwire.cli.terminal import complain

    complain(idle or NO_PARTNER)


async def nobody(runtime: Runtime, partner: str | None = None) -> str | None:
    """Say why a command has no partner to work for, and what to do; None: it has one."""
    from bibwire.cli.terminal import plain
    from bibwire.store.partners import partner_command

    if await runtime.engine.chosen(partner):
        return None
    paused = [each.name for each in await runtime.partners.list()]
    if not paused:
        return NO_PARTNER
    which = "The only partner is" if len(paused) == 1 else f"All {len(paused):,} partners are"
    return f"{which} paused: nothing was done. Resume with: {plain(partner_command('resume', paused[0]))}"
