"""First component of a method: the student's architecture, one network with several subnetworks.

To add a student, add one settings class to a module of this folder. Its network is a `Student` (`base.py`) in a
separate module `..._student.py`, which imports torch.
"""

from typing import Annotated

from ensdistill.methods.students.batch_ensemble import BatchEnsemble
from ensdistill.methods.students.branches import Branches
from ensdistill.methods.students.settings import StudentPiece
from ensdistill.methods.students.single import Single
from ensdistill.settings.families import PieceFamily

STUDENTS = PieceFamily("students", StudentPiece, __name__, skip=("base", "layers", "*_student"))
StudentSettings = Annotated[StudentPiece, STUDENTS]

__all__ = ["STUDENTS", "BatchEnsemble", "Branches", "Single", "StudentPiece", "StudentSettings"]
