"""The vendor's money strings, read exactly."""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache
from typing import Final

_LONGEST: Final = 40
# "$55.00"; "$1,234.50"; "-$5.00" or "$-5.00"; "($5.00)". The dollar sign may be missing.
_MONEY = re.compile(
    r"(?P<open>\()?(?P<minus>-)?\$?(?P<minus_inside>-)?"
    r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,24})(?P<cents>\.[0-9]{1,8})?"
    r"(?P<close>\))?"
)


def parse_money(text: str) -> Decimal | None:
    """
    Return the amount with every digit sent ("$55.00" is Decimal("55.00")).

    None if the text is not an amount of money: nothing is trimmed and nothing guessed.
    """
    # Before it is looked at, and before it is remembered: the vendor's text may be of any length.
    return _money(text) if len(text) <= _LONGEST else None


@lru_cache(maxsize=4096)
def _money(text: str) -> Decimal | None:
    match = _MONEY.fullmatch(text)
    if match is None:
        return None
    opened, minus, inside, whole, cents, closed = match.groups()
    if bool(opened) != bool(closed) or sum(map(bool, (opened, minus, inside))) > 1:
        return None
    amount = Decimal(whole.replace(",", "") + (cents or ""))
    return -amount if (opened or minus or inside) and amount else amount
