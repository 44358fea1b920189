"""What `--help` shows of a command: its options in people's words, and an example."""

from __future__ import annotations

import inspect
from typing import Any

import typer
from typer.core import TyperCommand

# By the command's name; a group's as `group command`.
EXAMPLES = {
    "init": ("bibwire init",),
    "doctor": ("bibwire doctor",),
    "sync": (
        "bibwire sync",
        'bibwire sync --partner "Peak Timing" --race 98765',
        "bibwire sync --full --json",
    ),
    "backfill": (
        "bibwire backfill --dry-run",
        'bibwire backfill --partner "Peak Timing" --since 2024-01-01',
    ),
    "reconcile": ("bibwire reconcile --race 98765", "bibwire reconcile --counts-only --json"),
    "verify": (
        "bibwire verify",
        'bibwire verify --partner "Peak Timing" --race 98765 --max-calls 100',
        "bibwire verify --json --junit verify.xml",
    ),
    "run": ("bibwire run", "bibwire run --workers 4", "bibwire run --metrics-port 9464"),
    "worker": ("bibwire worker",),
    "metrics": ("bibwire metrics",),
    "discover": ('bibwire discover --partner "Peak Timing"',),
    "plan": ("bibwire plan",),
    "status": ("bibwire status", "bibwire status --watch", "bibwire status --json"),
    "bibs": (
        "bibwire bibs --race 98765",
        "bibwire bibs --follow",
        'bibwire bibs --partner "Peak Timing" --since 41203 --follow --json',
    ),
    "lookup": ("bibwire lookup 1234 --race 98765", "bibwire lookup 1234 --race 98765 --live"),
    "psql": ("bibwire psql", "bibwire psql -c 'SELECT count(*) FROM bibwire.participants'"),
    "adopt": (
        "bibwire adopt --from postgresql://reader@db.example.com/results --dry-run",
        "bibwire adopt --zone America/New_York",
    ),
    "demo": ("bibwire demo --seconds 30",),
    "partner add": (
        'bibwire partner add "Peak Timing" --api-key KEY',
        'bibwire partner add "Peak Timing" --api-key KEY --secret-file secret.txt --backfill',
    ),
    "partner list": ("bibwire partner list",),
    "partner rotate": ('bibwire partner rotate "Peak Timing" --api-key NEW-KEY',),
    "partner limit": ('bibwire partner limit "Peak Timing" 2000',),
    "partner pause": ('bibwire partner pause "Peak Timing"',),
    "partner resume": ('bibwire partner resume "Peak Timing"',),
    "partner unblock": ('bibwire partner unblock "Peak Timing"',),
    "partner remove": ('bibwire partner remove "Peak Timing"',),
}


class Command(TyperCommand):
    """
    A command whose help shows neither Python's types nor how large a number may be.

    A text is in UTF-8: a terminal with another encoding sends bytes that no database takes.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            left: list[str] = super().parse_args(ctx, args)
        except typer.TyperException as error:
            # Some of the library's errors do not know of which command they are.
            if getattr(error, "ctx", None) is None:
                error.ctx = ctx  # type: ignore[attr-defined]
            raise
        for param in self.params:
            value = ctx.params.get(param.name)
            if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
                raise typer.BadParameter("it is not in UTF-8", ctx=ctx, param_hint=f"'{param.opts[0]}'")
        return left

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)
        for param in params:
            has_value = param.param_type_name == "option" and param.metavar is not None
            shown = param.metavar if has_value else None
            if param.type_descriptor.is_choice:
                shown = param.display_type(ctx).strip("<>")
            # On the instance: the library has no option for it.
            param.display_type_rich = lambda ctx, shown=shown: shown
            param._get_number_range_help_str = lambda: None
        return params


def teach(app: typer.Typer, group: str = "") -> None:
    """Give every command of `app` this help and its examples."""
    for info in app.registered_commands:
        name = info.name or getattr(info.callback, "__name__", "")
        info.cls = Command
        info.help = _unwrapped(inspect.getdoc(info.callback) or "")
        if examples := EXAMPLES.get(f"{group} {name}".strip()):
            title = "Examples:" if len(examples) > 1 else "Example:"
            info.epilog = "\n".join((title, *examples))


def _unwrapped(text: str) -> str:
    """Return a docstring with a paragraph a line: a terminal breaks lines where its own width says."""
    return "\n\n".join(" ".join(paragraph.split("\n")) for paragraph in text.split("\n\n"))
