"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

# What the vendor's ids fit into.
LARGEST_ID = 2**63 - 1

PartnerOption = Annotated[str | None, typer.Option("--partner", metavar="NAME", help="One partner only.")]
RaceOption = Annotated[
    int | None,
    typer.Option(
        "--race", metavar="RACE_ID", min=1, max=LARGEST_ID, help="One race only, by its RunSignup id."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
