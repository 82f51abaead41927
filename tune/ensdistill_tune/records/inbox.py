"""Requests to a study, stored as files in `<study>/inbox/`. The process that runs the study removes the files."""

import contextlib
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from ensdistill.runtime.files import write_json


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EnqueueRequest(_Request):
    """Request to start the next search trial with these settings."""

    kind: Literal["enqueue"] = "enqueue"
    settings: dict[str, Any]


class StopRequest(_Request):
    """Request to stop a trial, or the study if `trial` is None."""

    kind: Literal["stop"] = "stop"
    trial: int | None = None


Request = Annotated[EnqueueRequest | StopRequest, Field(discriminator="kind")]
_ANY: TypeAdapter[Request] = TypeAdapter(Request)


class Inbox:
    """Folder that contains the requests to a study."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def send(self, request: Request) -> str:
        """Writes a request and returns its name. Alphabetically sorted names are in chronological order."""
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        write_json(self.folder / f"{name}.json", request.model_dump())
        return name

    def pending(self) -> Iterator[tuple[str, Request | None]]:
        """Yields the name and content of each pending request, oldest first; the content of an invalid file is None."""
        names: list[str] = []
        with contextlib.suppress(OSError):  # the folder does not exist yet or cannot be read
            names = sorted(file.stem for file in self.folder.glob("[!.]*.json") if file.is_file())
        for name in names:
            yield name, self._read(name)

    def holds(self, name: str) -> bool:
        """Returns whether a request is pending."""
        return self._file(name).exists()

    def remove(self, name: str) -> None:
        """Removes an answered request. Ignores a file that cannot be removed."""
        with contextlib.suppress(OSError):
            self._file(name).unlink()

    def drop_stops(self) -> None:
        """Removes stop requests, because they apply only to the session in which they were sent."""
        for name, request in self.pending():
            if isinstance(request, StopRequest):
                self.remove(name)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _read(self, name: str) -> Request | None:
        try:
            return _ANY.validate_json(self._file(name).read_bytes())
        except (OSError, ValueError):
            return None
