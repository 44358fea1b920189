"""
The settings, read once: environment variables BIBWIRE_*, and the same names in `bibwire.toml`.

The file is taken from the working folder, or else from BIBWIRE_HOME; the environment wins.
In the file a name may be written whole (BIBWIRE_API_URL) or short (api_url). Whatever is
wrong becomes one sentence (SettingsError) that never repeats a secret.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from datetime import time
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo

import platformdirs
from pydantic import BeforeValidator, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from bibwire.domain import pasted
from bibwire.domain.errors import SettingsError
from bibwire.domain.instants import zone_named
from bibwire.domain.secrets import CallerRegistration, Credential, Secret

PREFIX = "BIBWIRE_"
FILE_NAME = "bibwire.toml"
LOOPBACK = re.compile(r"127(\.\d{1,3}){3}|::1|localhost")

_PARTNER_PREFIXES = (f"{PREFIX}KEY_", f"{PREFIX}SECRET_")
_PATHS = ("home", "secret_key_file", "log_file")
# Read by our tests only; no reason to warn of them.
_OTHER_PREFIXES = ("BIBWIRE_TEST_", "BIBWIRE_FUZZ_")


def _as_secret(value: object) -> object:
    if isinstance(value, str):
        return Secret(value) if value else None
    return value


def _trimmed(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


def _number(value: object) -> object:
    """Return a number as it was typed: `true` is none."""
    return str(value) if isinstance(value, bool) else _trimmed(value)


Trim = BeforeValidator(_trimmed)
Number = BeforeValidator(_number)
SecretText = Annotated[Secret | None, BeforeValidator(_as_secret), Trim]


class _Environment(EnvSettingsSource):
    """The environment as it was meant: an env file keeps quotes, a copy brings what nobody sees."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        value, key, is_complex = super().get_field_value(field, field_name)
        if isinstance(value, str):
            value = _meant(field_name, value).text or None
        return value, key, is_complex


