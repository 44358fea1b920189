"""
Takes partners and their keys over from the original, one after the other; a bad one stops no other.

Each key is tried with the vendor before it is stored, as any other key is. What is here already
stays as it is, so that a second run changes nothing. Participants are not copied, only judged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final

from bibwire.domain.adoption import (
    Listed,
    Verdict,
    calls_per_hour,
    fingerprint,
    is_runsignup,
    judge,
    map_credential,
)
from bibwire.domain.errors import (
    BadRecord,
    BibwireError,
    DatabaseUnavailable,
    SettingsError,
    VendorUnavailable,
)
from bibwire.domain.secrets import Credential
from bibwire.store.compat import Compat
from bibwire.store.original import OldCredential, OldPartner, Original
from bibwire.store.partners import Partner, Partners, check_name

# Asks the vendor; returns the races the key sees and how many calls that took.
Check = Callable[[str, Credential], Awaitable[tuple[list[int], int]]]
# Raises SettingsError if the name cannot be told from another partner's.
CheckName = Callable[[str], Awaitable[None]]

# Each call is retried for a minute: a vendor that is away is not asked for every partner.
SILENT_AT_MOST: Final = 2


class Outcome(StrEnum):
    """What became of one partner of the original."""

    ADDED = "added"
    WOULD_BE_ADDED = "would be added"
    HERE = "already here"
    OTHER_KEY = "here with another key"
    NO_KEY = "no RunSignup key"
    FAILED = "not taken over"


@dataclass(slots=True)
class Adopted:
    """
    One partner of the original, and what became of it.

    `why` says what is wrong, or what was left alone; `races` are those the key sees, None: not asked.
    `has_number`: the compatibility views show the partner under its old number.
    """

    timing_partner_id: int | None
    partner: str | None
    outcome: Outcome
    why: str = ""
    credential_id: int | None = None
    kind: str | None = None
    fingerprint: str | None = None
    calls_per_hour: int | None = None
    races: int | None = None
    has_number: bool = False
    rows: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Remaining:
    """A secret that stands in the original in clear text; `rows` counts where it stands more than once."""

    where: str
    provider: str | None = None
    timing_partner_id: int | None = None
    partner: str | None = None
    credential_id: int | None = None
    fingerprint: str | None = None
    rows: int = 1


@dataclass(slots=True)
class Adoption:
    """What a move found and did."""

    dry_run: bool
    partners: list[Adopted] = field(default_factory=list)
    rows_without_partner: int = 0
    secrets: list[Remaining] = field(default_factory=list)

    @property
    def here(self) -> list[Adopted]:
        """Partners that are here now, or would be."""
        absent = (Outcome.NO_KEY, Outcome.FAILED)
        return [each for each in self.partners if each.outcome not in absent]

    @property
    def failed(self) -> list[Adopted]:
        return [each for each in self.partners if each.outcome is Outcome.FAILED]

    @property
    def exit_code(self) -> int:
        """0: all are here; 3: some could not be taken over; 1: none is here."""
        return 1 if not self.here else 3 if self.failed else 0

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"exit_code": self.exit_code}


class Adopter:
    """Takes over what was read from one original."""

    def __init__(
        self,
        original: Original,
        *,
        partners: Partners,
        compat: Compat,
        check: Check,
        check_name: CheckName,
        calls_per_hour: int,
    ) -> None:
        """
        Args:
            check: Tries a key with the vendor.
            check_name: Refuses a name too much like another partner's.
            calls_per_hour: Of a key whose provider has no usable rate limit.
        """
        self._original = original
        self._partners = partners
        self._compat = compat
        self._check = check
        self._check_name = check_name
        self._calls_per_hour = calls_per_hour
        self._providers = {each.provider_id: each for each in original.providers if is_runsignup(each.name)}
        self._names: dict[str, int] = {}
        self._keys: list[tuple[str, Credential]] = []
        self._silent = 0

    async def run(self, *, dry_run: bool) -> Adoption:
        """
        Take over every partner that can be; `dry_run`: only find out which.

        Raises:
            DatabaseUnavailable: Our own database cannot be used.
        """
        done = Adoption(dry_run, secrets=remaining(self._original))
        if self._providers and not dry_run:
            await self._remember_provider()
        known = {each.timing_partner_id for each in self._original.partners}
        for old in self._original.partners:
            adopted = await self._adopt(old, dry_run)
            adopted.rows = await self._judge(old, adopted)
            done.partners.append(adopted)
        for credential in self._credentials_of_none(known):
            done.partners.append(
                Adopted(
                    credential.timing_partner_id,
                    None,
                    Outcome.FAILED,
                    "a credential whose partner is not among the timing_partners",
                    credential.credential_id,
                    fingerprint=fingerprint(credential.principal),
                )
            )
        done.rows_without_partner = sum(
            listed.rows for number, listed in self._original.listed.items() if number not in known
        )
        return done

    async def _adopt(self, old: OldPartner, dry_run: bool) -> Adopted:
        adopted = Adopted(old.timing_partner_id, old.company_name.strip() or None, Outcome.FAILED)
        try:
            name = check_name(old.company_name)
        except SettingsError:
            blank = not old.company_name.strip()
            # Shown by its number alone: what stands there may be anything.
            adopted.partner = None
            adopted.why = f"its name is {'blank' if blank else 'longer than 100 signs, or not printable'}"
            return adopted
        try:
            found, adopted.why = self._credentials_of(old)
            if not found and not adopted.why:
                adopted.outcome, adopted.why = Outcome.NO_KEY, "no credential of RunSignup's there"
                return adopted
            if name in self._names:
                adopted.why = f"number {self._names[name]} of the original has the same name"
                return adopted
            self._names[name] = old.timing_partner_id
            existing = await self._existing(name)
            if existing is not None:
                return await self._compare(adopted, existing, found, dry_run)
            if not found:
                return adopted
            return await self._take(adopted, name, found, dry_run)
        except DatabaseUnavailable:
            raise
        except BibwireError as error:
            adopted.why = str(error)
            return adopted

    async def _existing(self, name: str) -> Partner | None:
        return next((each for each in await self._partners.list() if each.name == name), None)

    async def _compare(
        self,
        adopted: Adopted,
        existing: Partner,
        found: Sequence[tuple[OldCredential, Credential]],
        dry_run: bool,
    ) -> Adopted:
        """Tell whether the partner here has one of the keys there; change nothing of it but its number."""
        adopted.kind, adopted.fingerprint = existing.kind, existing.fingerprint
        adopted.calls_per_hour = existing.calls_per_hour
        ours = await self._partners.credential(existing)
        same = next((old for old, credential in found if credential == ours), None)
        if same is not None:
            adopted.outcome, adopted.credential_id = Outcome.HERE, same.credential_id
        else:
            adopted.outcome = Outcome.OTHER_KEY
            adopted.credential_id = found[0][0].credential_id if found else None
            adopted.why = adopted.why or "the one here is left as it is"
        if dry_run:
            number = await self._compat.number(existing.partner_id)
            adopted.has_number = number == adopted.timing_partner_id
        else:
            await self._link(adopted, existing.partner_id)
        return adopted

    async def _take(
        self,
        adopted: Adopted,
        name: str,
        found: Sequence[tuple[OldCredential, Credential]],
        dry_run: bool,
    ) -> Adopted:
        """Add the partner with the first of its keys that RunSignup accepts."""
        await self._check_name(name)
        refused = [adopted.why] if adopted.why else []
        for old, credential in found:
            provider = self._providers[old.provider_id or 0]
            limit = calls_per_hour(provider.rate_limit_per_hour, self._calls_per_hour)
            adopted.credential_id, adopted.kind = old.credential_id, credential.kind
            adopted.fingerprint = fingerprint(credential.key.reveal())
            try:
                races, calls = await self._try(name, credential)
                adopted.races, adopted.calls_per_hour = len(races), limit
                if dry_run:
                    self._keys.append((name, credential))
                    adopted.outcome = Outcome.WOULD_BE_ADDED
                else:
                    partner = await self._partners.add(
                        name, credential, calls_per_hour=limit, verified=True, calls_made=calls
                    )
                    adopted.outcome = Outcome.ADDED
                    await self._link(adopted, partner.partner_id)
            except DatabaseUnavailable:
                raise
            except BibwireError as error:
                refused.append(f"credential {old.credential_id}: {str(error).rstrip('.')}")
                continue
            break
        if len(found) > 1 and adopted.outcome is not Outcome.FAILED:
            refused.append(f"of its {len(found)} keys the newest that works was taken")
        adopted.why = "; ".join(refused)
        return adopted

    async def _try(self, name: str, credential: Credential) -> tuple[list[int], int]:
        await self._partners.check_new(name, credential)
        other = next((other for other, taken in self._keys if taken.key == credential.key), None)
        if other is not None:  # a dry run stores none by which the next one would be refused
            raise SettingsError(f"The partner {other} has this key already")
        if self._silent >= SILENT_AT_MOST:
            raise VendorUnavailable("not asked, because RunSignup does not answer: try again later")
        try:
            races = await self._check(name, credential)
        except VendorUnavailable:
            self._silent += 1
            raise
        self._silent = 0
        return races

    async def _link(self, adopted: Adopted, partner_id: int) -> None:
        assert adopted.timing_partner_id is not None
        adopted.has_number = await self._compat.link(
            partner_id,
            timing_partner_id=adopted.timing_partner_id,
            credential_id=adopted.credential_id,
        )

    async def _judge(self, old: OldPartner, adopted: Adopted) -> Verdict:
        listed = self._original.listed.get(old.timing_partner_id, Listed())
        ours = None
        if adopted.outcome in (Outcome.HERE, Outcome.OTHER_KEY, Outcome.ADDED) and adopted.partner:
            partner = await self._existing(adopted.partner)
            if partner is not None:
                ours = await self._compat.mirrored(partner.partner_id)
        return judge(listed, ours)

    async def _remember_provider(self) -> None:
        exact = [each for each in self._providers.values() if each.name.strip().casefold() == "runsignup"]
        provider = (exact or list(self._providers.values()))[0]
        rate = provider.rate_limit_per_hour
        await self._compat.set_provider(
            provider_id=provider.provider_id,
            name=provider.name,
            provider_type=provider.provider_type,
            api_base_url=provider.api_base_url,
            rate_limit_per_hour=rate if type(rate) is int else None,
        )

    def _runsignup(self) -> list[OldCredential]:
        return [each for each in self._original.credentials if each.provider_id in self._providers]

    def _credentials_of(self, old: OldPartner) -> tuple[list[tuple[OldCredential, Credential]], str]:
        """Return the partner's usable credentials, the newest first, and what is wrong with others."""
        found: list[tuple[OldCredential, Credential]] = []
        wrong = []
        for each in sorted(self._runsignup(), key=lambda each: -each.credential_id):
            if each.timing_partner_id != old.timing_partner_id:
                continue
            try:
                credential = map_credential(each.principal, each.secret, each.credential_type, each.config)
            except BadRecord as error:
                wrong.append(f"credential {each.credential_id}: {error}")
                continue
            if all(credential != other for _, other in found):
                found.append((each, credential))
        return found, "; ".join(wrong)

    def _credentials_of_none(self, known: set[int]) -> list[OldCredential]:
        return [each for each in self._runsignup() if each.timing_partner_id not in known]


