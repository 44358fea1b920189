"""The named statements of `sql/`."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import LiteralString, cast

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def statements(stem: str) -> dict[str, LiteralString]:
    """Return the statements of `sql/<stem>.sql` by name."""
    text = (resources.files("bibwire.store") / "sql" / f"{stem}.sql").read_text("utf-8")
    parts = _NAME.split(text)[1:]
    # The files are part of the program: as literal as a string in the code.
    return {
        name: cast(LiteralString, body.strip().rstrip(";"))
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    }
