"""Credentials for MLflow stores, kept only in the memory of this process and never written to a study.

The files of a study contain the URI of its store with `***` in place of the credentials. `whole` puts the credentials
back when a connection is opened. Any other process must be given the credentials again, with --tracking-uri or in the
environment.
"""

import os
import re
from urllib.parse import quote

from ensdistill.errors import ConfigError
from ensdistill.runtime.secrets import HIDDEN, register, userinfo, without_credentials

_known: dict[str, str] = {}  # complete URIs, keyed by the URI without credentials
_SAFE = "%!$&'()*+,;="  # characters that are not percent-encoded in the user and password of a URI
_PASSWORDS = {"postgresql": ("PGPASSWORD", "PGPASSFILE"), "mysql": ("MYSQL_PWD",)}  # read by the database drivers
_LOGIN, _TOKEN = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"), ("MLFLOW_TRACKING_TOKEN",)


def public(uri: str) -> str:
    """Returns a URI without its credentials.

    The credentials stay in the memory of this process, from which `whole` restores them, and are masked in all output.

    Args:
        uri: URI of a store, with or without credentials.
    """
    shown = without_credentials(uri)
    if HIDDEN not in uri and shown != uri:
        register(uri)
        _known[shown] = uri
    return shown


def give_credentials(uri: str, given: str) -> None:
    """Keeps the credentials for a study's MLflow store in the memory of this process.

    Args:
        uri: URI of the store, without credentials.
        given: The same URI with credentials.

    Raises:
        ConfigError: The URIs refer to different stores.
    """
    if public(given) != uri:
        raise ConfigError(
            f"--tracking-uri: must be the store of this study, {uri}, got {public(given)}. To send a study to another "
            "store, use `resume --tracking-uri`."
        )


def whole(uri: str) -> str:
    """Returns a URI that includes the percent-encoded credentials.

    Args:
        uri: URI of a store, without credentials.

    Raises:
        ConfigError: Neither a URI given earlier nor the environment contains the credentials.
    """
    given = _known.get(uri) or _in_environment(uri)
    if given is None:
        raise ConfigError(f"tracking.uri: the credentials of {uri} are not stored. {_fix(uri)}")
    return _quoted(given)


def _in_environment(uri: str) -> str | None:
    """Returns the URI with credentials from environment variables; None if these contain no credentials."""
    if HIDDEN not in uri:
        return uri
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    if public(given) == uri:
        return given
    dialect = uri.partition("://")[0].partition("+")[0]
    if dialect in ("http", "https"):
        complete = any(all(os.environ.get(name) for name in names) for names in (_LOGIN, _TOKEN))
    else:
        complete = any(os.environ.get(name) for name in _PASSWORDS.get(dialect, ()))
    return _without_marks(uri) if complete else None


def _without_marks(uri: str) -> str:
    """Returns the URI without `***`, because MLflow or the driver reads the credentials from the environment."""
    uri = uri.replace(f"://{HIDDEN}@", "://").replace(f":{HIDDEN}@", "@")
    return re.sub(rf"[?&;][\w.-]+={re.escape(HIDDEN)}", "", uri)


def _fix(uri: str) -> str:
    others = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    dialect = uri.partition("://")[0].partition("+")[0]
    others = others if dialect in ("http", "https") else ", ".join(_PASSWORDS.get(dialect, ()))
    return (
        f"Give the complete URI with --tracking-uri or in MLFLOW_TRACKING_URI{f', or set {others}' if others else ''}."
    )


def _quoted(uri: str) -> str:
    """Percent-encodes the user and password of a URI, so that all URI parsers read the URI in the same way."""
    scheme, _, rest = uri.partition("://")
    user = userinfo(scheme, rest)
    if not user:
        return uri
    name, colon, password = user.partition(":")
    return f"{scheme}://{_quoted_part(name)}{colon}{_quoted_part(password)}{rest[len(user) :]}"


def _quoted_part(text: str) -> str:
    return quote(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", text), safe=_SAFE)
