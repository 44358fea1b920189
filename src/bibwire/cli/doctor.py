"""`bibwire doctor`: everything checked, with the fix for what is wrong."""

from __future__ import annotations

import typer

from bibwire.cli.options import JsonOption

STYLES = {"ok": "green", "warn": "yellow", "FAIL": "bold red"}


def add_to(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(json: JsonOption = False) -> None:
    """Check settings, key, database, partners and RunSignup, and say how to mend what is wrong."""
    from rich.text import Text

    from bibwire.cli.checks import examine
    from bibwire.cli.session import read_settings
    from bibwire.cli.terminal import as_fields, console, plain, print_json
    from bibwire.clock import SystemClock
    from bibwire.logs import redact

    findings = examine(read_settings(), SystemClock().now)
    failed = any(finding.grade == "FAIL" for finding in findings)
    if json:
        print_json({"healthy": not failed, "findings": [as_fields(finding) for finding in findings]})
        raise typer.Exit(1 if failed else 0)
    out = console()
    for finding in findings:
        line = Text(f"{finding.grade:<5}", style=STYLES[finding.grade])
        line.append(f"{finding.check}: {plain(redact(finding.found))}", style="default")
        if finding.fix:
            line.append(f"\n     fix: {plain(redact(finding.fix))}", style="default")
        out.print(line, soft_wrap=True)
    raise typer.Exit(1 if failed else 0)
