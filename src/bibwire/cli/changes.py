"""One change of a feed as a line for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bibwire.cli.terminal import bib, person, plain

if TYPE_CHECKING:
    from rich.text import Text

    from bibwire.store.reports import Change

STYLES = {
    "loaded": "cyan",
    "history_loaded": "cyan",
    "registered": "blue",
    "edited": "default",
    "bib_assigned": "green",
    "bib_changed": "magenta",
    "bib_cleared": "yellow",
    "removed": "red",
    "restored": "blue",
}
# Our own book-keeping, which says nothing to people.
_SILENT = ("last_modified_at", "removed_at", "removed_reason")


def describe(change: Change) -> Text:
    """Return the time, what happened, to whom, and where."""
    from rich.text import Text

    text = Text(f"{change.seen_at.astimezone():%H:%M:%S} ")
    text.append(f"{change.kind.replace('_', ' '):<13} ", style=STYLES.get(change.kind, "default"))
    if change.registration_id is None:
        text.append(f"{plain(change.race)} ({change.race_id}) · {plain(change.partner)}")
        return text
    text.append(plain(person(change.first_name, change.last_name)), style="bold")
    text.append(plain(_detail(change)))
    place = ", ".join(part for part in (change.event, change.race) if part)
    text.append(f"  {plain(place)} · {plain(change.partner)}", style="dim")
    return text


def _detail(change: Change) -> str:
    if change.kind == "removed":
        reason = change.fields.get("removed_reason", [None, None])[1]
        freed = "" if change.bib_from is None else f", bib {bib(change.bib_from)} is free"
        return f" {reason or 'left'}{freed}"
    if change.moves_bib:
        before = "" if change.bib_from is None else f", had {bib(change.bib_from)}"
        return f" bib {bib(change.bib_to)}{before}"
    if change.kind == "edited":
        names = [name for name in change.fields if name not in _SILENT]
        return f" {', '.join(names)}" if names else ""
    return ""
