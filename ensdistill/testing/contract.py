"""What all contract suites share: each test runs once for each piece."""

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from ensdistill.config import Config
from ensdistill.settings.fields import families_of
from ensdistill.settings.pieces import Piece, kind_of


class Contract:
    """Base of all contract suites.

    Attributes:
        pieces: Instances to test. Without them the class has a fixture `piece`.
    """

    pieces: ClassVar[Sequence[Any]] = ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Runs each test that takes a `piece` for each of them."""
        if self.pieces and "piece" in metafunc.fixturenames:
            metafunc.parametrize("piece", self.pieces, ids=_id)

    def test_piece_is_found_again_by_what_a_file_has_of_it(self, piece: Piece) -> None:
        """The kind in its dump leads back to an equal piece."""
        dumped = piece.model_dump(mode="json")
        family = next(one for one in families_of(Config) if isinstance(piece, one.base))
        found = family.find(dumped["kind"])
        assert found is type(piece)
        assert found.model_validate(dumped) == piece

    def test_every_setting_has_a_sentence(self, piece: Piece) -> None:
        """It is what `--help` shows."""
        fields = type(piece).model_fields
        assert [name for name, field in fields.items() if name != "kind" and not field.description] == []


def _id(piece: Any) -> str | None:
    if not isinstance(piece, Piece):
        return None
    changed = [f"{name}={getattr(piece, name)}" for name in piece.model_fields_set - {"kind"}]
    return "-".join([kind_of(type(piece)), *sorted(changed)])
