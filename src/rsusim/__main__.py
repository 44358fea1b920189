"""
The simulator as a command: `python -m rsusim` serves a world until SIGINT or SIGTERM.

Prints the base URL and each account's name, key and secret; with `--json`, one JSON object.
"""

import argparse
import errno
import gc
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NoReturn

import msgspec

from rsusim import worlds
from rsusim.control import describe
from rsusim.life import Life
from rsusim.quirks import Quirks
from rsusim.rows import warm
from rsusim.selfcheck import selfcheck
from rsusim.server import listen, serve_forever, url_of
from rsusim.streams import outlast_readers
from rsusim.world import World


def main(
    arguments: list[str] | None = None,
    *,
    program: str = "python -m rsusim",
    introduce: Callable[[World, str], str] | None = None,
    refuse: Callable[[str], NoReturn] | None = None,
) -> int:
    """
    Run the command and return its exit code: 0 well, 1 the self-check failed, 2 wrong use.

    Args:
        program: How the command is called, for its help and errors.
        introduce: Text to print, instead of lines with tabs, of the world and its base URL.
        refuse: Called with what is wrong with the arguments, instead of printing it and exiting with 2.
    """
    parser = _parser(program)
    parser.refuse = refuse
    args = parser.parse_args(arguments)
    started = time.perf_counter()
    try:
        world = _world(args)
        for text in args.quirk:
            name, sign, value = text.partition("=")
            if not sign:
                raise ValueError(f"--quirk takes NAME=VALUE, not {text!r}")
            world.quirks.set(name, value)
    except ValueError as error:
        parser.error(str(error))
    warm(world, 0 if args.warm else world.clock.time() - 7 * 86_400)
    gc.collect()
    gc.freeze()  # a big world is not walked again by every full collection
    if args.selfcheck:
        return selfcheck(world, time.perf_counter() - started, args.warm)
    for name in ("speed", "rate"):
        if not 0 <= getattr(args, name) < float("inf"):
            parser.error(f"--{name} is a number from 0 on, not {getattr(args, name)}")
    if not 0 <= args.port <= 65_535:
        parser.error(f"--port is a number from 0 (a free one) to 65535, not {args.port}")
    try:
        bound = listen(args.port)
    except OSError as error:
        what = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        parser.error(f"port {args.port} {what}: choose another with --port, or leave it out")
    world.clock.run(args.speed)
    life = Life(world, args.seed, args.rate) if args.rate > 0 else None
    serve_forever(world, bound, life, lambda: _announce(world, url_of(bound), args.json, introduce))
    return 0


class _HelpQuirks(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        quirks = [f"  {name}={value}" for name, value in Quirks().as_dict().items()]
        lines = (
            "Habits of the simulated vendor, with their defaults (rsusim/quirks.py says what each does):",
            *quirks,
            "They can be changed while it runs: see rsusim/control.py.",
        )
        sys.stdout.write("\n".join(lines) + "\n")
        parser.exit()


class _Help(argparse.HelpFormatter):
    def add_usage(self, usage: Any, actions: Any, groups: Any, prefix: str | None = None) -> None:
        super().add_usage(usage, actions, groups, "Usage: " if prefix is None else prefix)


class _Parser(argparse.ArgumentParser):
    refuse: Callable[[str], NoReturn] | None = None

    def error(self, message: str) -> NoReturn:
        if self.refuse is not None:
            self.refuse(message)
        super().error(message)


def _parser(program: str) -> _Parser:
    parser = _Parser(
        prog=program,
        usage="%(prog)s [OPTIONS]",
        formatter_class=_Help,
        description="A simulated RunSignup API on 127.0.0.1, with seeded people and a life of its own.",
        epilog=f"Example: {program} --port 8088 --scale demo",
    )
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--seed", type=int, default=1, help="another number, another world; default: 1")
    parser.add_argument(
        "--scale",
        default="demo",
        help="demo, small, original (407,053 people), or a number of people; default: demo",
    )
    parser.add_argument(
        "--speed", type=float, default=1.0, help="simulated seconds a second; 0 is frozen; default: 1"
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=0.2,
        help="happenings a simulated second; 0 is a world at rest; default: 0.2",
    )
    parser.add_argument("--now", help="simulated start, ISO 8601 with zone; default: the real time")
    parser.add_argument(
        "--quirk",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a habit of the vendor; may be given again",
    )
    parser.add_argument("--help-quirks", action=_HelpQuirks, nargs=0, help="list those habits, and end")
    parser.add_argument(
        "--warm",
        action="store_true",
        help="encode every row before serving, not only those of events of the last week and later",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--selfcheck", action="store_true", help="measure start, memory and pages, and end")
    return parser


def _world(args: argparse.Namespace) -> World:
    now = datetime.fromisoformat(args.now) if args.now else datetime.now(UTC)
    if now.tzinfo is None:
        raise ValueError("--now needs a zone, such as 2026-10-02T12:00:00+00:00")
    scales = {"demo": worlds.lively_demo, "small": worlds.small, "original": worlds.original}
    if args.scale in scales:
        return scales[args.scale](args.seed, now)
    if not args.scale.isdigit() or int(args.scale) < 1:
        raise ValueError(f"--scale is {', '.join(scales)} or a number, not {args.scale!r}")
    return worlds.original(args.seed, now, people=int(args.scale))


def _announce(
    world: World, base_url: str, as_json: bool, introduce: Callable[[World, str], str] | None
) -> None:
    if as_json:
        sys.stdout.write(msgspec.json.encode(describe(world, base_url)).decode() + "\n")
    elif introduce is not None:
        sys.stdout.write(introduce(world, base_url) + "\n")
    else:
        lines = [base_url]
        lines += [f"{a.name}\t{a.api_key}\t{a.api_secret}" for a in world.accounts.values()]
        sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    outlast_readers()
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:  # while a big world was still being made
        raise SystemExit(130) from None