class Settings(BaseSettings):
    """All settings. Make one with `load_settings`, which turns faults into sentences."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        arbitrary_types_allowed=True,
        extra="forbid",
        frozen=True,
    )

    # None: an embedded PostgreSQL under `home`. A Secret, because it may hold a password.
    database_url: SecretText = None

    # Where `bibwire adopt` reads; it may hold a password, too.
    adopt_from: SecretText = None

    # Folder of the embedded database and of the key file.
    home: Annotated[Path, Trim] = Field(default_factory=lambda: default_home())

    api_url: Annotated[str, Trim] = "https://api.runsignup.com/rest"

    # Through which RunSignup is asked; None: through none. HTTPS_PROXY and the like are not read: they
    # are often meant for something else, and whoever sees our calls sees which keys are used. A
    # Secret, because it may hold a password.
    proxy: SecretText = None

    # 32 bytes, base64 or hexadecimal. None for both: a key file under `home`.
    secret_key: SecretText = None
    secret_key_file: Annotated[Path | None, Trim] = None

    # Optional at the vendor until 2027-01-01, compulsory from then on; both or neither.
    caller_reg: SecretText = None
    caller_secret: SecretText = None

    log_file: Annotated[Path | None, Trim] = None
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], Trim] = "INFO"

    # Calls a rolling hour, for a credential added without a number of its own. The vendor
    # documents no quota; 1,000 is what the timing companies we work for were told.
    calls_per_hour: Annotated[int, Number, Field(ge=1, le=1_000_000)] = 1000

    # Calls at a time, over all processes: the vendor's developer contract allows two a caller.
    max_calls_in_flight: Annotated[int, Number, Field(ge=1, le=2)] = 2

    # Seconds one call is retried before its race is given up for this run: outlasts a
    # restart at the vendor, and does not hold up the races that work.
    retry_seconds: Annotated[float, Number, Field(ge=0, le=3600)] = 60.0

    # Seconds one call may take: a page of 2,500 people takes some, 30 is far beyond.
    timeout_seconds: Annotated[float, Number, Field(ge=1, le=600)] = 30.0

    # When the race lists are read each day, by the clocks of `timezone`: before and after work.
    discovery_times: Annotated[tuple[time, ...], NoDecode] = (time(6), time(18))

    # When each partner's mirror is verified each day, by the clocks of `timezone`; None, by "off": never.
    # At night the hour's calls are needed least.
    verify_at: Annotated[time | None, Trim] = time(3)

    # Where `run` serves metrics for monitors; None: nowhere, 0: a free port. Who can reach the
    # address reads partners' names: by default that is this machine alone.
    metrics_port: Annotated[int | None, Field(ge=0, le=65535), Number] = None
    metrics_host: Annotated[str, Trim] = "127.0.0.1"

    # The operator's zone; the machine's own by default.
    timezone: Annotated[ZoneInfo, Trim] = Field(default_factory=lambda: machine_zone())

    @field_validator("discovery_times", mode="before")
    @classmethod
    def _times(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        parts = [part.strip() for part in value.split(",")]
        if not all(re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", part) for part in parts):
            raise ValueError(f"has to be times of day like 06:00,18:00, not {_short(value)}")
        return tuple(time(int(hour), int(minute)) for hour, minute in (part.split(":") for part in parts))

    @field_validator("verify_at", mode="before")
    @classmethod
    def _time_or_off(cls, value: object) -> object:
        if value is None or isinstance(value, time):
            return value
        if not isinstance(value, str):  # a number would be taken for seconds
            raise ValueError(f"has to be a time of day like 03:00, or off, not {_short(str(value))}")
        text = value.strip()
        if text.lower() == "off":
            return None
        if not re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", text):
            raise ValueError(f"has to be a time of day like 03:00, or off, not {_short(text)}")
        hour, minute = text.split(":")
        return time(int(hour), int(minute))

    @field_validator("timezone", mode="before")
    @classmethod
    def _zone(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        zone = zone_named(value.strip())
        if zone is None:
            raise ValueError(f"has to be a zone like America/New_York, not {_short(value)}")
        return zone

    @field_validator("log_level", mode="before")
    @classmethod
    def _capitals(cls, value: object) -> object:
        return value.strip().upper() if isinstance(value, str) else value

    @field_validator("max_calls_in_flight", mode="before")
    @classmethod
    def _in_flight(cls, value: object) -> object:
        if re.fullmatch(r"\s*[+-]?[0-9]{1,20}\s*", str(value)) and int(str(value)) not in (1, 2):
            raise ValueError(
                f"has to be 1 or 2, not {str(value).strip()}: RunSignup allows each caller two calls at a "
                "time, and more would be refused for every process"
            )
        return value

    @field_validator("home", "secret_key_file", "log_file")
    @classmethod
    def _whole_path(cls, value: Path | None) -> Path | None:
        return None if value is None else _expanded(value).absolute()

    @field_validator("api_url")
    @classmethod
    def _safe_url(cls, value: str) -> str:
        return check_api_url(value)

    @field_validator("database_url", "adopt_from")
    @classmethod
    def _postgres(cls, value: Secret | None) -> Secret | None:
        if value is None:
            return value
        address = pasted.database_url(value.reveal())
        _check_database_url(address)
        return Secret(address)

    @field_validator("proxy")
    @classmethod
    def _proxy_url(cls, value: Secret | None) -> Secret | None:
        return None if value is None else Secret(_check_proxy(value.reveal()))

    @field_validator("caller_reg", "caller_secret")
    @classmethod
    def _key_like(cls, value: Secret | None) -> Secret | None:
        if value is not None and (odd := pasted.oddity(value.reveal())):
            raise ValueError(f"holds {odd}, which nothing from RunSignup has: copy it again")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # What load_settings hands in was read from the file, so the environment goes first.
        return _Environment(settings_cls), init_settings

    @property
    def caller(self) -> CallerRegistration | None:
        """The caller registration, where it is set."""
        if self.caller_reg is None or self.caller_secret is None:
            return None
        return CallerRegistration(self.caller_reg, self.caller_secret)

    def partner_override(self, name: str, kind: Literal["key", "v2", "bearer"] = "key") -> Credential | None:
        """
        Return the credential the environment names for a partner, None where it names none.

        Args:
            name: The partner, as stored; ACME Timing is BIBWIRE_KEY_ACME_TIMING.
            kind: Kind of the stored credential, which the override replaces. A bearer token
                stands in either variable.

        Raises:
            SettingsError: Only half of a key pair is given.
        """
        token = partner_token(name)
        key = _from_environment(f"{PREFIX}KEY_{token}")
        secret = _from_environment(f"{PREFIX}SECRET_{token}")
        if f"secret_{token}".lower() in type(self).model_fields:
            # A partner called "key": BIBWIRE_SECRET_KEY means something else.
            return None
        names = (f"{PREFIX}KEY_{token}", f"{PREFIX}SECRET_{token}")
        if kind == "bearer" and (key or secret):
            return Credential(kind, key or secret or Secret(""), variables=names[:1] if key else names[1:])
        if (key is None) != (secret is None):
            given, lacking = ("KEY", "SECRET") if key else ("SECRET", "KEY")
            raise SettingsError(
                f"{PREFIX}{given}_{token} is set, but {PREFIX}{lacking}_{token} is not: set both or neither."
            )
        return None if key is None else Credential(kind, key, secret, names)

    def secrets(self) -> tuple[Secret, ...]:
        """Return every secret among the settings, partners' overrides included."""
        values = (getattr(self, name) for name in type(self).model_fields)
        found = [value for value in values if isinstance(value, Secret)]
        for address in (self.database_url, self.adopt_from, self.proxy):
            if address is not None:
                found += _passwords(address.reveal())
        found += [
            Secret(form)
            for name, value in os.environ.items()
            if name.startswith(_PARTNER_PREFIXES) and name not in _variables()
            for form in (value.strip(), pasted.clean(value).text)
        ]
        return tuple(secret for secret in found if secret)


