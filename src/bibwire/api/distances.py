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
_NAMED: Final = {
    "marathon": Decimal("42195"),
    "full marathon": Decimal("42195"),
    "half marathon": Decimal("21097.5"),
}
_DISTANCE: Final = re.compile(
    r"(?P<number>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,7}(?:\.[0-9]{1,4})?|\.[0-9]{1,4}|"
    r"[0-9]{1,2}/[1-9][0-9]?)[ -]?(?P<unit>[A-Za-z]+)\.?"
)
_TAIL: Final = re.compile(r"[ -]+(?:run|walk|run/walk|run & walk|race|trail run)$", re.IGNORECASE)


@lru_cache(maxsize=1024)
def parse_distance(text: str) -> Decimal | None:
    """
    Return metres; None if the text is not one distance.

    "13.1M" and "100M" are None: a capital M is miles to some and metres to others. A small
    m is metres from 100 up, where nobody means miles in whole hundreds of "m".
    """
    words = _TAIL.sub("", " ".join(text.split()))
    if named := _NAMED.get(words.lower().replace("-", " ")):
        return named
    match = _DISTANCE.fullmatch(words)
    if match is None:
        return None
    number, unit = match["number"], match["unit"]
    factor = _UNITS.get(unit.lower())
    if factor is None:
        return None
    if "/" in number:
        share = Fraction(number)
        value = Decimal(share.numerator) / Decimal(share.denominator)
    else:
        value = Decimal(number.replace(",", ""))
    if unit.lower() == "m" and (unit == "M" or value < 100):
        return None
    metres = (value * factor).quantize(Decimal("0.0001"))
    if not 0 < metres <= 10_000_000:
        return None
    return metres.normalize() if metres != metres.to_integral() else metres.to_integral()
