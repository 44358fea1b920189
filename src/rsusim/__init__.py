"""
The RunSignup API, simulated from its reference: a stateful world served over HTTP.

Shares no code with bibwire; the two meet over a socket only. Start with `World`, or a ready one
of `worlds`, and serve it with `Server`; `python -m rsusim` does both.
"""

from rsusim import life, worlds
from rsusim.accounts import Account
from rsusim.app import create_app
from rsusim.faults import Fault
from rsusim.life import Life
from rsusim.log import RequestInfo
from rsusim.quirks import Quirks
from rsusim.records import ABSENT, Team
from rsusim.server import Server
from rsusim.truth import EventTruth, RaceTruth, RegistrationTruth, RemovedTruth
from rsusim.world import World

__all__ = [
    "ABSENT",
    "Account",
    "EventTruth",
    "Fault",
    "Life",
    "Quirks",
    "RaceTruth",
    "RegistrationTruth",
    "RemovedTruth",
    "RequestInfo",
    "Server",
    "Team",
    "World",
    "create_app",
    "life",
    "worlds",
]
