"""Where a study is, and where its teachers are trained."""

from dataclasses import dataclass
from pathlib import Path

from ensdistill_tune.records.study_directory import StudyDirectory


@dataclass(frozen=True)
class StudyLocation:
    """Where a study is.

    Attributes:
        studies: The folder of all studies.
        name: Name of the study.
        device: Device on which teachers are trained.
    """

    studies: Path
    name: str
    device: str = "auto"

    @property
    def home(self) -> Path:
        """The folder of this study."""
        return self.studies / self.name

    @property
    def folder(self) -> StudyDirectory:
        """Its files."""
        return StudyDirectory(self.home)
