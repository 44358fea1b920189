"""`bibwire verify`: is the mirror what RunSignup says, by asking it?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bibwire.cli.options import JsonOption, PartnerOption, RaceOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bibwire.domain.verify import Check
    from bibwire.engine.verify import VerifyReport
    from bibwire.runtime import Runtime

STYLES = {"pass": None, "fail": "red", "skipped": "dim", "error": "yellow"}


NO_NETWORK = "Check the network, then verify again."


def add_to(app: typer.Typer) -> None:
    app.command()(verify)


def verify(
    partner: PartnerOption = None,
    race: RaceOption = None,
    scopes: Annotated[
        int,
        typer.Option(
            "--scopes",
            metavar="N",
            min=1,
            max=10_000,
            help="Races of a partner to list in full: those about to start, then others by chance.",
        ),
    ] = 3,
    max_calls: Annotated[
        int,
        typer.Option(
            "--max-calls", metavar="N", min=1, max=100_000, help="Calls of a partner at most, retries too."
        ),
    ] = 40,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", metavar="N", min=0, max=2**31, help="Choose the same races and bibs as another run did."
        ),
    ] = None,
    json: JsonOption = False,
    junit: Annotated[
        Path | None,
        typer.Option(
            "--junit",
            metavar="FILE",
            dir_okay=False,
            help="Also write the checks as JUnit XML, for monitors.",
        ),
    ] = None,
) -> None:
    """
    Compare the mirror with RunSignup: access, rows, changes, bibs, removals, clocks, budget, freshness.

    Reads only: nothing changes at RunSignup, nor in the mirror but its history. What would take
    more calls than --max-calls is not made and says so. Exit code 1: a check failed, or nothing could
    be asked; 3: some checks could not be made, for example because there were too few
    calls.
    """
    import random

    from bibwire.cli import failures
    from bibwire.cli.session import read_settings, work
    from bibwire.cli.terminal import complain, counted, plain, print_json
    from bibwire.domain.errors import SettingsError

    if junit is not None and not junit.absolute().parent.is_dir():
        raise SettingsError(f"The folder of {junit} does not exist.")
    drawn = random.randrange(1_000_000) if seed is None else seed

    def announce(name: str, calls: int, most: int) -> None:
        complain(f"{plain(name)}: about {counted(calls, 'call')}, at most {most:,}.")

    idle: str | None = None

    async def do(runtime: Runtime) -> VerifyReport:
        nonlocal idle
        from bibwire.cli.progress import verify_progress
        from bibwire.engine.verify import VerifyRequest

        request = VerifyRequest(partner, race, scopes, max_calls, drawn)
        idle = await failures.nobody(runtime, partner)
        partners = await runtime.engine.chosen(partner)
        with verify_progress() as watch:
            return await runtime.verifier.verify(partners, request, watch=watch, announce=announce)

    report = work(do, read_settings(summary=True), make=False, repeat=True)
    if junit is not None:
        write_junit(junit, report)
    # What failed is worth more than what could not be asked.
    bad = sorted(
        (check for check in report.checks if check.verdict in ("fail", "error")),
        key=lambda check: check.verdict != "fail",
    )
    lost = failures.out_of_reach([check.seen for check in bad if bad[0].verdict != "fail"])
    if json:
        print_json(report.as_json())
    elif lost is None:
        _show(report)
    if not report.partners:
        failures.tell_nobody(idle)
    if lost is not None:
        whose = counted(report.partners, "partner")
        complain(f"{plain(lost)}: not everything could be verified of {whose}. {NO_NETWORK}")
    elif bad:
        first = bad[0]
        more = f" (and {len(bad) - 1:,} more)" if len(bad) > 1 else ""
        where = first.partner if first.race_id is None else f"{first.partner}, race {first.race_id}"
        done = "a check failed" if first.verdict == "fail" else "some checks could not be made"
        seen = plain(first.seen).rstrip(".")
        complain(f"{done}: {plain(where)}: {first.check}: {seen}{more}. {remedy(first)}")
    raise typer.Exit(report.exit_code)


def _show(report: VerifyReport) -> None:
    from bibwire.cli.terminal import Column, console, counted, fitted
    from bibwire.domain.verify import Verdict

    out = console()
    if not report.partners:
        return
    columns = (
        Column("check"),
        Column("partner", spare=1),
        Column("race", right=True),
        Column("verdict"),
        Column("calls", right=True, spare=2),
        Column("expected", flexible=True, spare=3),
        Column("seen", flexible=True),
    )
    fitted(out, "Verified against RunSignup", columns, [_row(each) for each in folded(report.checks)])
    verdicts = ", ".join(f"{len(report.of(verdict)):,} {verdict}" for verdict in Verdict)
    out.print(
        f"{counted(report.partners, 'partner')}, {counted(len(report.checks), 'check')}: {verdicts}; "
        f"{counted(report.calls, 'call')} in {report.seconds:.1f} s. The same races and bibs again: "
        f"--seed {report.seed}"
    )


def _row(shown: tuple[Check, int]) -> tuple[Sequence[object], str | None]:
    from bibwire.cli.terminal import counted

    check, races = shown
    verdict = str(check.verdict)
    race = str(check.race_id) if check.race_id is not None else ""
    if races > 1:
        race = counted(races, "race")
    seen = f"each as {check.seen}" if races > 1 else check.seen
    cells = (check.check, check.partner, race, verdict, check.calls or "", check.expected, seen)
    return cells, STYLES[verdict]


def remedy(check: Check) -> str:
    """Say what to do about a check that failed or could not be made."""
    from bibwire.cli.terminal import plain
    from bibwire.domain.key_refusals import given_key
    from bibwire.domain.verify import MORE_CALLS
    from bibwire.store.partners import partner_command, quoted

    if check.verdict != "fail" and MORE_CALLS in check.seen:
        return f"Give it more calls: bibwire verify {MORE_CALLS} N."
    if check.verdict != "fail":
        return "Verify again later; bibwire doctor looks for what is in the way."
    partner = plain(quoted(check.partner))
    race = "" if check.race_id is None else f" --race {check.race_id}"
    match check.check:
        case "credential":
            if given := given_key(check.seen):
                return plain(given.remedy)
            again = partner_command("rotate", check.partner, options="--api-key KEY")
            return f"Store a new key: {plain(again)}"
        case "rights":
            return "Ask the race's director for access to it, then run bibwire discover."
        case "full" | "incremental" | "bibs" | "removed" | "lists":
            return f"Repair it with bibwire reconcile --partner {partner}{race}, then verify again."
        case "clock":
            return "Set this computer's clock: switch on time synchronization (NTP)."
        case "freshness":
            return "Is bibwire run working? See bibwire status."
        case _:
            return "Please report it, with what bibwire verify --json says."


def folded(checks: Sequence[Check]) -> list[tuple[Check, int]]:
    """Return the checks with how many races each row stands for: many that pass alike are one row."""
    rows: list[tuple[Check, int]] = []
    for check in checks:
        if rows and check.verdict == "pass" and check.check in ("rights", "freshness"):
            last, races = rows[-1]
            if (last.check, last.partner, last.verdict) == (check.check, check.partner, check.verdict):
                rows[-1] = (last, races + 1)
                continue
        rows.append((check, 1))
    return rows


def write_junit(path: Path, report: VerifyReport) -> None:
    """Write a suite a partner and a case a check; one that was not made is skipped, with its reason."""
    from xml.etree import ElementTree

    root = ElementTree.Element("testsuites", name="bibwire verify", time=f"{report.seconds:.3f}")
    for partner in dict.fromkeys(check.partner for check in report.checks):
        checks = [check for check in report.checks if check.partner == partner]
        kinds = [str(check.verdict) for check in checks]
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=_xml(partner),
            tests=str(len(checks)),
            failures=str(kinds.count("fail")),
            errors=str(kinds.count("error")),
            skipped=str(kinds.count("skipped")),
            time=f"{sum(check.seconds for check in checks):.3f}",
        )
        for check in checks:
            name = check.check if check.race_id is None else f"{check.check} of race {check.race_id}"
            case = ElementTree.SubElement(
                suite,
                "testcase",
                name=name,
                classname=_xml(f"bibwire.verify.{partner}"),
                time=f"{check.seconds:.3f}",
            )
            kind = {"fail": "failure", "error": "error", "skipped": "skipped"}.get(str(check.verdict))
            if kind is not None:
                told = ElementTree.SubElement(case, kind, message=_xml(check.seen))
                told.text = _xml(f"asked: {check.asked}\nexpected: {check.expected}\nseen: {check.seen}")
            else:
                ElementTree.SubElement(case, "system-out").text = _xml(check.seen)
    path.write_bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def _xml(text: str) -> str:
    """Return text without the characters that XML cannot hold."""
    return "".join(
        sign if sign.isprintable() or sign == "\n" else "\N{REPLACEMENT CHARACTER}" for sign in text
    )