class GivenSettings(Settings):
    """Settings that are what they are given and nothing else: for the demonstration."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    def partner_override(self, name: str, kind: Literal["key", "v2", "bearer"] = "key") -> Credential | None:
        return None


def load_settings(warn: Callable[[str], None] | None = None) -> Settings:
    """
    Read environment and file.

    Args:
        warn: Called with one sentence for each unknown BIBWIRE_* variable; None: standard error.

    Raises:
        SettingsError: One sentence that says what is wrong and what to do.
    """
    path = find_file()
    in_file = {} if path is None else _read_file(path)
    for name, value in sorted(os.environ.items()):
        if name in _variables():
            _check_text(name, name.removeprefix(PREFIX).lower(), value)
        if name in _variables() or name.startswith(_PARTNER_PREFIXES):
            found = _meant(name.removeprefix(PREFIX).lower(), value).found
            if found not in (None, pasted.AROUND):
                (warn or _to_stderr)(f"{name} holds {found}, pasted along and taken out.")
    for name, nearest in unknown_variables():
        (warn or _to_stderr)(f"{name} is no setting of Bibwire{nearest}; it is ignored.")
    try:
        settings = Settings(**in_file)
    except ValidationError as error:
        raise SettingsError(_sentence(error, in_file, path)) from None
    if (settings.caller_reg is None) != (settings.caller_secret is None):
        given, lacking = "REG", "SECRET"
        if settings.caller_reg is None:
            given, lacking = lacking, given
        raise SettingsError(
            f"{PREFIX}CALLER_{given} is set, but {PREFIX}CALLER_{lacking} is not: "
            "a caller registration is both or neither."
        )
    if settings.secret_key is not None and settings.secret_key_file is not None:
        raise SettingsError(f"{PREFIX}SECRET_KEY and {PREFIX}SECRET_KEY_FILE are both set: keep one of them.")
    return settings


def machine_zone() -> ZoneInfo:
    """Return this machine's zone; UTC where it cannot be told."""
    import tzlocal

    try:
        return tzlocal.get_localzone()
    except (ValueError, LookupError, OSError):
        return ZoneInfo("UTC")


def default_home() -> Path:
    """Return the platform's user data folder; as root /var/lib/bibwire."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        # The embedded server runs as a user of its own, which cannot reach below /root.
        return Path("/var/lib/bibwire")
    return Path(platformdirs.user_data_dir("bibwire", appauthor=False))


def find_file() -> Path | None:
    """
    Return the bibwire.toml in force: the working folder's, or else that of BIBWIRE_HOME.

    Raises:
        SettingsError: BIBWIRE_HOME is the folder of a user who is not there.
    """
    home = os.environ.get(f"{PREFIX}HOME", "").strip()
    try:
        folders = [_expanded(Path(home)) if home else default_home()]
    except ValueError as error:
        raise SettingsError(f"{PREFIX}HOME {error}.") from None
    working = _working_folder()
    if working is not None:
        folders.insert(0, working)
    for folder in folders:
        path = folder / FILE_NAME
        # Whatever else it is, a folder or a broken link, somebody meant it to be read. One in a folder that
        # is not ours to look into is not our file either.
        if os.path.lexists(path):
            return path.absolute()
    return None


def _working_folder() -> Path | None:
    """Return the folder we stand in; None: it was removed, or is closed to us."""
    try:
        return Path.cwd()
    except OSError:
        return None


def partner_token(name: str) -> str:
    """Return the partner's name as it stands in a variable: capitals, other characters as `_`."""
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


