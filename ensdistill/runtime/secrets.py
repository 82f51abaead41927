"""Removal of passwords and tokens from text.

All text that is printed, logged, written to study files or sent to MLflow passes through `without_secrets`.
It hides credentials in URIs, values that follow a name such as `password`, tokens in known formats, secrets registered
with `register`, and the values of environment variables such as MLFLOW_TRACKING_TOKEN.
"""

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TypeVar
from urllib.parse import quote, quote_plus, unquote, unquote_plus

T = TypeVar("T")

HIDDEN = "***"
ANYWHERE, SHORTEST = 6, 4  # minimum length of a secret to hide inside longer words; minimum length to hide at all
_PLAIN = frozenset(  # common words, which are hidden only inside URIs
    """true false none null token default local auto password user root admin test train data model student teacher
    mlflow postgres postgresql mysql sqlite ensdistill""".split()  # noqa: SIM905 - a list would have one word per line
) | {HIDDEN}

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]{0,30}"  # bounded; otherwise, searching a million letters takes minutes
_FOLLOWED = rf"(?:(?!{_SCHEME}://)[^\s\"'<>|])"  # a character of a URI, unless the next URI starts there
_URI = re.compile(rf"{_SCHEME}://{_FOLLOWED}+")
_NAMES = r"(?:pass(?:word|wd|phrase)?|pwd|token|secret|api_?key|access_?key|auth|credentials?|sig(?:nature)?)"
_PARAMETER = re.compile(rf"([?&;#][\w.-]{{0,40}}?{_NAMES}=)([^&;#\s\"'<>]+)", re.IGNORECASE)
_ODBC = re.compile(r"([?&]odbc_connect=)([^&#\s]+)", re.IGNORECASE)
_WORDS = r"\b[\w-]{0,30}(?:password|passwd|pwd|passphrase|token|secret|api[_-]?key|access[_-]?key)"
_QUOTED = r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'"
_BARE = r"[^\s&;,\"'<>(){}\[\]]+"
_PAIRS = [  # one pattern each: for DSNs, shells and calls; for strings in JSON and Python; for YAML and HTTP
    re.compile(rf"({_WORDS} ?= ?)({_QUOTED}|{_BARE})", re.IGNORECASE),
    re.compile(rf"({_WORDS}[\"']: ?)({_QUOTED})", re.IGNORECASE),
    re.compile(rf"(\b[\w-]{{0,30}}(?:password|passwd|api-?key): )({_QUOTED}|{_BARE})", re.IGNORECASE),
]
_HEADER = re.compile(r"(\bauthorization\W+\w+\s+|\bbearer\s+)([\w.~+/=-]{4,})", re.IGNORECASE)
_TOKEN = re.compile(r"()\b((?:hf_|gh[pousr]_|github_pat_|glpat-|sk-|dapi)\w{20,}|AKIA[0-9A-Z]{16}\b)")
_NO_AUTHORITY = ("sqlite", "file")  # an "@" in the paths of these schemes does not mark a credential

_SECRET_VARIABLE = re.compile(
    r"PASSWORD|(?:^|_)(?:PASSWD|PASSPHRASE|PASS|PWD|TOKEN|SECRETS?|CREDENTIALS?|APIKEY|API_KEY|ACCESS_KEY|"
    r"ACCESS_KEY_ID|PRIVATE_KEY|ACCOUNT_KEY)(?:_|$)"
)
_OTHER_VARIABLE = re.compile(r"^(?:OLD)?PWD$|_(?:FILE|PATH|DIR|MODE|TYPE|URL|TIMEOUT|COMMAND)$")

_registered: set[str] = set()


def register(uri: str) -> None:
    """Registers the credentials of a URI, so that they are masked in all output, with or without percent-encoding.

    Args:
        uri: The URI.
    """
    _registered.update(secrets_of(uri))


def without_secrets(text: str) -> str:
    """Returns the text with every password and token replaced by `***`."""
    text = _in_uris(text)
    for pattern in (*_PAIRS, _HEADER, _TOKEN):
        text = pattern.sub(_hidden, text)
    known = _registered | _of_environment()
    return _pattern(frozenset(known)).sub(HIDDEN, text) if known else text


def _hidden(found: re.Match[str]) -> str:
    """Returns the match of a pattern with the second group hidden; keeps quotes, so that JSON remains valid."""
    quote_mark = found[2][0] if found[2][0] in "\"'" else ""
    return f"{found[1]}{quote_mark}{HIDDEN}{quote_mark}"


