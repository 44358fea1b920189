"""A sealed credential opens at its own place, under its own key, and nowhere else."""

from __future__ import annotations

import base64
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bibwire.domain.errors import CredentialSealed, InvariantBroken, SettingsError
from bibwire.domain.secrets import Secret
from bibwire.store import vault
from bibwire.store.vault import Vault, load_key, parse_key

KEY = bytes(range(32))
posix_only = pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")


def seal(text: str, key: bytes = KEY) -> bytes:
    return Vault(key).seal(Secret(text), table="credentials", partner_id=1, column="key_encrypted")


def open_sealed(
    sealed: bytes,
    key: bytes = KEY,
    *,
    table: str = "credentials",
    partner_id: int = 1,
    column: str = "key_encrypted",
) -> str:
    return Vault(key).open(sealed, table=table, partner_id=partner_id, column=column).reveal()


@given(st.text())
def test_what_was_sealed_opens_to_the_same_text(text: str) -> None:
    assert open_sealed(seal(text)) == text


def test_the_same_text_is_never_sealed_alike_twice() -> None:
    assert seal("canary") != seal("canary")
    assert b"canary" not in seal("canary")


@pytest.mark.parametrize(
    "place", [{"table": "partners"}, {"partner_id": 2}, {"partner_id": 11}, {"column": "secret_encrypted"}]
)
def test_a_value_moved_to_another_place_does_not_open(place: dict[str, Any]) -> None:
    with pytest.raises(InvariantBroken, match="altered, or moved there"):
        open_sealed(seal("canary"), **place)


def test_a_value_with_any_bit_flipped_does_not_open() -> None:
    sealed = seal("canary")

    for index in range(len(sealed)):
        flipped = sealed[:index] + bytes([sealed[index] ^ 1]) + sealed[index + 1 :]
        with pytest.raises((InvariantBroken, CredentialSealed)):
            open_sealed(flipped)


def test_a_value_cut_off_does_not_open() -> None:
    with pytest.raises(InvariantBroken, match="no sealed value"):
        open_sealed(seal("")[:-1])


def test_another_key_is_told_from_a_damaged_value() -> None:
    with pytest.raises(CredentialSealed, match="encrypted with another key"):
        open_sealed(seal("canary"), key=bytes(32))


@pytest.mark.parametrize(
    "text",
    [KEY.hex(), KEY.hex().upper(), base64.b64encode(KEY).decode(), base64.urlsafe_b64encode(KEY).decode(),
     base64.b64encode(KEY).decode().rstrip("="), f"  {KEY.hex()}\n"],
)  # fmt: skip
def test_a_key_is_read_in_each_way_it_is_written(text: str) -> None:
    assert parse_key(text, source="it") == KEY


def test_url_safe_base64_is_read_with_its_own_signs() -> None:
    key = b"\xff\xfe" * 16

    assert parse_key(base64.urlsafe_b64encode(key).decode(), source="it") == key


@pytest.mark.parametrize(
    "text", ["", "00" * 31, "00" * 33, "not a key", base64.b64encode(b"x" * 31).decode()]
)
def test_a_key_of_another_length_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(SettingsError, match="BIBWIRE_SECRET_KEY has to be 32 bytes") as refusal:
        load_key(key=Secret(text), key_file=None, home=Path("/nowhere"))
    assert not text or text not in str(refusal.value)


def test_a_key_file_is_made_once_and_read_again(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"

    first = load_key(key=None, key_file=None, home=home)

    assert len(first) == 32
    assert load_key(key=None, key_file=None, home=home) == first
    assert [path.name for path in home.iterdir()] == ["secret.key"]


@posix_only
def test_the_key_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    load_key(key=None, key_file=None, home=tmp_path)

    assert (tmp_path / "secret.key").stat().st_mode & 0o777 == 0o600


@posix_only
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_a_key_file_that_others_can_use_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, mode: int
) -> None:
    path = tmp_path / "secret.key"
    load_key(key=None, key_file=None, home=tmp_path)
    path.chmod(mode)

    with pytest.raises(SettingsError, match=f"chmod 600 {path}"):
        load_key(key=None, key_file=None, home=tmp_path)


def test_a_key_file_that_is_named_is_never_made(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        load_key(key=None, key_file=tmp_path / "other.key", home=tmp_path)
    assert not list(tmp_path.iterdir())


@posix_only
@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("pipe", "is no plain file"),
        ("device", "is no plain file"),
        ("folder", "is no plain file"),
        ("huge", "has to be 32 bytes"),
    ],
)
def test_a_key_file_that_is_no_small_file_is_refused_and_not_waited_for(
    tmp_path: Path, kind: str, why: str
) -> None:
    path = tmp_path / "secret.key"
    if kind == "pipe":
        os.mkfifo(path, 0o600)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "folder":
        path.mkdir(0o700)
    else:
        path.touch(0o600)
        os.truncate(path, 1 << 40)

    with pytest.raises(SettingsError, match=f"key file .* {why}"):
        load_key(key=None, key_file=path, home=tmp_path)


def _load(home: str) -> bytes:
    return load_key(key=None, key_file=None, home=Path(home))


def test_processes_that_make_the_key_file_at_once_agree_on_one_key(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        keys = pool.map(_load, [str(tmp_path)] * 16)

    assert len(set(keys)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["secret.key"]


def test_a_key_made_by_another_process_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    path.write_bytes(base64.b64encode(KEY))
    path.chmod(0o600)

    vault._make_key_file(path)

    assert load_key(key=None, key_file=None, home=tmp_path) == KEY
