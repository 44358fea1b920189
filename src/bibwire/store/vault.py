"""
Encrypts credentials at rest: AES-256-GCM, each value bound to its table, partner and column.

A sealed value is

    version (1 byte) | key id (4 bytes) | nonce (12 bytes) | ciphertext and tag

The version leaves room for another scheme, the key id for another key: it tells a wrong key
from a value that was altered or moved. A nonce is random and fresh for every value; at one
key and a few thousand values a collision is out of reach. Whoever loses the key loses the
credentials, and only them: keep a copy apart from the database's.
"""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bibwire.domain.errors import CredentialSealed, InvariantBroken, SettingsError
from bibwire.domain.pasted import clean
from bibwire.domain.secrets import Secret

VERSION = 1
KEY_BYTES = 32
KEY_ID_BYTES = 4
NONCE_BYTES = 12
KEY_FILE_NAME = "secret.key"
# Bytes. A key takes 64 signs at most, and somebody may have wrapped them.
LONGEST_KEY_FILE = 4096
_HEADER_BYTES = 1 + KEY_ID_BYTES + NONCE_BYTES
_TAG_BYTES = 16


class Vault:
    """Seals and opens texts under one key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
        self._cipher = AESGCM(key)
        self._digest_key = hmac.digest(key, b"bibwire key digest", hashlib.sha256)
        self._key_id = hmac.digest(key, b"bibwire key id", hashlib.sha256)[:KEY_ID_BYTES]

    def digest(self, text: Secret) -> bytes:
        """Return by what `text` is known again; without our key it tells nothing of the text."""
        return hmac.digest(self._digest_key, text.reveal().encode(), hashlib.sha256)

    def seal(self, text: Secret, *, table: str, partner_id: int, column: str) -> bytes:
        """Encrypt `text` for one column of one partner's row."""
        header = bytes([VERSION]) + self._key_id
        nonce = secrets.token_bytes(NONCE_BYTES)
        place = _place(header, table, partner_id, column)
        return header + nonce + self._cipher.encrypt(nonce, text.reveal().encode(), place)

    def open(self, sealed: bytes, *, table: str, partner_id: int, column: str) -> Secret:
        """
        Decrypt what `seal` made for the same place.

        Raises:
            CredentialSealed: The value was sealed with another key.
            InvariantBroken: It was altered, or belongs to another row or column.
        """
        where = f"{table}.{column} of partner {partner_id}"
        if len(sealed) < _HEADER_BYTES + _TAG_BYTES or sealed[0] != VERSION:
            raise InvariantBroken(
                f"{where} is no sealed value of this Bibwire; store the credential again "
                "with bibwire partner rotate."
            )
        header, nonce = sealed[: 1 + KEY_ID_BYTES], sealed[1 + KEY_ID_BYTES : _HEADER_BYTES]
        if not hmac.compare_digest(header[1:], self._key_id):
            raise CredentialSealed(
                f"{where} was encrypted with another key than the one in use: set BIBWIRE_SECRET_KEY or "
                "BIBWIRE_SECRET_KEY_FILE to that key, or store the credential again with bibwire partner "
                "rotate."
            )
        try:
            text = self._cipher.decrypt(
                nonce, sealed[_HEADER_BYTES:], _place(header, table, partner_id, column)
            )
        except InvalidTag:
            raise InvariantBroken(
                f"{where} was altered, or moved there from another row or column; store the "
                "credential again with bibwire partner rotate."
            ) from None
        return Secret(text.decode())


class MissingKey(Vault):
    """In place of a vault where there is no key: what needs one says why there is none."""

    def __init__(self, why: str) -> None:
        super().__init__(bytes(KEY_BYTES))
        self._why = why

    def digest(self, text: Secret) -> bytes:
        """Refuse."""
        raise SettingsError(self._why)

    def seal(self, text: Secret, *, table: str, partner_id: int, column: str) -> bytes:
        """Refuse."""
        raise SettingsError(self._why)

    def open(self, sealed: bytes, *, table: str, partner_id: int, column: str) -> Secret:
        """Refuse."""
        raise SettingsError(self._why)


def _place(header: bytes, table: str, partner_id: int, column: str) -> bytes:
    return header + f"{table}:{partner_id}:{column}".encode()


def load_key(*, key: Secret | None, key_file: Path | None, home: Path) -> bytes:
    """
    Return the key: `key` itself, the content of `key_file`, or of the key file under `home`.

    The last one is made when it does not exist; a `key_file` that is named must exist.

    Raises:
        SettingsError: No key, not 32 bytes, or a file that others can read.
    """
    if key is not None:
        return parse_key(key.reveal(), source="BIBWIRE_SECRET_KEY")
    if key_file is not None:
        return read_key_file(key_file)
    path = home / KEY_FILE_NAME
    if not path.exists():
        _make_key_file(path)
    return read_key_file(path)


