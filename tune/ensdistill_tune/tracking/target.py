"""The MLflow store of a study, and checks of its URI that require no connection."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from ensdistill.errors import ConfigError
from ensdistill_tune.credentials import whole
from ensdistill_tune.study.study_config import StudyConfig

DATABASE = "mlflow.db"  # file name of the default store, in the folder that contains all studies
ARTIFACTS = "artifacts"  # name of the artifact folder next to the default store
DRIVERS = {"postgresql": "psycopg", "mysql": "MySQLdb"}  # drivers that SQLAlchemy imports by default


@dataclass(frozen=True)
class MlflowTarget:
    """MLflow store and experiment that contain the runs of one study.

    Attributes:
        uri: The store, without credentials.
        experiment: Name of the experiment.
        study: Name of the study.
        identity: Identity of the study, independent of its name.
        folder: Folder of the study; artifact names are relative to it.
        artifacts: Folder of the artifacts, for stores that are not servers.
        database: SQLite file of the default store, which can be moved with its artifacts; None for other stores.
    """

    uri: str
    experiment: str
    study: str
    identity: str
    folder: Path
    artifacts: Path
    database: Path | None = None

    @classmethod
    def of_study(cls, study: StudyConfig, studies: Path, name: str, identity: str) -> "MlflowTarget":
        """Returns the target of a study.

        Args:
            study: The settings.
            studies: The folder that contains all studies.
            name: Name of the study.
            identity: Identity of the study.
        """
        uri = store_of(study, studies)
        database = studies / DATABASE if uri == default_uri(studies) else None
        return cls(uri, study.tracking.experiment, name, identity, studies / name, studies / ARTIFACTS, database)


def store_of(study: StudyConfig, studies: Path) -> str:
    """Returns the URI of the store of a study, without credentials."""
    return study.tracking.uri or default_uri(studies)


def default_uri(studies: Path) -> str:
    """Returns the URI of the SQLite store that all studies in a folder share."""
    file = str((studies / DATABASE).resolve())
    if not set(file) & set("%?"):
        return f"sqlite:///{file}"
    # SQLAlchemy unquotes the path. Without a driver in the URI, MLflow would create a folder with the quoted name.
    return f"sqlite+pysqlite:///{quote(file)}"


def check_uri(uri: str) -> None:
    """Checks the form of a store URI, without a connection to the store.

    Args:
        uri: URI of the store, without credentials.

    Raises:
        ConfigError: MLflow does not support the URI, its folder does not exist, or its driver is not installed.
    """
    whole(uri)
    scheme, colon, rest = uri.partition("://")
    dialect, _, driver = scheme.partition("+")
    if not colon or dialect not in ("sqlite", "postgresql", "mysql", "mssql", "http", "https"):
        raise ConfigError(
            f"tracking.uri {uri}: MLflow has no such store; use http://HOST:PORT, postgresql://... or sqlite:///FILE"
        )
    if dialect != "sqlite" and not _has_host_and_port(uri):
        raise ConfigError(f"tracking.uri {uri}: host and port must be HOST or HOST:PORT, with a port from 1 to 65535")
    folder = Path(unquote(rest.removeprefix("/").partition("?")[0])).parent
    if dialect == "sqlite" and not folder.is_dir():
        raise ConfigError(f"tracking.uri {uri}: the folder {folder} does not exist")
    module = "" if dialect == "sqlite" else driver or DRIVERS.get(dialect, "")
    if module and importlib.util.find_spec(module) is None:
        raise ConfigError(f"tracking.uri {uri}: the driver {module} is not installed")


def _has_host_and_port(uri: str) -> bool:
    """Returns whether a URI has a valid host and port.

    The host of a database may be missing or given as a query parameter.
    """
    try:
        found = urlsplit(uri)
        return found.port != 0 and bool(found.hostname or not found.scheme.startswith("http"))
    except ValueError:
        return False
