"""
A registration as a row of JSON (sections 8 and 9), or a team (14), with every quirk that bends a row.

An encoded active row is kept with its version, under a key of all that shaped it, so that a page
asked for again costs a join. `warm` does that ahead, for who measures something else.
"""

from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from rsusim import people, wire
from rsusim.quirks import Quirks
from rsusim.races import UNKNOWN_FIELD
from rsusim.records import ABSENT, MONEY_FIELDS, Registration, Version
from rsusim.rosters import Standing

if TYPE_CHECKING:
    from rsusim.params import Params
    from rsusim.world import World

_MONEY: Final = itemgetter(*MONEY_FIELDS)
_USER: Final = ("dob", "gender", "phone", "profile_image_url")
GROUP_SIZES: Final = {"min_size": 2, "max_size": 10}  # names are nowhere documented
_SOME: Final = frozenset({"question_id", "bib_num", "user_id", "age", "team_id"})


@dataclass(frozen=True, slots=True)
class Options:
    """What the request asked to see of each row."""

    supports_nb: bool = False
    questions: bool = False
    addons: bool = False
    fundraisers: bool = False
    bundle_info: bool = False
    anonymous: bool = False

    @classmethod
    def of(cls, params: "Params") -> "Options":
        return cls(
            supports_nb=params.flag("supports_nb"),
            questions=params.flag("include_questions"),
            addons=params.flag("include_registration_addons"),
            fundraisers=params.flag("include_fundraisers"),
            bundle_info=params.flag("include_multi_race_bundle_info"),
            anonymous=params.flag("include_user_anonymous_flag"),
        )