def remaining(original: Original) -> list[Remaining]:
    """Return what stands in the original in clear text, without showing any of it."""
    providers = {each.provider_id: each.name for each in original.providers}
    names = {each.timing_partner_id: each.company_name.strip() for each in original.partners}
    found = [
        Remaining(
            "partner_provider_credentials",
            provider=providers.get(each.provider_id or 0),
            timing_partner_id=each.timing_partner_id,
            partner=names.get(each.timing_partner_id or 0),
            credential_id=each.credential_id,
            fingerprint=fingerprint(each.principal),
        )
        for each in original.credentials
        if (each.principal or "").strip() or (each.secret or "").strip() or each.config
    ]
    found += [
        Remaining(
            "timing_partners.access_password",
            timing_partner_id=each.timing_partner_id,
            partner=each.company_name.strip(),
        )
        for each in original.partners
        if (each.access_password or "").strip()
    ]
    owners = {
        (each.principal or "").strip(): each
        for each in reversed(original.credentials)
        if is_runsignup(providers.get(each.provider_id or 0))
    }
    for table, noted in original.keys_noted.items():
        for key, rows in noted.items():
            owner = owners.get(key.strip())
            partner_id = owner.timing_partner_id if owner else None
            found.append(
                Remaining(
                    f"{table}.credentials_used",
                    timing_partner_id=partner_id,
                    partner=names.get(partner_id or 0),
                    credential_id=owner.credential_id if owner else None,
                    fingerprint=fingerprint(key),
                    rows=rows,
                )
            )
    return found
