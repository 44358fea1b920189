"""Known bugs can still be planted: who changes the code they are planted in renews them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.mutations.__main__ import ROOT, patches


def test_there_are_as_many_as_were_asked_for() -> None:
    assert len(patches()) >= 25


@pytest.mark.parametrize("patch", patches(), ids=lambda patch: patch.stem)
def test_a_known_bug_fits_the_code_and_says_what_it_is(patch: Path) -> None:
    reason = patch.read_text("utf-8").partition("--- a/")[0]

    applied = subprocess.run(
        ["git", "apply", "--check", str(patch)], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert applied.returncode == 0, applied.stderr
    assert len(reason.split()) > 5
