"""
Every error of Bibwire, grouped by what its catcher does.

    BibwireError                    the text is one sentence, safe to show: no secret, no runner's name
    ├── SettingsError               wrong use or settings: tell the user, exit 2
    ├── FeedRewound                 the database lost changes that were read: say from where to read again
    ├── DatabaseUnavailable         PostgreSQL cannot be used: tell the operator, exit 1
    │   ├── DatabaseCutOff          it, or the way to it, went away in the middle of the work: do that again
    │   │   └── DatabaseReplaced    it was started again, or a standby took over: leases of before are void
    │   ├── DatabaseGone            it was waited for, and did not come back in time
    │   └── DatabaseDenied          it is there and refuses us: waiting does not help, a person has to act
    ├── RetryLater                  may pass by itself: try again within bounds, then give up the scope
    │   ├── VendorUnavailable       no answer, 5xx, 522, error 4 or 5
    │   │   ├── VendorUnreachable   no connection was made: nothing was sent, so no call was spent
    │   │   └── NotTheApi           a web page and no answer of the API: give up this call now
    │   ├── Throttled               429 or error 14; `retry_after_seconds` where the vendor said
    │   │   └── Blocked             none may be asked for longer than a call is retried: give up the scope now
    │   └── AnswerUnreadable        not JSON, cut off, or of a shape that is not documented
    ├── PartnerStopped              nothing can work under this credential until a person acts
    │   ├── KeyRefused              error 6 or 13
    │   ├── CredentialSealed        what is stored was encrypted with another key: nothing was asked
    │   └── CallerRefused           error 17: the caller registration; concerns every partner
    ├── PartnerRemoved              the partner was removed while work went on for it
    ├── ScopeStopped                this race cannot be read; the others go on
    │   ├── AccessLost              error 7
    │   ├── RaceGone                error 201
    │   └── EventGone               error 301
    ├── RequestRefused              the vendor calls our request wrong: a fault of ours, or an unknown code
    ├── ListingNotTrusted           an answer contradicts what was asked: ask one event at a time
    ├── BadRecord                   one record cannot be represented: quarantine it and go on
    ├── Collided                    the database let another transaction go first: the next run repeats it
    ├── BudgetSpent                 the hour's calls are used up: `seconds` until there is room again
    ├── CallsUsedUp                 this run has made the calls it was given: leave the rest
    ├── ScopeBusy                   another process sweeps this scope: nothing is wrong, it keeps it fresh
    │   └── LeaseLost               it took the scope over from us; nothing of this page was written
    ├── Stopped                     this process is to leave: nothing is wrong, the next run goes on here
    ├── StatementRefused            PostgreSQL refused what we wrote: a bug; no row is quoted
    └── InvariantBroken             a bug: stop this scope, write nothing
"""

from __future__ import annotations


class BibwireError(Exception):
    """Base of all. `str(error)` is one sentence that may be shown to anybody."""


class SettingsError(BibwireError):
    """Wrong use or settings."""


class DatabaseUnavailable(BibwireError):
    """PostgreSQL cannot be reached, is too old, or refuses us."""


class DatabaseCutOff(DatabaseUnavailable):
    """The server, or the connection to it, went away in the middle of the work: that is not to blame."""


class DatabaseReplaced(DatabaseCutOff):
    """The server was started again, or another one took its place: what it leased to us is nobody's."""


class FeedRewound(BibwireError):
    """
    The database lost its newest changes, and gives their numbers out again.

    A standby that took over, or a backup that was restored, knows less than was read. `agreed`: the
    last number under which the feed still has what was read.
    """

    def __init__(self, message: str, *, partner: str, agreed: int) -> None:
        super().__init__(message)
        self.partner = partner
        self.agreed = agreed


class DatabaseGone(DatabaseUnavailable):
    """It was waited for, and did not come back in time."""


class DatabaseDenied(DatabaseUnavailable):
    """PostgreSQL answers, and does not let us do our work: it is read-only, or access is missing."""


class RetryLater(BibwireError):
    """May pass by itself."""


class VendorUnavailable(RetryLater):
    """No usable answer from the vendor."""


class VendorUnreachable(VendorUnavailable):
    """No connection to the vendor was made, so nothing was sent. It concerns every partner."""

    # What every one of them says first: reports keep the text alone.
    BEGINS = "RunSignup cannot be reached"


class NotTheApi(VendorUnavailable):
    """HTTP 404 and no JSON: the address is not the API's, or what stands in front of it has lost it."""


class Throttled(RetryLater):
    """The vendor asks us to slow down."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Blocked(Throttled):
    """The vendor asked for a pause that is longer than this call may wait; nothing was sent."""


class AnswerUnreadable(RetryLater):
    """HTTP worked, but the body is no answer: HTML, half a document, an undocumented shape."""


class PartnerStopped(BibwireError):
    """Nothing can work under this credential until a person acts."""


class KeyRefused(PartnerStopped):
    """The vendor does not accept this key (error 6), or it is of the wrong kind (error 13)."""


class CredentialSealed(PartnerStopped):
    """A stored credential does not open with the key in use; the vendor was not asked."""


class CallerRefused(PartnerStopped):
    """The vendor does not accept the caller registration (error 17)."""


class PartnerRemoved(BibwireError):
    """The partner was removed while work went on for it: nothing is left to be done."""

    def __init__(self) -> None:
        super().__init__("The partner was removed meanwhile.")


class ScopeStopped(BibwireError):
    """This race cannot be read; the others go on."""


class AccessLost(ScopeStopped):
    """The key has no right on this race (error 7)."""


class RaceGone(ScopeStopped):
    """The vendor does not know this race (error 201)."""


class EventGone(ScopeStopped):
    """The vendor does not know one of the events asked for (error 301)."""


class RequestRefused(BibwireError):
    """The vendor calls our request wrong."""

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class ListingNotTrusted(BibwireError):
    """An answer to a list of events contradicts what was asked for."""


class BadRecord(BibwireError):
    """One record cannot be represented in the mirror."""


class Collided(BibwireError):
    """The database ended our transaction for another's sake; nothing of it was written."""


class BudgetSpent(BibwireError):
    """The budget has no room for a call that can wait; `seconds` tells how long."""

    def __init__(self, message: str, *, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class CallsUsedUp(BibwireError):
    """A run was given so many calls and has made them; nothing was sent."""


class ScopeBusy(BibwireError):
    """Another process sweeps this scope."""


class LeaseLost(ScopeBusy):
    """Another process took the scope over from us; nothing of this page was written."""


class Stopped(BibwireError):
    """This process was told to leave between two pages; what was stored stays, the rest waits."""


class InvariantBroken(BibwireError):
    """Something that must hold does not; nothing of this step was written."""


class StatementRefused(BibwireError):
    """PostgreSQL refused a statement: its kind (`sqlstate`) and names, never what a row holds."""

    def __init__(self, message: str, *, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
