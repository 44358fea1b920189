"""
People, derived: a person is a number, and everything about them follows from it and the seed.

407,053 people with forty fields each would not fit in two gigabytes as dicts; derived, they cost
nothing until a row is asked for, and a world is the same every time. The same `who` is the same
person in every race and year. Absences and nulls follow section 8 of the reference.
"""

from typing import Any, Final

from rsusim import names
from rsusim.records import ABSENT, MOST_TEAMS, Event, Race, Registration, Team

_MASK: Final = (1 << 64) - 1


def mix(value: int) -> int:
    """Return 64 well-mixed bits of `value` (splitmix64)."""
    z = (value + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def _spaced(words: str) -> tuple[str, ...]:
    return tuple(word.replace("_", " ") for word in words.split())


_CULTURES = tuple((_spaced(female), _spaced(male), _spaced(last)) for _, female, male, last in names.CULTURES)
_CULTURE_OF = tuple(i for i, row in enumerate(names.CULTURES) for _ in range(row[0]))
_INITIALS = ("A.", "T.", "Lee", "J", "María", "de la")


def person(seed: int, who: int) -> dict[str, Any]:
    """
    Return the user fields of person `who`.

    Three consecutive numbers are one household; one household in four is a family, which shares
    a last name, an address and a parent's e-mail address (e-mail is not unique, section 8).
    """
    h = mix(seed * 0x2545F4914F6CDD1D ^ who)
    home = mix(seed * 0x9E3779B1 ^ (who // 3) ^ 0x5DEECE66D)
    family = home & 3 == 0
    place = home if family else h
    culture = _CULTURES[_CULTURE_OF[(place >> 4) % 1000]]
    female = h & 1
    first_names = culture[0] if female else culture[1]
    first = first_names[(h >> 14) % len(first_names)]
    last = culture[2][(place >> 22) % len(culture[2])]
    percent = (h >> 30) % 1000
    city, state, zip_prefix, country = names.PLACES[(place >> 40) % len(names.PLACES)]
    child = family and who % 3 == 2
    year = 2009 + (h >> 44) % 11 if child else 1940 + (h >> 44) % 68
    parent = who // 3 * 3 if family else who
    gender: Any = "F" if female else "M"
    if percent < 15:
        gender = ("X", None, ABSENT)[percent % 3] if percent % 5 else "X"
    email: Any = f"runner{parent}@example.{'com' if h & 2 else 'org'}"
    phone: Any = f"555-01{(h >> 50) % 10}-{(h >> 36) % 10000:04d}"
    if 15 <= percent < 45:
        email = None if percent & 1 else ABSENT
    if 45 <= percent < 75:
        phone = (None, ABSENT, "+1 (555) 010-3344 ext. 12")[percent % 3]
    full_address = (h >> 52) % 20 != 0
    return {
        "user_id": 30_000_000 + who,
        "first_name": f" {first}" if percent == 80 else first,
        "middle_name": _INITIALS[(h >> 54) % 6] if (h >> 57) % 5 == 0 else None,
        "last_name": last,
        "email": email,
        "street": f"{1 + (place >> 45) % 900} {names.STREETS[(place >> 55) % 8]}" if full_address else None,
        "city": city,
        "state": state,
        "zipcode": f"{zip_prefix}{(place >> 48) % 90 + 10}",
        "country_code": country,
        "dob": f"{year}-{1 + (h >> 24) % 12:02d}-{1 + (h >> 34) % 28:02d}" if percent != 90 else None,
        "gender": gender,
        "phone": phone,
        "profile_image_url": None,
    }


def is_imported(seed: int, registration_id: int) -> bool:
    """Tell whether a seeded registration came by upload: 4 in 100, without an account."""
    return mix(seed ^ registration_id * 0x9E3779B1) % 100 < 4


def team_of(seed: int, registration_id: int, event: Event) -> int | None:
    """Return the id of the team a registration is in from the start: one in eight is in one."""
    if not event.team_count:
        return None
    h = mix(seed ^ registration_id * 0x9E3779B1)
    return event.event_id * MOST_TEAMS + (h >> 24) % event.team_count if (h >> 20) % 8 == 0 else None


def team(event: Event, number: int, latest: int) -> Team:
    """
    Return team `number` of an event, counted from 0.

    Args:
        latest: Epoch seconds; it was made then at the latest.
    """
    return Team(
        team_id=event.event_id * MOST_TEAMS + number,
        event_id=event.event_id,
        team_name=names.TEAM_NAMES[number % len(names.TEAM_NAMES)],
        last_modified=min(latest, event.registration_opens + number * 3600),
        team_age_restriction_id=31 if number % 4 == 3 else None,
        team_gender="CMF"[number % 3],
        team_bib_num=9001 + number if number % 2 == 0 else None,
    )


def entry(
    seed: int, registration: Registration, event: Event, race: Race, imported: bool, team: Team | None
) -> dict[str, Any]:
    """
    Return the fields of a registration other than the person's; money in cents.

    `bib_num`, `chip_num` and `age` are not here: they follow from what was edited.
    """
    number = registration.registration_id
    h = mix(seed ^ number * 0x9E3779B1)
    fee, processing = _fees(event, registration.registered_at)
    by_race = (h >> 7) % 8 == 0
    extra = 0
    giveaway: str | None = None
    giveaway_id: int | None = None
    if event.giveaway_options and (h >> 11) % 10:
        giveaway_id, giveaway, extra = event.giveaway_options[(h >> 15) % len(event.giveaway_options)]
    addons = sum(row[3] for row in addons_of(seed, number, race)) if race.addons else 0
    if imported:
        fee, processing, extra, addons = 0, 0, 0, 0
    return {
        "rsu_transaction_id": None if imported else 26_000_000 + registration.who // 3,
        "transaction_id": None if imported else f"ay_{number}SAMPLE{event.event_id}C_{registration.who % 3}",
        "team_id": team.team_id if team else None,
        "team_name": team.team_name if team else None,
        "team_type_id": team.team_type_id if team else None,
        "team_type": team.team_type if team else None,
        "team_gender": (team.team_gender or None) if team else None,
        "team_bib_num": team.team_bib_num if team else None,
        "imported": imported,
        "race_fee": fee,
        "offline_payment_amount": 4000 if imported else 0,
        "processing_fee": processing,
        "processing_fee_paid_by_user": 0 if by_race else processing,
        "processing_fee_paid_by_race": processing if by_race else 0,
        "partner_fee": 0,
        "affiliate_profit": 0,
        "extra_fees": extra,
        "amount_paid": fee + (0 if by_race else processing) + extra + addons,
        "usatf_discount_amount_in_cents": 0,
        "usatf_discount_additional_field": None,
        "giveaway": giveaway,
        "giveaway_option_id": giveaway_id,
    }


def _fees(event: Event, registered_at: int) -> tuple[int, int]:
    for period in event.periods:
        if registered_at < period.closes:
            return period.race_fee, period.processing_fee
    if event.periods:
        return event.periods[-1].race_fee, event.periods[-1].processing_fee
    return 0, 0


def addons_of(seed: int, number: int, race: Race) -> list[tuple[int, str, int, int]]:
    """Return what registration `number` bought: (addon_id, name, quantity, cents)."""
    if not race.addons:
        return []
    h = mix(seed ^ number * 0x85EBCA77)
    if h % 10:
        return []
    addon_id, name, cents = race.addons[(h >> 8) % len(race.addons)]
    quantity = 1 + (h >> 16) % 2
    return [(addon_id, name, quantity, cents * quantity)]


def answers_of(
    seed: int, number: int, event_id: int, race: Race
) -> list[tuple[int, str, str | list[str] | None]]:
    """Return (question_id, text, answer) for each question that event asks."""
    rows: list[tuple[int, str, str | list[str] | None]] = []
    for question in race.questions:
        if event_id in question.get("skip_for_event_ids", ()):
            continue
        h = mix(seed ^ number * 0xC2B2AE35 ^ question["question_id"])
        choices = [row["response"] for row in question.get("responses", ())]
        answer: str | list[str] | None = None
        if choices and question["question_type_code"] == "C":
            answer = [text for i, text in enumerate(choices) if h >> i & 1]
        elif h % 5:
            pool = choices or names.ANSWERS
            answer = pool[(h >> 8) % len(pool)]
        rows.append((question["question_id"], question["question_text"], answer))
    return rows


def age_on(dob: Any, year: int, month: int, day: int) -> int | None:
    """Return the age on a day of somebody born on `dob` (`YYYY-MM-DD`), or None."""
    if not isinstance(dob, str) or len(dob) != 10:
        return None
    try:
        born = int(dob[:4]), int(dob[5:7]), int(dob[8:])
    except ValueError:
        return None
    return year - born[0] - ((month, day) < born[1:])
