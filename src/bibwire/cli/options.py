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
MetricsPortOption = Annotated[
    int | None,
    typer.Option(
        "--metrics-port",
        metavar="PORT",
        min=0,
        max=65535,
        help="Serve metrics for monitors there, at /metrics; 0: on a free port, told in the log.",
    ),
]
MetricsHostOption = Annotated[
    str | None,
    typer.Option(
        "--metrics-host",
        metavar="ADDRESS",
        help="Address to serve them on; this machine alone can reach the default, 127.0.0.1.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