def overrides_of_nobody(names: Iterable[str]) -> list[str]:
    """Return the variables of the environment that are to override a partner's key, and are no partner's."""
    known = {f"{PREFIX}{kind}_{partner_token(name)}" for name in names for kind in ("KEY", "SECRET")}
    ours = {f"{PREFIX}{field.upper()}" for field in Settings.model_fields}
    found = [
        each for each in map(str.upper, os.environ) if each.startswith((f"{PREFIX}KEY_", f"{PREFIX}SECRET_"))
    ]
    return sorted(set(found) - known - ours)


def check_api_url(value: str) -> str:
    """
    Return `value` without a slash at its end.

    Raises:
        ValueError: It is no URL, or would send secrets in the clear beyond this machine.
    """
    wrong = ValueError("has to be a URL such as https://api.runsignup.com/rest")
    try:
        parts = urlsplit(value)
        _ = parts.port  # read, because that is when a port that is none is found out
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise wrong
    if parts.query or parts.fragment or parts.username or parts.password:
        raise ValueError("has to be a plain URL, without user, query or fragment")
    if parts.scheme == "http" and not LOOPBACK.fullmatch(parts.hostname):
        raise ValueError(
            f"would send keys in the clear to {_short(parts.hostname)}: use https "
            "(plain http is for this machine alone, a simulator for instance)"
        )
    return value.rstrip("/")


def _check_proxy(value: str) -> str:
    if "://" not in value:
        value = f"http://{value}"
    wrong = ValueError("has to be the URL of a proxy such as http://proxy.example.com:3128")
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("has to be an HTTP proxy, http:// or https://; others are not supported")
    if not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise wrong
    return value.rstrip("/")


def _check_database_url(value: str) -> None:
    scheme, separator, _ = value.partition("://")
    if separator:
        if scheme not in ("postgresql", "postgres"):
            raise ValueError("has to begin with postgresql://")
        if not pasted.is_clear(value):
            raise ValueError(
                "cannot be read: in a password write @ as %40, / as %2F, : as %3A, ? as %3F and % as %25"
            )
    elif "=" not in value:
        raise ValueError("has to be a URL such as postgresql://user@host/database")


def _passwords(database_url: str) -> list[Secret]:
    """The password inside, which a server's message may repeat without the rest."""
    try:
        in_url = urlsplit(database_url).password
    except ValueError:
        in_url = None
    in_pairs = re.findall(r"(?<![\w])password\s*=\s*('[^']*'|[^\s&]+)", database_url)
    found = [text.strip("'") for text in (in_url, *in_pairs) if text]
    return [Secret(form) for text in found for form in (text, unquote(text))]


def _read_file(path: Path) -> dict[str, Any]:
    try:
        # A pipe or a device would be read for ever.
        if not stat.S_ISREG(mode := path.stat().st_mode) and not stat.S_ISDIR(mode):
            raise SettingsError(f"{path} is no plain file: put one there, or remove it.")
        # An editor on Windows begins a file with a byte order mark.
        content = tomllib.loads(path.read_text("utf-8-sig"))
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not in UTF-8: save it again as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {_short(str(error), 200)}.") from None
    except (RecursionError, ValueError):  # neither of which the parser makes an error of its own
        raise SettingsError(f"{path} holds a number or a list that is far too long for a setting.") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from None
    known: dict[str, Any] = {}
    for key, value in content.items():
        name = key.upper().removeprefix(PREFIX).lower()
        if name not in Settings.model_fields:
            raise SettingsError(
                f"{path} has the unknown key {_short(key)}{_nearest(key)}. {_partner_hint(name)}".rstrip()
            )
        if name in known:
            raise SettingsError(f"{path} sets {PREFIX}{name.upper()} twice: keep one of them.")
        if isinstance(value, dict | list):
            raise SettingsError(
                f"In {path}, {PREFIX}{name.upper()} has to be a plain value, not a table or list."
            )
        if isinstance(value, str):
            _check_text(f"{PREFIX}{name.upper()} in {path}", name, value)
            value = _meant(name, value).text
        if name in _PATHS and isinstance(value, str):
            try:
                value = path.parent / _expanded(Path(value))
            except ValueError as error:
                raise SettingsError(f"{PREFIX}{name.upper()} in {path} {error}.") from None
        known[name] = value
    if path.parent == _working_folder() or "home" not in known:
        return known
    raise SettingsError(f"{path} cannot set BIBWIRE_HOME: it was found there. Remove the line.")