class Rows:
    """Encodes rows for one request."""

    def __init__(self, world: "World", quirks: Quirks, options: Options) -> None:
        self._world = world
        self._quirks = quirks
        self._options = options
        self._plain = not (options.questions or options.addons or options.fundraisers or options.bundle_info)
        self._key = hash(
            (
                options.supports_nb,
                options.anonymous,
                world.generation,
                quirks.wire_escapes,
                quirks.unknown_fields,
                quirks.ints_as_strings,
                quirks.transaction_id_as_int,
                quirks.absent_keys,
                quirks.gender_x_without_supports_nb,
                quirks.money_negative,
            )
        )

    def active(self, number: int) -> bytes:
        """Return the encoded row of an active registration as readers see it."""
        registration = self._world.registrations[number]
        version = self._world.lingering.get(number) or registration.shown
        assert version is not None, "a listed registration is published"
        raw = version.patch.get("raw")
        if raw is not None:
            return str(raw).encode("utf-8", "surrogatepass")
        if version.cache is None or version.cache_key != self._key:
            row = self._bend(self._active(registration, version))
            version.cache = wire.encode(row, self._quirks.wire_escapes)
            version.cache_key = self._key
        if self._plain:
            return version.cache
        more = self._stringified(self._optional(registration, version))
        return version.cache[:-1] + b"," + wire.encode(more, self._quirks.wire_escapes)[1:]

    def _active(self, registration: Registration, version: Version) -> dict[str, Any]:
        flat = self._world.fields_of(registration, version)
        negative = self._quirks.money_negative
        row: dict[str, Any] = {
            "user": self._user(flat),
            "registration_id": registration.registration_id,
            "event_id": version.event_id,
            "rsu_transaction_id": flat["rsu_transaction_id"],
            "transaction_id": flat["transaction_id"],
            "bib_num": flat["bib_num"],
            "chip_num": flat["chip_num"],
            "age": flat["age"],
            "registration_date": wire.eastern_minute(registration.registered_at),
            "team_id": flat["team_id"],
            "team_name": flat["team_name"],
            "team_type_id": flat["team_type_id"],
            "team_type": flat["team_type"],
            "team_gender": flat["team_gender"],
            "team_bib_num": flat["team_bib_num"],
            "last_modified": version.last_modified,
            "imported": wire.flag(flat["imported"]),
        }
        row.update(zip(MONEY_FIELDS, wire.amounts(_MONEY(flat), negative), strict=True))
        row["usatf_discount_additional_field"] = flat["usatf_discount_additional_field"]
        row["giveaway"] = flat["giveaway"]
        row["giveaway_option_id"] = flat["giveaway_option_id"]
        if extra := flat.get("extra"):
            row.update(extra)
        return row

    def _user(self, flat: dict[str, Any]) -> dict[str, Any]:
        user: dict[str, Any] = {
            "user_id": flat["user_id"],
            "first_name": flat["first_name"],
            "middle_name": flat["middle_name"],
            "last_name": flat["last_name"],
            "email": flat["email"],
            "address": {
                "street": flat["street"],
                "city": flat["city"],
                "state": flat["state"],
                "zipcode": flat["zipcode"],
                "country_code": flat["country_code"],
            },
        }
        for name in _USER:
            user[name] = flat[name]
        if user["gender"] == "X" and not self._options.supports_nb:
            spoken = {"null": None, "absent": ABSENT, "empty": ""}
            unspoken = self._quirks.gender_x_without_supports_nb
            user["gender"] = spoken.get(unspoken, unspoken)
        if self._options.anonymous:
            user["is_anonymous"] = "F"
        return user

    def _optional(self, registration: Registration, version: Version) -> dict[str, Any]:
        """Return the fields that a flag of the request adds; cheap, so not kept."""
        row: dict[str, Any] = {}
        world, options, number = self._world, self._options, registration.registration_id
        patch = version.patch
        race = world.races[world.events[version.event_id].race_id]
        if options.questions:
            answers = patch.get("question_responses")
            if answers is None:
                answers = [
                    {"question_id": q, "question_text": text, "responses": said}
                    if isinstance(said, list)
                    else {"question_id": q, "question_text": text, "response": said}
                    for q, text, said in people.answers_of(world.seed, number, version.event_id, race)
                ]
            row["question_responses"] = answers
        if options.addons:
            addons = patch.get("participant_addons")
            if addons is None:
                addons = [
                    {"addon_id": a, "addon_name": name, "quantity": n, "amount": wire.money(cents)}
                    for a, name, n, cents in people.addons_of(world.seed, number, race)
                ]
            row["participant_addons"] = addons
        if options.fundraisers:
            row["fundraiser_id"] = row["fundraiser_charity_id"] = None
            row["fundraiser_charity_name"] = row["team_fundraiser_id"] = None
        if options.bundle_info:
            row["multi_race_bundle_id"] = row["multi_race_bundle"] = None
        return row

    def removed(self, number: int, condensed: bool) -> bytes:
        """Return the encoded row of a removed registration: no bib and no event (section 9)."""
        registration = self._world.registrations[number]
        version = self._world.still_removed.get(number) or registration.shown
        assert version is not None, "a listed registration is published"
        raw = version.patch.get("raw")
        if raw is not None:
            return str(raw).encode("utf-8", "surrogatepass")
        reasons = {"removed_reason": version.reason, "new_registration_id": version.new_id}
        if condensed:
            row: dict[str, Any] = {"registration_id": number, **reasons}
        else:
            flat = self._world.fields_of(registration, version)
            row = {
                "user": self._user(flat),
                "registration_id": number,
                "age": flat["age"],
                "registration_date": wire.eastern_second(registration.registered_at),
                "last_modified": wire.eastern_second(version.last_modified),
                "last_modified_ts": version.last_modified,
                "imported": wire.flag(flat["imported"]),
            }
            for name in ("race_fee", "processing_fee", "processing_fee_paid_by_user"):
                row[name] = wire.money(flat[name], self._quirks.money_negative)
            for name in ("processing_fee_paid_by_race", "amount_paid"):
                row[name] = wire.money(flat[name], self._quirks.money_negative)
            row |= reasons
            if extra := flat.get("extra"):
                row.update(extra)
        return wire.encode(self._bend(row), self._quirks.wire_escapes)

    def team(self, standing: Standing, group_sizes: bool = False) -> bytes:
        """Return the encoded row of a team, by request with the sizes it may have (section 14)."""
        team, quirks = standing.team, self._quirks
        bib, count = team.team_bib_num, len(standing.members)
        if bib is None:
            bib = {"null": None, "empty": "", "absent": ABSENT}[quirks.teams_no_bib]
        elif quirks.teams_bib == "text":
            bib = str(bib)
        row: dict[str, Any] = {
            "team_id": team.team_id,
            "event_id": team.event_id if quirks.teams_event_id else ABSENT,
            "team_name": team.team_name,
            "team_type_id": team.team_type_id,
            "team_age_restriction_id": team.team_age_restriction_id,
            "team_gender": team.team_gender,
            "team_bib_num": bib,
            "team_member_current_count": str(count) if quirks.teams_count == "text" else count,
            "last_modified_ts": standing.last_modified,
        }
        row = {name: value for name, value in row.items() if value is not ABSENT}
        if group_sizes:
            row["group_sizes"] = dict(GROUP_SIZES)
        return wire.encode(self._bend(row), quirks.wire_escapes)

    def _bend(self, row: dict[str, Any]) -> dict[str, Any]:
        quirks = self._quirks
        user = row.get("user", {})
        for part in (row, user):
            if ABSENT not in part.values():
                continue
            for name in [name for name, value in part.items() if value is ABSENT]:
                if quirks.absent_keys:
                    del part[name]
                else:
                    part[name] = None
        if quirks.transaction_id_as_int and row.get("transaction_id") is not None:
            row["transaction_id"] = row["registration_id"]
        if quirks.unknown_fields:
            row.update(UNKNOWN_FIELD)
            user.update(UNKNOWN_FIELD)
        return self._stringified(row)

    def _stringified(self, row: dict[str, Any]) -> dict[str, Any]:
        if self._quirks.ints_as_strings == "off":
            return row
        return _stringify(row, _SOME if self._quirks.ints_as_strings == "some" else None)


def warm(world: "World", from_instant: float = 0) -> None:
    """
    Encode active rows as a sync client will ask for them: about 25,000 a second.

    Args:
        world: The world.
        from_instant: Only events that start at this epoch second or later.
    """
    rows = Rows(world, world.quirks, Options(supports_nb=True))
    for event in world.events.values():
        if event.starts_at >= from_instant:
            for number in world.indexes[event.event_id].active.ids:
                rows.active(number)


def _stringify(value: dict[str, Any], names: frozenset[str] | None) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, dict):
            item = _stringify(item, names)
        elif isinstance(item, list):
            item = [_stringify(e, names) if isinstance(e, dict) else e for e in item]
        elif isinstance(item, int) and (names is None or name in names):
            item = str(item)
        row[name] = item
    return row