def cleaned(value: T) -> T:
    """Returns a tree of JSON values in which secrets in strings are hidden; numbers and keys are unchanged."""
    if isinstance(value, str):
        return without_secrets(value)  # type: ignore[return-value]
    if isinstance(value, Mapping):
        return {name: cleaned(one) for name, one in value.items()}  # type: ignore[return-value]
    return [cleaned(one) for one in value] if isinstance(value, list | tuple) else value  # type: ignore[return-value]


def without_credentials(uri: str) -> str:
    """Returns the URI with its credentials replaced by `***`; a database user name is kept."""
    scheme, colon, rest = uri.partition("://")
    if not colon:
        return uri
    user = userinfo(scheme, rest)
    if user is not None and (":" in user or _is_http(scheme)):
        kept = "" if _is_http(scheme) else f"{user.partition(':')[0]}:"
        rest = f"{kept}{HIDDEN}{rest[len(user) :]}"
    for pattern in (_ODBC, _PARAMETER):
        rest = pattern.sub(rf"\1{HIDDEN}", rest)
    return f"{scheme}://{rest}"


def userinfo(scheme: str, rest: str) -> str | None:
    """Returns the user information of a URI, `user:password`.

    Args:
        scheme: The part of the URI before `://`.
        rest: The part of the URI after `://`. The password may contain "/", "?", "#" or "@" unencoded.

    Returns:
        The text before the host; None if the URI has no user information.
    """
    if scheme.partition("+")[0].lower() in _NO_AUTHORITY:
        return None
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        return authority.rpartition("@")[0]
    unquoted = re.match(r"[^/?#:@\[]*:(?!\d*(?:[/?#]|$))", rest)  # the text after the colon is not a port
    return rest.rpartition("@")[0] if unquoted and "@" in rest else None


def secrets_of(uri: str) -> set[str]:
    """Returns the passwords and tokens in a URI, both decoded and in the encodings that other programs use."""
    scheme, colon, rest = uri.partition("://")
    if not colon:
        return set()
    user, found = userinfo(scheme, rest), list[str]()
    if user is not None:
        name, with_password, password = user.partition(":")
        found += [password] if password else []
        # The user name is a token if the password is missing, empty, or a fixed placeholder.
        found += [name] if _is_http(scheme) and (not with_password or password in ("", "x-oauth-basic")) else []
        found += [base64.b64encode(unquote(user).encode()).decode()] if with_password and password else []
    found += [value for _, value in _PARAMETER.findall(rest)]
    for _, value in _ODBC.findall(rest):
        found += [value, *(pair for _, pair in _PAIRS[0].findall(unquote_plus(value)))]
    public = {part.lower() for part in re.split(r"[^\w-]+", without_credentials(uri))}
    return {form for secret in found if secret.lower() not in public for form in _forms(secret)}


def _is_http(scheme: str) -> bool:
    return scheme.lower() in ("http", "https")


def _in_uris(text: str) -> str:
    if "://" not in text:
        return text
    return _URI.sub(lambda found: without_credentials(found.group()), text)


def _forms(secret: str) -> Iterator[str]:
    """Yields the secret as written in URLs, JSON and Python; nothing if it is too short or too common to hide."""
    for plain in {secret.strip(), unquote(secret).strip()}:
        if len(plain) >= SHORTEST and plain.lower() not in _PLAIN:
            yield from (plain, quote(plain, safe=""), quote_plus(plain), json.dumps(plain)[1:-1], repr(plain)[1:-1])


def _of_environment() -> set[str]:
    return set(_of_variables(tuple((name, value) for name, value in os.environ.items() if _may_hold(name, value))))


def _may_hold(name: str, value: str) -> bool:
    if "://" in value:
        return "@" in value or "=" in value
    return len(value) >= ANYWHERE and bool(_SECRET_VARIABLE.search(name)) and not _OTHER_VARIABLE.search(name)


@lru_cache(maxsize=8)
def _of_variables(variables: Iterable[tuple[str, str]]) -> frozenset[str]:
    found = (secrets_of(value) if "://" in value else _forms(value) for _, value in variables)
    return frozenset(form for forms in found for form in forms)


@lru_cache(maxsize=8)
def _pattern(secrets: frozenset[str]) -> re.Pattern[str]:
    return re.compile("|".join(_anywhere(secret) for secret in sorted(secrets, key=len, reverse=True)))


def _anywhere(secret: str) -> str:
    word = re.escape(secret)
    if secret.isdigit():  # digits inside a longer number are not a secret
        return rf"(?<![\w.]){word}(?!\w|\.\d)"
    return word if len(secret) >= ANYWHERE else rf"(?<![A-Za-z0-9]){word}(?![A-Za-z0-9])"
