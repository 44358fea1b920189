"""The free text of an event's distance -> metres, where it can mean only one thing."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Final

_MILE: Final = Decimal("1609.344")
_UNITS: Final = {
    "k": Decimal(1000),
    "km": Decimal(1000),
    "kms": Decimal(1000),
    "kilometer": Decimal(1000),
    "kilometers": Decimal(1000),
    "kilometre": Decimal(1000),
    "kilometres": Decimal(1000),
    "mi": _MILE,
    "mile": _MILE,
    "miles": _MILE,
    "miler": _MILE,
    "m": Decimal(1),
    "meter": Decimal(1),
    "meters": Decimal(1),
    "metre": Decimal(1),
    "metres": Decimal(1),
    "yd": Decimal("0.9144"),
    "yard": Decimal("0.9144"),
    "yards": Decimal("0.9144"),
}
_MARATHON: Final = Decimal("42195")
_NAMED: Final = {
    "marathon": _MARATHON,
    "full": _MARATHON,
    "full marathon": _MARATHON,
    "half": _MARATHON / 2,
    "half marathon": _MARATHON / 2,
    "quarter marathon": _MARATHON / 4,
}
_FRACTIONS: Final = {"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3", "⁄": "/"}
_SPELLED: Final = re.compile("[" + "".join(_FRACTIONS) + "]")
_DISTANCE: Final = re.compile(
    r"(?P<number>[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]{1,4})?|[0-9]{1,7}(?:\.[0-9]{1,4})?|\.[0-9]{1,4}|"
    r"(?:(?P<whole>[0-9]{1,3})[ -])?(?P<share>[0-9]{1,2}/[1-9][0-9]?))[ -]?(?P<unit>[A-Za-z]+)\.?"
)
_TAIL: Final = re.compile(
    r"[ -](?:fun run|trail run|trail race|road race|run/walk|run & walk|run and walk|run|walk|race|ultra)$",
    re.IGNORECASE,
)
_TWICE: Final = re.compile(r"(?P<one>[^()]*) ?\((?P<other>[^()]*)\)")
# "Half Marathon (13.1 Miles) Run/Walk" has 35; a text that is longer is not about a distance alone.
_LONGEST: Final = 100


def parse_distance(text: str) -> Decimal | None:
    """
    Return metres; None if the text is not one distance.

    "13.1M" and "100M" are None: a capital M is miles to some and metres to others. A small
    m is metres from 100 up, where nobody means miles in whole hundreds of "m". What is said twice,
    "5K (3.1 Miles)", is the first where both mean the same.
    """
    return _distance(text) if len(text) <= _LONGEST else None


@lru_cache(maxsize=1024)
def _distance(text: str) -> Decimal | None:
    words = " ".join(text.split())
    if (twice := _TWICE.fullmatch(words)) is not None:
        one, other = _once(twice["one"].strip()), _once(twice["other"].strip())
        are_alike = one is not None and other is not None and abs(one - other) <= one / 50
        return one if are_alike else None
    return _once(words)


def _once(words: str) -> Decimal | None:
    words = _TAIL.sub("", words)
    words = _SPELLED.sub(lambda sign: " " + _FRACTIONS[sign[0]] if sign[0] != "⁄" else "/", words).strip()
    if named := _NAMED.get(words.lower().replace("-", " ")):
        return _plain(named)
    match = _DISTANCE.fullmatch(words)
    if match is None:
        return None
    number, unit = match["number"], match["unit"]
    if match["share"]:
        share = Fraction(match["share"])
        if share >= 1:
            return None
        share += int(match["whole"] or 0)
        value = Decimal(share.numerator) / Decimal(share.denominator)
    else:
        value = Decimal(number.replace(",", ""))
    factor = _UNITS.get(unit.lower())
    if unit.lower() == "marathon" and match["share"] and value < 1:
        factor = _MARATHON
    if factor is None or (unit.lower() == "m" and (unit == "M" or value < 100)):
        return None
    return _plain(value * factor)


def _plain(metres: Decimal) -> Decimal | None:
    metres = metres.quantize(Decimal("0.0001"))
    if not 0 < metres <= 10_000_000:
        return None
    return metres.normalize() if metres != metres.to_integral() else metres.to_integral()