def is_key_missing(*, key: Secret | None, key_file: Path | None, home: Path) -> bool:
    """Say whether `load_key` would make a key file."""
    return key is None and key_file is None and not (home / KEY_FILE_NAME).exists()


def why_no_key_is_made(home: Path, partners: int) -> str:
    """
    Return the sentence for a database whose credentials nobody can open.

    Args:
        partners: Whose credentials are stored; at least one.
    """
    path = home / KEY_FILE_NAME
    whose = "1 partner is" if partners == 1 else f"{partners:,} partners are"
    return (
        f"There is no key at {path}, and the credentials of {whose} stored encrypted with one, so none is "
        "made: put that key back there, or name it in BIBWIRE_SECRET_KEY or BIBWIRE_SECRET_KEY_FILE. Is "
        f"BIBWIRE_HOME the right folder? If the key is lost: (umask 077; openssl rand -base64 32 > {path}), "
        "then bibwire partner rotate for each partner"
    )


def parse_key(text: str, *, source: str) -> bytes:
    """Read 32 bytes written as 64 hexadecimal digits or as base64, plain or URL-safe."""
    text = "".join(clean(text).text.split())
    # 64 hexadecimal digits are valid base64 too (of 48 bytes), so hexadecimal goes first.
    try:
        key = bytes.fromhex(text)
    except ValueError:
        try:
            padded = text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4)
            key = base64.b64decode(padded.replace("-", "+").replace("_", "/"), validate=True)
        except (binascii.Error, ValueError):
            key = b""
    if len(key) != KEY_BYTES:
        raise SettingsError(
            f"{source} has to be {KEY_BYTES} bytes in base64 or hexadecimal; make one with: "
            "openssl rand -base64 32"
        )
    return key


def read_key_file(path: Path) -> bytes:
    """Return the key in `path`, which nobody but its owner may read."""
    try:
        mode, text = _read_small(path)
    except FileNotFoundError:
        raise SettingsError(
            f"The key file {path} does not exist. Name the right one in BIBWIRE_SECRET_KEY_FILE."
        ) from None
    except OSError as error:
        raise SettingsError(
            f"The key file {path} cannot be read ({error.strerror}). "
            "Bibwire has to run as the user who owns it."
        ) from None
    if os.name == "posix" and mode & 0o077:
        raise SettingsError(
            f"The key file {path} can be read by others (mode {mode:04o}). Run: chmod 600 {path}"
        )
    return parse_key(text, source=f"The key file {path}")


def _read_small(path: Path) -> tuple[int, str]:
    """
    Return the mode and the text of a small plain file; "" if it holds none.

    Anything else is refused before it is read: a pipe or a device may never answer, or never end.
    """
    # Not to wait for whoever would write into a pipe; Windows has no such flag, nor such pipes.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise SettingsError(
                f"The key file {path} is no plain file: name a file with the key in BIBWIRE_SECRET_KEY_FILE, "
                "or set BIBWIRE_SECRET_KEY."
            )
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(LONGEST_KEY_FILE + 1)
    finally:
        os.close(descriptor)
    try:
        return stat.S_IMODE(found.st_mode), "" if len(content) > LONGEST_KEY_FILE else content.decode(
            "utf-8-sig"
        )
    except UnicodeDecodeError:
        return stat.S_IMODE(found.st_mode), ""


def _make_key_file(path: Path) -> None:
    """Write a new key, whole or not at all; of two processes at once, the first one's stays."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    text = base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n"
    try:
        _make_home(path.parent)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, text)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            # Unlike a rename, a link never replaces a key that is already there.
            path.hardlink_to(draft)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SettingsError(
                f"The disk of {path.parent} is full, so no key file can be made there: make room, then try "
                "again."
            ) from None
        raise SettingsError(
            f"No key file can be made at {path} ({error.strerror}). Make {path.parent} writable, "
            "or set BIBWIRE_SECRET_KEY."
        ) from None


def _make_home(home: Path) -> None:
    if home.exists():
        return
    missing = [folder for folder in (home, *home.parents) if not folder.exists()]
    home.mkdir(parents=True, exist_ok=True)
    for folder in missing:  # whatever the umask, nobody else may swap what is in them
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) & ~0o022)
    # As root the embedded server, which runs as a user of its own, has to pass; nobody else may look.
    as_root = os.name == "posix" and os.geteuid() == 0
    home.chmod(0o711 if as_root else 0o700)
