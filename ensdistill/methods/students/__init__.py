"""The first axis: how one network holds several functions. To add a piece: one class, one line in `StudentSettings`."""

from typing import Annotated

from pydantic import Field

from ensdistill.methods.students.batch_ensemble import BatchEnsemble
from ensdistill.methods.students.branches import Branches
from ensdistill.methods.students.single import Single

StudentSettings = Annotated[Single | BatchEnsemble | Branches, Field(discriminator="kind")]

__all__ = ["BatchEnsemble", "Branches", "Single", "StudentSettings"]
