"""Which keys of the original can be used, and what its rows are worth."""

from __future__ import annotations

from typing import Any

import pytest

from bibwire.domain.adoption import (
    Listed,
    Mirrored,
    calls_per_hour,
    fingerprint,
    is_runsignup,
    judge,
    map_credential,
)
from bibwire.domain.errors import BadRecord

SECRET = "do-not-show-this-one"


@pytest.mark.parametrize(
    "name", ["RunSignup", "RUNSIGNUP", " RunSignUp ", "Run Signup", "runsignup-v2", "The RunSignup API"]
)
def test_runsignup_is_known_by_its_name(name: str) -> None:
    assert is_runsignup(name)


@pytest.mark.parametrize("name", ["", None, "Race Roster", "RunSign", "signup"])
def test_another_provider_is_not_taken_for_it(name: str | None) -> None:
    assert not is_runsignup(name)


@pytest.mark.parametrize("limit", [0, -1, 1_000_001, None, "700", 700.5, True])
def test_a_rate_limit_that_cannot_be_meant_is_ours(limit: object) -> None:
    assert calls_per_hour(limit, 1000) == 1000
    assert calls_per_hour(700, 1000) == 700


@pytest.mark.parametrize(
    ("said", "config", "kind"),
    [
        (None, None, "key"),
        ("", {}, "key"),
        ("API-Key", None, "key"),
        ("api_key", {"kind": "v2"}, "v2"),
        ("V2", [], "v2"),
        ("Bearer Token", None, "bearer"),
        ("oauth", {"access_token": "token"}, "bearer"),
    ],
)
def test_the_kind_of_a_key_is_read_in_any_spelling(said: str | None, config: Any, kind: str) -> None:
    assert map_credential(" key ", SECRET, said, config).kind == kind


def test_spaces_around_a_key_are_cut_off_and_a_token_is_found_where_it_stands() -> None:
    assert map_credential(" key ", " s\n", None, None).key.reveal() == "key"
    assert map_credential("id", SECRET, "oauth", {"access_token": " t "}).key.reveal() == "t"
    assert map_credential("id", SECRET, "token", None).key.reveal() == SECRET
    assert map_credential("only", None, "token", None).key.reveal() == "only"


@pytest.mark.parametrize(
    ("principal", "secret", "said", "told"),
    [
        (SECRET, SECRET, "oauth", "credential_type is none"),
        (SECRET, SECRET, SECRET, "credential_type is none"),
        (" ", SECRET, None, "API key (principal) is empty"),
        (SECRET, None, None, "API secret (secret) is empty"),
        (SECRET, f"{SECRET} two", None, "is not one word"),
        (SECRET, f"{SECRET}\0", None, "is not one word"),
        ("", "", "bearer", "access token is empty"),
    ],
)
def test_what_is_no_key_is_told_without_showing_it(
    principal: str | None, secret: str | None, said: str | None, told: str
) -> None:
    with pytest.raises(BadRecord) as caught:
        map_credential(principal, secret, said, None)

    assert told in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_short_key_has_no_fingerprint() -> None:
    assert fingerprint(" abcdefghijkl ") == "ijkl"
    assert fingerprint("abcdefghijk") is None
    assert fingerprint(None) is None


def test_without_a_mirror_nothing_is_compared() -> None:
    verdict = judge(Listed(5, 1, 1, {7: {1, 2}, None: {3}}))

    assert (verdict.trusted, verdict.compared, verdict.not_compared) == (3, 0, 3)
    assert (verdict.ghosts, verdict.lacking) == (None, None)


def test_only_events_that_are_loaded_are_compared_and_a_person_who_moved_is_no_ghost() -> None:
    listed = Listed(5, 0, 0, {7: {1, 2, 3}, 8: {4}, None: {5}})
    # 1 is still there, 2 moved to event 9, 3 left, 6 came; of event 8 nothing is known.
    verdict = judge(listed, Mirrored({7, 9}, {1: 7, 2: 9, 6: 7}))

    assert (verdict.compared, verdict.not_compared) == (3, 2)
    assert (verdict.ghosts, verdict.lacking, verdict.trusted) == (1, 1, 4)
