"""Location of a study, and the device on which its teachers are trained."""

from dataclasses import dataclass
from pathlib import Path

from ensdistill_tune.records.study_directory import StudyDirectory


@dataclass(frozen=True)
class StudyLocation:
    """Location of a study.

    Attributes:
        studies: Folder that contains all studies.
        name: Name of the study.
        device: Device on which teachers are trained.
    """

    studies: Path
    name: str
    device: str = "auto"

    @property
    def home(self) -> Path:
        """Folder of this study."""
        return self.studies / self.name

    @property
    def folder(self) -> StudyDirectory:
        """Files of this study."""
        return StudyDirectory(self.home)
