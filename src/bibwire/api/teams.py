"""
A teams answer -> a page of teams. Pure: no I/O and no clock.

What stands around the rows is not documented, so two layouts are read: an object with `teams`, and
an array with an element an event, as participants come; the rows beside `event` or inside it. A row
may name its event or not. Pages are numbered: one that is full asks for the next.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final

import msgspec

from bibwire.api.answers import first_sign, without_bom
from bibwire.api.apart import step
from bibwire.api.exact import decode_storable, plain_int
from bibwire.api.fields import int4, positive, take, take_bib, take_text
from bibwire.api.outline import MOST_ROWS, Outline, is_light, outline
from bibwire.api.paging import Fullness
from bibwire.domain.errors import AnswerUnreadable, BadRecord, ListingNotTrusted
from bibwire.domain.instants import from_epoch
from bibwire.domain.records import Team, TeamPage, UnreadableRow

# PHP knows one empty array for lists and objects.
_NoList = Annotated[list[Any], msgspec.Meta(max_length=0)]
_NoObject = Annotated[dict[str, Any], msgspec.Meta(max_length=0)]
_Rows = list[msgspec.Raw] | _NoObject | None


class _EventPart(msgspec.Struct):
    event_id: Any = None
    teams: _Rows = None


class _Element(msgspec.Struct):
    event: _EventPart | _NoList | None = None
    teams: _Rows = None


_elements: Final = msgspec.json.Decoder(list[_Element])
_one_element: Final = msgspec.json.Decoder(_Element)


@dataclass(slots=True)
class Cut:
    """
    The teams of one answer, each once, with their text as sent.

    `received` counts every record as it stands there: by it a full page is told, and to ask once
    more is better than to stop too soon. `faults` are what could not be kept as sent of teams that are.
    """

    rows: list[tuple[Team, bytes]] = field(default_factory=list)
    unreadable: list[UnreadableRow] = field(default_factory=list)
    received: int = 0
    faults: list[UnreadableRow] = field(default_factory=list)


def cut(body: bytes, asked_event_ids: Collection[int]) -> Cut:
    """
    Read an answer's teams; a row that cannot be read is in `unreadable`.

    A row's own `event_id` wins. Without one it is the enclosing element's where that can be
    trusted: one event was asked for, or there are several elements.

    Raises:
        AnswerUnreadable: If the body is not of a known shape.
    """
    body = without_bom(body)
    parts: Outline | None = None
    elements = _decode_elements(body) if is_light(body) else None
    if elements is None and (parts := outline(body)) is not None:
        elements = _decode_elements(parts.frame)
    if elements is None:
        raise AnswerUnreadable("the vendor's answer is not a list of teams")

    only_asked = next(iter(asked_event_ids)) if len(asked_event_ids) == 1 else None
    result = Cut()
    found: dict[int, tuple[Team, bytes]] = {}
    for element in elements:
        event = element.event if isinstance(element.event, _EventPart) else None
        enclosing = only_asked
        if event is not None and (only_asked is not None or len(elements) > 1):
            named = positive(event.event_id)
            enclosing = named if named is not None else only_asked
        if result.received > MOST_ROWS:
            raise AnswerUnreadable("the vendor's answer has far more teams than were asked for")
        inside = event.teams if event is not None else None
        for rows in (inside, element.teams):  # in the order they stand on the wire
            for slice_ in rows if isinstance(rows, list) else ():
                step()
                result.received += 1
                raw = bytes(slice_) if parts is None else parts.row(slice_)
                try:
                    team, problems = decode_team_storable(raw, enclosing)
                    _add(found, team, raw)
                except BadRecord as error:
                    result.unreadable.append(UnreadableRow(str(error), raw))
                else:
                    if problems:
                        reason = f"team {team.team_id} is kept without it: {'; '.join(problems)}"
                        result.faults.append(UnreadableRow(reason, raw))
    result.rows = list(found.values())
    return result


def decode_team(raw: bytes, event_id: int | None = None) -> Team:
    """Return a team, as `decode_team_storable` does."""
    return decode_team_storable(raw, event_id)[0]


def decode_team_storable(raw: bytes, event_id: int | None = None) -> tuple[Team, list[str]]:
    """
    Return a team, and what of it could not be kept as sent.

    Args:
        event_id: The event the answer's envelope names, if it does; the row's own wins.

    Raises:
        BadRecord: If it has no usable id; the reason names nobody.
    """
    record, problems = decode_storable(raw)
    wrapped = record.get("team")
    if "team_id" not in record and type(wrapped) is dict:  # as the vendor wraps races in their list
        record = wrapped
    team_id = positive(record.pop("team_id", None))
    if team_id is None:
        raise BadRecord("the team_id is missing or not a positive 64-bit number")
    own_event_id = record.pop("event_id", None)
    if own_event_id is not None:
        event_id = positive(own_event_id)
        if event_id is None:
            raise BadRecord("the event_id is not a positive 64-bit number")
    team = Team(
        team_id=team_id,
        event_id=event_id,
        name=take_text(record, "team_name"),
        team_type_id=take(record, "team_type_id", plain_int),
        gender=take_text(record, "team_gender"),
        bib_num=take_bib(record, "team_bib_num"),
        member_count=take(record, "team_member_current_count", int4),
        last_modified_at=take(record, "last_modified_ts", from_epoch),
        additional_data=record,
    )
    return team, problems


def page_of(
    cut: Cut, *, asked_event_ids: Collection[int], number: int, fullness: Fullness, shown: set[object]
) -> TeamPage:
    """
    Return what was cut as the page of that number.

    Args:
        shown: What earlier pages of the walk showed; this one's is added.

    Raises:
        AnswerUnreadable: If a full page shows nothing new, for then the walk would not end.
        ListingNotTrusted: If several events were asked for and teams of others came.
    """
    asked = frozenset(asked_event_ids)
    teams = [team for team, _ in cut.rows if team.event_id is None or team.event_id in asked]
    unreadable = list(cut.unreadable)
    if len(teams) < len(cut.rows):
        if len(asked) > 1:
            raise ListingNotTrusted("the vendor sent teams of events that were not asked for")
        unreadable += [
            UnreadableRow("event not asked for", raw)
            for team, raw in cut.rows
            if team.event_id is not None and team.event_id not in asked
        ]

    is_full = fullness.is_full(cut.received)
    new = {team.team_id for team, _ in cut.rows} | {row.raw for row in cut.unreadable}
    if is_full and new <= shown:
        raise AnswerUnreadable("the vendor sends the same page of teams again and again")
    shown |= new
    return TeamPage(
        teams=teams,
        unreadable=unreadable,
        number=number,
        full=fullness.length,
        is_last=not is_full,
        faults=cut.faults,
    )


def _add(found: dict[int, tuple[Team, bytes]], team: Team, raw: bytes) -> None:
    known, known_raw = found.setdefault(team.team_id, (team, raw))
    if known is team or known == team:
        return
    if known_raw != raw:
        raise BadRecord("the team_id stands twice in one answer, with different content")
    # The same record under two events: which of them it is of, nobody says.
    found[team.team_id] = replace(known, event_id=None), raw


def _decode_elements(body: bytes) -> list[_Element] | None:
    """Return the elements of an answer; None if it is of another shape."""
    sign = first_sign(body)
    try:
        if sign == b"[":
            elements = _elements.decode(body)
        elif sign == b"{":
            elements = [_one_element.decode(body)]
        else:
            return None
    except (ValueError, RecursionError):
        return None
    # Without an event and a place for rows it is of another kind, or an error of a new form.
    return elements if all((each.event, each.teams) != (None, None) for each in elements) else None