def _expanded(path: Path) -> Path:
    """
    Return a path in which `~` is somebody's home.

    Raises:
        ValueError: There is nobody of that name.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError("begins with the home folder (~) of a user who is not on this machine") from None


def _check_text(where: str, field: str, value: str) -> None:
    """
    Check that a value can be used at all: a file's name may be of any bytes but one.

    Raises:
        SettingsError: It cannot.
    """
    if "\0" in value:
        raise SettingsError(f"{where} holds a NUL character (U+0000): take it out.")
    if field not in _PATHS and re.search("[\ud800-\udfff]", value):
        raise SettingsError(f"{where} is not in UTF-8: write it again.")


def _short(value: str, longest: int = 60) -> str:
    """Return a value as a sentence repeats it: on one line, and not all of it."""
    # Cut first: it may be of any length.
    line = " ".join(value[: 4 * longest].split())
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= longest else f"{line[:longest]}…"


def _partner_hint(name: str) -> str:
    if name.startswith(("key_", "secret_")):
        return "Partners' keys are stored with bibwire partner add, not in the file."
    return ""


def unknown_variables() -> list[tuple[str, str]]:
    """Return the variables that look like settings and are none, each with ` (did you mean ...?)` or ""."""
    ours = (*_PARTNER_PREFIXES, *_OTHER_PREFIXES)
    return [
        (_short(name), _nearest(name))
        for name in sorted(os.environ)
        if name.startswith(PREFIX) and name not in _variables() and not name.startswith(ours)
    ]


def _variables() -> list[str]:
    return [PREFIX + field.upper() for field in Settings.model_fields]


def _nearest(name: str) -> str:
    wanted = PREFIX + name.upper().removeprefix(PREFIX)
    found = difflib.get_close_matches(wanted, _variables(), n=1, cutoff=0.75)
    return f" (did you mean {found[0]}?)" if found else ""


def _sentence(error: ValidationError, in_file: Mapping[str, Any], path: Path | None) -> str:
    """Say the first fault in one sentence; values are repeated only where they are no secret."""
    fault = error.errors(include_url=False)[0]
    name = str(fault["loc"][0]).removeprefix(PREFIX.lower()).lower()
    full_name = PREFIX + name.upper()
    from_file = name in in_file and full_name not in os.environ
    where = f"{full_name} in {path}" if from_file else full_name
    cause = fault.get("ctx", {}).get("error")
    if isinstance(cause, ValueError):
        return f"{where} {cause}."
    field = Settings.model_fields.get(name)
    value = fault.get("input")
    shown = "" if isinstance(value, Secret) or _is_secret(field) else f", not {_short(repr(value))}"
    return f"{where} has to be {_expected(field)}{shown}."


def _expected(field: FieldInfo | None) -> str:
    if field is None:
        return "one of the documented settings"
    kinds = {field.annotation, *getattr(field.annotation, "__args__", ())}
    if kinds & {int, float}:
        low = next(m.ge for m in field.metadata if hasattr(m, "ge"))
        high = next(m.le for m in field.metadata if hasattr(m, "le"))
        kind = "a whole number" if int in kinds else "a number"
        return f"{kind} from {low} to {high}"
    options = getattr(field.annotation, "__args__", ())
    if options and all(isinstance(option, str) for option in options):
        return "one of " + ", ".join(options)
    return "a text"


def _is_secret(field: FieldInfo | None) -> bool:
    return field is None or Secret in getattr(field.annotation, "__args__", ())


def _from_environment(name: str) -> Secret | None:
    value = pasted.clean(os.environ.get(name, "")).text
    if odd := pasted.oddity(value):
        raise SettingsError(f"{name} holds {odd}, which no key of RunSignup has: copy it again.")
    return Secret(value) if value else None


def _meant(field: str, value: str) -> pasted.Pasted:
    """Return a value as it was meant; some scripts need unseen joiners in the name of a folder."""
    return pasted.clean(value, inside=field not in _PATHS)


def _to_stderr(sentence: str) -> None:
    sys.stderr.write(f"bibwire: {sentence}\n")
