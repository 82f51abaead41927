"""Base class of all contract suites: each test runs once per piece."""

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from ensdistill.config import Config
from ensdistill.settings.fields import families_of
from ensdistill.settings.pieces import Piece, kind_of


class Contract:
    """Base class of all contract suites.

    Attributes:
        pieces: Instances to test. If empty, the class must define a `piece` fixture.
    """

    pieces: ClassVar[Sequence[Any]] = ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Parametrizes each test that has a `piece` argument over all pieces."""
        if self.pieces and "piece" in metafunc.fixturenames:
            metafunc.parametrize("piece", self.pieces, ids=_id)

    def test_piece_is_restored_from_its_dump(self, piece: Piece) -> None:
        """A piece restored from its dumped kind and settings equals the original."""
        dumped = piece.model_dump(mode="json")
        family = next(one for one in families_of(Config) if isinstance(piece, one.base))
        found = family.find(dumped["kind"])
        assert found is type(piece)
        assert found.model_validate(dumped) == piece

    def test_every_setting_has_a_description(self, piece: Piece) -> None:
        """Every setting has a description, which `--help` prints."""
        fields = type(piece).model_fields
        assert [name for name, field in fields.items() if name != "kind" and not field.description] == []


def _id(piece: Any) -> str | None:
    """Returns the name of a piece in test ids: its kind and its non-default settings."""
    if not isinstance(piece, Piece):
        return None
    changed = [f"{name}={getattr(piece, name)}" for name in piece.model_fields_set - {"kind"}]
    return "-".join([kind_of(type(piece)), *sorted(changed)])
