"""Credentials of MLflow stores: kept in the memory of this process, never in a study.

A study holds the URI of its store with `***` in the place of the credentials. `whole` puts them back for the moment of
a connection. In a later process they are given again, with --tracking-uri or in the environment.
"""

import os
import re
from urllib.parse import quote

from ensdistill.errors import ConfigError
from ensdistill.runtime.secrets import HIDDEN, register, userinfo, without_credentials

_known: dict[str, str] = {}  # whole URIs by their public form
_SAFE = "%!$&'()*+,;="  # characters of user and password that a URI takes as they are
_PASSWORDS = {"postgresql": ("PGPASSWORD", "PGPASSFILE"), "mysql": ("MYSQL_PWD",)}  # read by the drivers themselves
_LOGIN, _TOKEN = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"), ("MLFLOW_TRACKING_TOKEN",)


def public(uri: str) -> str:
    """The URI without its credentials, which `whole` returns in this process and every output hides from now on."""
    shown = without_credentials(uri)
    if HIDDEN not in uri and shown != uri:
        register(uri)
        _known[shown] = uri
    return shown


def give_credentials(uri: str, given: str) -> None:
    """Gives this process the credentials of a study's store.

    Args:
        uri: The store of the study, without credentials.
        given: The same with credentials.

    Raises:
        ConfigError: It is another store.
    """
    if public(given) != uri:
        raise ConfigError(
            f"--tracking-uri: must be the store of this study, {uri}, got {public(given)}. To send a study to another "
            "store, use `resume --tracking-uri`."
        )


def whole(uri: str) -> str:
    """The URI with its credentials, quoted as URIs are.

    Raises:
        ConfigError: They were given neither to this process nor in its environment.
    """
    given = _known.get(uri) or _in_environment(uri)
    if given is None:
        raise ConfigError(f"tracking.uri: the credentials of {uri} are not stored. {_fix(uri)}")
    return _quoted(given)


def _in_environment(uri: str) -> str | None:
    """The URI as far as environment variables complete it; None if they do not."""
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
    """The URI without what stands for its credentials: MLflow or the driver read them from the environment."""
    uri = uri.replace(f"://{HIDDEN}@", "://").replace(f":{HIDDEN}@", "@")
    return re.sub(rf"[?&;][\w.-]+={re.escape(HIDDEN)}", "", uri)


def _fix(uri: str) -> str:
    others = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    dialect = uri.partition("://")[0].partition("+")[0]
    others = others if dialect in ("http", "https") else ", ".join(_PASSWORDS.get(dialect, ()))
    return f"Give the whole URI with --tracking-uri or in MLFLOW_TRACKING_URI{f', or set {others}' if others else ''}."


def _quoted(uri: str) -> str:
    """The URI with user and password in a form that every parser of URIs reads alike."""
    scheme, _, rest = uri.partition("://")
    user = userinfo(scheme, rest)
    if not user:
        return uri
    name, colon, password = user.partition(":")
    return f"{scheme}://{_quoted_part(name)}{colon}{_quoted_part(password)}{rest[len(user) :]}"


def _quoted_part(text: str) -> str:
    return quote(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", text), safe=_SAFE)
