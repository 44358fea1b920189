"""
A participants answer -> its rows, as raw JSON with their two ids. Pure.

Only the ids are decoded; the rest of a record is read when somebody wants it. Where the rows
stand differs (docs/vendor-api.md, "Participants" and "Removed participants"): beside `event`
for participants, inside it for removed ones, the keys missing or empty when there are none; an
array with one element an event, or a bare object with the rows of all. All are read the same way.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import msgspec

from bibwire.api.answers import first_sign, without_bom
from bibwire.api.apart import step
from bibwire.api.exact import is_bounded, plain_int, storable
from bibwire.api.outline import MOST_ROWS, Outline, is_light, outline
from bibwire.domain.errors import AnswerUnreadable
from bibwire.domain.records import RawRow, UnreadableRow

_ROWS_A_STEP: Final = 64
TEMPLATE_ID: Final = -1  # the vendor's blank form, never a person


# PHP knows one empty array for lists and objects: `[]`, `{}` and null are nothing, where rows or
# an event may be. Whatever has something in it must be what it should be.
_NoList = Annotated[list[Any], msgspec.Meta(max_length=0)]
_NoObject = Annotated[dict[str, Any], msgspec.Meta(max_length=0)]
_Rows = list[msgspec.Raw] | _NoObject | None


class _EventPart(msgspec.Struct):
    event_id: Any = None
    participants: _Rows = None


class _Element(msgspec.Struct):
    event: _EventPart | _NoList | None = None
    participants: _Rows = None

    @property
    def is_known(self) -> bool:
        """It has what an element has; if not, it may be nothing, or an error of a new form."""
        return isinstance(self.event, _EventPart) or isinstance(self.participants, list)


_KEYS: Final = frozenset(_Element.__struct_fields__)


class _Ids(msgspec.Struct, gc=False):
    registration_id: Any = None
    event_id: Any = None


_elements: Final = msgspec.json.Decoder(list[_Element])
_slices: Final = msgspec.json.Decoder(list[msgspec.Raw])
_keys: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_one_element: Final = msgspec.json.Decoder(_Element)
_ids: Final = msgspec.json.Decoder(_Ids)


@dataclass(slots=True)
class Cut:
    """
    The rows of one answer.

    `rows` ascend by registration id, each id once. `received` counts every record of the
    answer, readable or not, by which a full page is told; the template is not one.
    `in_order`: the vendor sent each event's rows in ascending order, as was asked.
    `last_id` is the largest id in the answer, None without any.
    """

    rows: list[RawRow] = field(default_factory=list)
    unreadable: list[UnreadableRow] = field(default_factory=list)
    received: int = 0
    in_order: bool = True
    last_id: int | None = None


def cut(body: bytes, asked_event_ids: Collection[int]) -> Cut:
    """
    Cut an answer of participants or removed participants into its rows.

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
        raise AnswerUnreadable("the vendor's answer is not a list of participants by event")

    only_asked = next(iter(asked_event_ids)) if len(asked_event_ids) == 1 else None
    result = Cut()
    by_id: dict[int, RawRow] = {}
    for element in elements:
        event = element.event if isinstance(element.event, _EventPart) else None
        enclosing = only_asked
        if event is not None and (only_asked is not None or len(elements) > 1):
            named = plain_int(event.event_id)
            enclosing = named if named is not None else only_asked
        inside = event.participants if event is not None else None
        for raws in (inside, element.participants):  # in the order they stand on the wire
            if isinstance(raws, list):
                _cut_list(raws, enclosing, parts, by_id, result)
        if result.received > MOST_ROWS:
            raise AnswerUnreadable("the vendor's answer has far more rows than were asked for")
    result.rows = [by_id[key] for key in sorted(by_id)]
    result.last_id = result.rows[-1].registration_id if result.rows else None
    return result


def _cut_list(
    raws: Sequence[msgspec.Raw],
    enclosing: int | None,
    parts: Outline | None,
    by_id: dict[int, RawRow],
    result: Cut,
) -> None:
    last = 0
    decode = _ids.decode
    for number, slice_ in enumerate(raws):
        if number % _ROWS_A_STEP == 0:
            step()
        raw = bytes(slice_) if parts is None else parts.row(slice_)
        try:
            ids = decode(raw) if parts is None else _ids_of(raw)
        except (ValueError, RecursionError):
            result.received += 1
            result.unreadable.append(UnreadableRow("the row is not a JSON object", raw))
            continue
        registration_id = ids.registration_id
        if type(registration_id) is not int or not 0 < registration_id < 1 << 63:
            registration_id = plain_int(registration_id)
            if registration_id == TEMPLATE_ID:
                continue
            if registration_id is None or registration_id <= 0:
                result.received += 1
                reason = "the row's registration_id is missing or not a positive 64-bit number"
                result.unreadable.append(UnreadableRow(reason, raw))
                continue
        event_id = ids.event_id
        if event_id is None:
            event_id = enclosing
        elif type(event_id) is not int or not 0 < event_id < 1 << 63:
            event_id = plain_int(event_id)
            if event_id is None or event_id <= 0:
                result.received += 1
                reason = "the row's event_id is not a positive 64-bit number"
                result.unreadable.append(UnreadableRow(reason, raw))
                continue
        if registration_id < last:
            result.in_order = False
        last = registration_id
        row = RawRow(registration_id, event_id, raw)
        if (earlier := by_id.setdefault(registration_id, row)) is not row:
            if earlier.raw == raw:
                continue  # the same record in both places counts once
            reason = "the registration_id stands twice in one answer, with different content"
            result.unreadable.append(UnreadableRow(reason, raw))
        result.received += 1


def _ids_of(raw: bytes) -> _Ids:
    """Return the ids of a row in which there may be what no database can hold; it is refused later."""
    if not is_bounded(raw):
        raise ValueError("too large to be read")
    try:
        return _ids.decode(raw)
    except (ValueError, RecursionError):
        return _ids.decode(storable(raw)[0])


def _decode_elements(body: bytes) -> list[_Element] | None:
    sign = first_sign(body)
    try:
        if sign == b"[":
            elements = _elements.decode(body)
            if all(element.is_known for element in elements):
                return elements
            slices = _slices.decode(body)
            if all(
                element.is_known or _keys.decode(slice_).keys() <= _KEYS
                for element, slice_ in zip(elements, slices, strict=True)
            ):
                return elements
        elif sign == b"{":
            element = _one_element.decode(body)
            if element.is_known or {"event"} <= _keys.decode(body).keys() <= _KEYS:
                return [element]
    except (ValueError, RecursionError):
        pass
    return None
