"""The first axis: how one network holds several functions. To add a piece: one class in a module of this folder.

Its network is a `Student` (`base.py`), in a module `..._student.py` of its own, which imports torch.
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
