"""What docs/reliability.md names as shown is shown: each test it points to is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
_FILE = re.compile(r"tests/[\w/]+\.py")
_NAME = re.compile(r"(tests/[\w/]+\.py)?`?(?:::| \()(\w+)")


def test_every_test_that_is_named_is_there() -> None:
    missing: list[str] = []
    named = 0
    for line in (ROOT / "docs" / "reliability.md").read_text("utf-8").splitlines():
        cells = line.split(" | ")
        if len(cells) < 3 or line.startswith(("| what", "|---")):
            continue
        shown_by = cells[-1]
        assert _FILE.search(shown_by), f"names no test: {line}"
        file = ""
        for path, name in _NAME.findall(shown_by):
            file = path or file
            text = (ROOT / file).read_text("utf-8") if (ROOT / file).is_file() else ""
            named += 1
            if not re.search(rf"\bdef {name}\b", text):
                missing.append(f"{file}::{name}")
        missing += [path for path in _FILE.findall(shown_by) if not (ROOT / path).is_file()]
    assert not missing, "\n".join(missing)
    assert named > 80
