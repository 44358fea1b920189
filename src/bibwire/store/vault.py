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

from bibwire.domain.errors import InvariantBroken, SettingsError
from bibwire.domain.secrets import Secret

VERSION = 1
KEY_BYTES = 32
KEY_ID_BYTES = 4
NONCE_BYTES = 12
KEY_FILE_NAME = "secret.key"
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
            SettingsError: The value was sealed with another key.
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
            raise SettingsError(
                "The key in use does not fit the stored credentials: they were encrypted with "
                "another one. Set BIBWIRE_SECRET_KEY or BIBWIRE_SECRET_KEY_FILE to that key, or "
                "store the credentials again with bibwire partner rotate."
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


def parse_key(text: str, *, source: str) -> bytes:
    """Read 32 bytes written as 64 hexadecimal digits or as base64, plain or URL-safe."""
    text = "".join(text.split())
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
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text("ascii")
    except FileNotFoundError:
        raise SettingsError(
            f"The key file {path} does not exist. Name the right one in BIBWIRE_SECRET_KEY_FILE."
        ) from None
    except UnicodeDecodeError:
        text = ""
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
    home.mkdir(parents=True, exist_ok=True)
    # As root the embedded server, which runs as a user of its own, has to pass; nobody else may look.
    as_root = os.name == "posix" and os.geteuid() == 0
    home.chmod(0o711 if as_root else 0o700)
