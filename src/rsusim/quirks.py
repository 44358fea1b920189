"""
Every switchable habit of the simulated vendor, by name.

Defaults are what the reference holds for most likely. A test sets `world.quirks.<name>`; the
control path and `--quirk NAME=VALUE` set the same names from text. A fault of kind "quirk" sets
some of them for one call only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, get_args, get_type_hints


@dataclass(slots=True)
class Quirks:
    """Numbers in parentheses are sections of the API reference."""

    # Formats (1, 19.1, 19.4)
    format_default: str = "xml"  # what is answered when `format` is missing: xml | json
    wire_escapes: bool = True  # `\/` and `\uXXXX`; False: plain UTF-8
    gzip: bool = True  # negotiated, bodies over 1 KiB
    date_header: bool = True
    date_offset_seconds: float = 0.0  # the Date header is this far off the world's clock
    # Seconds of real time before the rows are read, and between reading and sending.
    latency_seconds: float = 0.0
    latency_after_reading_seconds: float = 0.0
    world_seconds_after_reading: float = 0.0  # the same on the world's clock: the Date is that much later

    # Errors and rights (2, 3, 4, 19.9, 20)
    caller_registration: str = "optional"  # ignored | optional | required
    caller_registration_status: int = 400
    error_order: str = "key,race,rights,event,params"  # the first that applies is answered
    combined_schemes: str = "refused"  # refused | first
    bad_key_on_public: str = "refused"  # refused | ignored: GET races then lists public races
    missing_key_error: int = 7  # participants without any credentials
    race_needs_rights: bool = False  # GET race/:id refuses an account without rights
    lost_rights: str = "error"  # error | empty: withdrawn access answers an empty list
    unknown_event_in_list: str = "error"  # error | skip
    echo_credentials: bool = False  # every error text repeats what the caller sent
    error_as_string: bool = False  # {"error": "text", "details": {}}

    # Throttling (3, 19.10)
    throttle: str = "off"  # off | error14 | http429 | http429_retry_after
    max_in_flight: int = 2
    retry_after_seconds: int = 2

    # Pages (8, 19.6)
    participants_default_page: int = 50
    participants_max_page: int = 2500
    races_max_page: int = 1000
    races_most: int = 0  # a list of races ends after so many, with empty pages from there on; 0: it does not
    page_size_excess: str = "clamp"  # clamp | error3
    page_cap: int = 0  # a lower cap nobody documented; 0 is none
    event_cap: int = 0  # the most rows of one event a list of several shows on a page; 0 is none
    list_order: str = "id"  # id | event: over several events, rows by event and then by id
    default_sort: str = "registration_id ASC"
    sort: str = "honoured"  # honoured | ignored: rows come by `default_sort`, whatever was asked
    after_registration_id: str = "honoured"  # honoured | ignored
    modified_after: str = "honoured"  # honoured | ignored
    modified_after_inclusive: bool = True
    after_registration_id_strict: bool = True
    bad_number: str = "error3"  # error3 | ignored: a number parameter that is no integer

    # Shapes (8, 9, 19.3, 19.7, 19.13)
    participants_key_when_empty: str = "absent"  # absent | empty
    removed_when_empty: str = "empty_list"  # empty_list | no_participants | no_event | no_elements
    # PHP writes an empty object as []; `event` of an event without rows, in both lists
    event_when_empty: str = "object"  # object | array | null
    layout: str = "per_event"  # per_event | object | together
    comma_list: str = "honoured"  # honoured | first_only | first_two | foreign_rows
    race_in_array: bool = False
    unknown_fields: bool = False
    ints_as_strings: str = "off"  # off | some | all
    transaction_id_as_int: bool = False
    absent_keys: bool = True  # False: null in place of a missing email, gender, phone
    gender_x_without_supports_nb: str = "null"  # null | absent | empty | M | F
    money_negative: str = "minus"  # minus: -$5.00 | parentheses: ($5.00)

    # Teams: the reference documents neither their envelope nor their page sizes (14)
    teams_default_page: int = 50
    teams_max_page: int = 1000
    # flat: {"teams":[]}; the others have an element an event: per_event: [{"event":{},"teams":[]}], as
    # participants; inside: [{"event":{"teams":[]}}], as removed; events: {"events":[{"teams":[]}]}
    teams_layout: str = "flat"  # flat | per_event | inside | events
    teams_key_when_empty: str = "empty"  # empty | absent
    teams_event_id: bool = False  # a row names its event
    teams_bib: str = "int"  # int | text
    teams_no_bib: str = "null"  # null | empty | absent
    teams_count: str = "int"  # int | text
    teams_modified_since: str = "seconds"  # seconds | day | ignored: day is Eastern, as of GET races
    teams_since_inclusive: bool = True
    teams_change_order: str = "ascending"  # ascending | descending: with modified_since
    teams_group_sizes: str = "row"  # row | beside | ignored: where include_group_sizes is answered

    # What moves, and when it is seen (11, 19.8)
    publication_delay_seconds: float = 0.0  # every change is seen this much later
    bib_moves_last_modified: bool = True
    edit_moves_last_modified: bool = True
    team_edit_moves_members: bool = False  # a team's rename or bib moves its members' last_modified (14)
    team_removal_moves_members: bool = False
    removed_stays_listed_seconds: float = 0.0  # the active list drops a removed row this late
    restored_stays_removed: bool = False  # the removed list never drops a row that is active again
    deferral_makes_new: bool = False
    counts_off_by: int = 0  # participant-counts lie by this many
    counts_bundle_rows: bool = True
    one_year_window: str = "off"  # off | empty | error: participants of events over a year old

    def set(self, name: str, value: Any) -> None:
        """
        Set one quirk, turning text into the type it needs.

        Raises:
            ValueError: If there is no such quirk, or the text is none of its type.
        """
        if name not in _TYPES:
            raise ValueError(f"no quirk {name!r}; there are: {', '.join(sorted(_TYPES))}")
        value = _convert(name, _TYPES[name], value)
        if name in CHOICES and value not in CHOICES[name]:
            raise ValueError(f"{name} is one of {', '.join(CHOICES[name])}, not {value!r}")
        if name == "error_order" and not CHECKS.issuperset(part.strip() for part in value.split(",")):
            raise ValueError(f"error_order names {', '.join(sorted(CHECKS))}, not {value!r}")
        setattr(self, name, value)

    def with_changes(self, changes: Mapping[str, Any]) -> "Quirks":
        """Return a copy with `changes`, leaving this one as it is."""
        copy = replace(self)
        for name, value in changes.items():
            copy.set(name, value)
        return copy

    def as_dict(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


CHECKS = frozenset({"key", "race", "rights", "event", "params"})
CHOICES: dict[str, tuple[str, ...]] = {
    "format_default": ("xml", "json"),
    "caller_registration": ("ignored", "optional", "required"),
    "combined_schemes": ("refused", "first"),
    "bad_key_on_public": ("refused", "ignored"),
    "lost_rights": ("error", "empty"),
    "unknown_event_in_list": ("error", "skip"),
    "throttle": ("off", "error14", "http429", "http429_retry_after"),
    "page_size_excess": ("clamp", "error3"),
    "modified_after": ("honoured", "ignored"),
    "sort": ("honoured", "ignored"),
    "after_registration_id": ("honoured", "ignored"),
    "bad_number": ("error3", "ignored"),
    "participants_key_when_empty": ("absent", "empty"),
    "removed_when_empty": ("empty_list", "no_participants", "no_event", "no_elements"),
    "event_when_empty": ("object", "array", "null"),
    "layout": ("per_event", "object", "together"),
    "teams_layout": ("flat", "per_event", "inside", "events"),
    "teams_key_when_empty": ("empty", "absent"),
    "teams_bib": ("int", "text"),
    "teams_no_bib": ("null", "empty", "absent"),
    "teams_count": ("int", "text"),
    "teams_modified_since": ("seconds", "day", "ignored"),
    "teams_change_order": ("ascending", "descending"),
    "teams_group_sizes": ("row", "beside", "ignored"),
    "list_order": ("id", "event"),
    "comma_list": ("honoured", "first_only", "first_two", "foreign_rows"),
    "ints_as_strings": ("off", "some", "all"),
    "gender_x_without_supports_nb": ("null", "absent", "empty", "M", "F"),
    "money_negative": ("minus", "parentheses"),
    "one_year_window": ("off", "empty", "error"),
}

_TYPES: dict[str, Any] = get_type_hints(Quirks)


def _convert(name: str, kind: Any, value: Any) -> Any:
    if kind is bool and isinstance(value, str):
        word = value.strip().lower()
        if word in ("t", "true", "1", "yes", "on"):
            return True
        if word in ("f", "false", "0", "no", "off"):
            return False
        raise ValueError(f"{name} is true or false, not {value!r}")
    if kind is bool and isinstance(value, bool):
        return value
    if kind is not bool and isinstance(value, bool):
        raise ValueError(f"{name} takes {getattr(kind, '__name__', get_args(kind))}, not a bool")
    try:
        return kind(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} does not take {value!r}") from error
