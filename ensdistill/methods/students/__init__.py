"""First component of a method: the student's architecture, which is one network with one or more subnetworks.

To add a student, add one settings class to a module in this folder. The network, a `Student` (`base.py`), is defined in
a separate module `..._student.py`, which imports torch.
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
