"""
What the world is made of: races, events, registrations and their versions.

A registration is small: who it is (`who`, from which `people` derives a whole person), when it was
made, and two versions: `head`, how it stands, and `shown`, what readers see of it. A version is
never changed, only replaced, so that its encoded row can be kept with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

ACTIVE: Final = "active"
REMOVED: Final = "removed"
VANISHED: Final = "vanished"
MOST_TEAMS: Final = 100  # derived of one event; their ids count up from a hundred times its id


class Absent:
    """The type of ABSENT: the key is left out of the answer (section 8)."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent()
NO_PATCH: Final[Mapping[str, Any]] = {}

USER_FIELDS: Final = (
    "user_id",
    "first_name",
    "middle_name",
    "last_name",
    "email",
    "street",
    "city",
    "state",
    "zipcode",
    "country_code",
    "dob",
    "gender",
    "phone",
    "profile_image_url",
)
MONEY_FIELDS: Final = (
    "race_fee",
    "offline_payment_amount",
    "processing_fee",
    "processing_fee_paid_by_user",
    "processing_fee_paid_by_race",
    "partner_fee",
    "affiliate_profit",
    "extra_fees",
    "amount_paid",
    "usatf_discount_amount_in_cents",
)
PLAIN_FIELDS: Final = (
    "rsu_transaction_id",
    "transaction_id",
    "bib_num",
    "chip_num",
    "age",
    "team_id",
    "team_name",
    "team_type_id",
    "team_type",
    "team_gender",
    "team_bib_num",
    "imported",
    "usatf_discount_additional_field",
    "giveaway",
    "giveaway_option_id",
)
# Not of the row itself: answers and add-ons need a flag, a check-in has its own method, `extra` is
# a dict of fields the reference does not know, and `raw` is JSON text served instead of the row.
OTHER_FIELDS: Final = ("question_responses", "participant_addons", "checkin_ts", "extra", "raw")
EDITABLE: Final = frozenset(USER_FIELDS + MONEY_FIELDS + PLAIN_FIELDS + OTHER_FIELDS)


class Version:
    """How a registration stands after one change. Instants are epoch seconds, whole."""

    __slots__ = (
        "bib_num",
        "cache",
        "cache_key",
        "event_id",
        "last_modified",
        "new_id",
        "number",
        "patch",
        "reason",
        "status",
    )

    def __init__(
        self,
        number: int,
        event_id: int,
        last_modified: int,
        bib_num: Any = None,
        patch: Mapping[str, Any] = NO_PATCH,
        status: str = ACTIVE,
        reason: str | None = None,
        new_id: int | None = None,
    ) -> None:
        self.number = number
        self.event_id = event_id
        self.last_modified = last_modified
        self.bib_num = bib_num
        self.patch = patch
        self.status = status
        self.reason = reason
        self.new_id = new_id
        self.cache: bytes | None = None
        self.cache_key = 0


class Registration:
    """
    One person in one event.

    Attributes:
        who: The person, whom `people` derives; the same number is the same person.
        registered_at: Epoch seconds.
        parent: Registration id of the bundle that made this one, or None.
        head: How it stands.
        shown: What readers see; None until it is published.
    """

    __slots__ = ("head", "parent", "registered_at", "registration_id", "shown", "who")

    def __init__(
        self, registration_id: int, who: int, registered_at: int, parent: int | None, head: Version
    ) -> None:
        self.registration_id = registration_id
        self.who = who
        self.registered_at = registered_at
        self.parent = parent
        self.head = head
        self.shown: Version | None = None


TEAM_FIELDS: Final = (
    "team_name",
    "team_type_id",
    "team_type",
    "team_age_restriction_id",
    "team_gender",
    "team_bib_num",
)


@dataclass(frozen=True, slots=True)
class Team:
    """
    A team of one event as it stands after one change (section 14).

    Attributes:
        team_gender: "", M, F or C.
        last_modified: Epoch seconds of its own last change; members who come or go move what
            readers see of it further, see `rosters`.
        number: Ascends with every change in the world; 0 as it was derived.
        removed: It is not listed any more, and nobody is in it.
    """

    team_id: int
    event_id: int
    team_name: str
    last_modified: int
    team_type_id: int | None = 7701
    team_type: str | None = "Family Team"
    team_age_restriction_id: int | None = None
    team_gender: str = ""
    team_bib_num: Any = None
    number: int = 0
    removed: bool = False


@dataclass(slots=True)
class Period:
    """A registration period; instants are epoch seconds, fees are cents."""

    opens: int
    closes: int
    race_fee: int
    processing_fee: int


@dataclass(slots=True)
class Event:
    """One distance in one year. `start` and `end` are naive, in the race's zone (section 5)."""

    event_id: int
    race_id: int
    race_event_days_id: int
    name: str
    start: datetime
    end: datetime | None
    starts_at: int
    distance: str | None
    registration_opens: int
    periods: list[Period]
    details: str | None = None
    event_type: str = "running_race"
    volunteer: bool = False
    require_dob: bool = True
    require_phone: bool = False
    participant_cap: int | None = None
    previous_year_event_id: int | None = None
    sub_event_ids: list[int] = field(default_factory=list)
    giveaway: str | None = None
    giveaway_options: list[tuple[int, str, int]] = field(default_factory=list)  # id, text, cents
    team_count: int = 0  # derived teams, at most MOST_TEAMS; `add_team` adds more
    chip_is_bib: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    published: bool = True


@dataclass(slots=True)
class EventDays:
    """The days of one year: `race_event_days_id` groups the events of it (section 5)."""

    race_event_days_id: int
    first: date
    last: date
    event_ids: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Race:
    """The organiser's lasting page: the same `race_id` every year."""

    race_id: int
    name: str
    timezone: str
    zone: ZoneInfo
    created: int
    last_modified: int
    description: str
    url: str
    address: dict[str, Any]
    external_race_url: str | None = None
    external_results_url: str | None = None
    fb_page_id: str | None = None
    fb_event_id: str | None = None
    logo_url: str | None = None
    is_draft_race: bool = False
    is_private_race: bool = False
    is_registration_open: bool = True
    can_use_registration_api: bool = False
    real_time_notifications_enabled: bool = False
    days: list[EventDays] = field(default_factory=list)
    event_ids: list[int] = field(default_factory=list)
    questions: list[dict[str, Any]] = field(default_factory=list)
    addons: list[tuple[int, str, int]] = field(default_factory=list)  # id, name, cents
    extra: dict[str, Any] = field(default_factory=dict)
    removed: bool = False
