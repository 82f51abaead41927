"""Diagnostics by class and by image agree with matrices and rankings computed by hand."""

import base64
import io

import pytest
import torch
from PIL import Image

from ensdistill.data import Split
from ensdistill.evaluation.class_diagnostics import (
    CLASSES,
    EXAMPLES,
    PIXELS,
    class_accuracies,
    confusion_matrix,
    hardest_images,
    most_confused,
    part_of,
    thumbnail,
)


def log_p(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor(rows).log()


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))


def test_a_confusion_matrix_has_true_classes_in_rows_and_omits_unlabeled_images() -> None:
    predicted = log_p([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.2, 0.7, 0.1], [0.6, 0.2, 0.2], [1.0, 0.0, 0.0]])
    matrix = confusion_matrix(predicted, torch.tensor([0, 1, 0, 1, -1]))
    assert matrix.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert class_accuracies(matrix) == [0.5, 0.5, None]


def test_only_the_most_confused_of_many_classes_are_stored_and_their_rows_are_complete() -> None:
    matrix = torch.eye(1000, dtype=torch.int64) * 10
    for n in range(0, 20, 2):
        matrix[n, n + 1] = 20 - n  # later pairs have fewer errors
    matrix[0, 999] = 3
    chosen = most_confused([matrix])
    assert len(chosen) == CLASSES
    assert set(range(14)) <= set(chosen)
    rows = part_of(matrix, chosen)
    assert [sum(row) for row in rows] == matrix[chosen].sum(1).tolist()
    assert rows[0][-1] == 3


def test_the_hardest_images_are_misclassified_or_have_the_largest_kl_from_the_ensemble() -> None:
    student = log_p([[0.9, 0.1], [0.2, 0.8], [0.01, 0.99], [0.5, 0.5]])
    ensemble = log_p([[0.1, 0.9], [0.2, 0.8], [0.01, 0.99], [0.6, 0.4]])
    split = Split(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 0, 0, -1]))
    found = hardest_images(split, student, ensemble)
    assert [one["index"] for one in found["wrong"]] == [2, 1]
    assert found["wrong"][0]["value"] == pytest.approx(4.605, abs=1e-3)  # -ln 0.01
    assert [one["index"] for one in found["disputed"]] == [0, 3]
    assert found["disputed"][0]["value"] == pytest.approx(0.8 * 2.1972, abs=1e-3)  # 0.8 ln 9
    assert hardest_images(split, student, None)["disputed"] == []


def test_at_most_twelve_small_images_are_stored() -> None:
    noise = torch.randint(0, 256, (40, 3, 224, 160), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    wrong = log_p([[0.1, 0.9]] * 40)
    found = hardest_images(Split(noise, torch.zeros(40, dtype=torch.int64)), wrong, None)["wrong"]
    assert len(found) == EXAMPLES
    assert sum(len(one["thumbnail"]) for one in found) < 12 * 12_000  # noise cannot be compressed: the worst case


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "L")])
def test_thumbnails_preserve_pixels_and_proportions_and_channels(channels: int, mode: str) -> None:
    image = torch.full((channels, 8, 6), 100, dtype=torch.uint8)
    image[:, 2, 5] = 200
    small = decoded(thumbnail(image))
    assert (small.mode, small.size) == (mode, (6, 8))
    assert torch.tensor(list(small.convert("L").tobytes())).reshape(8, 6)[2, 5] == 200
    assert decoded(thumbnail(torch.zeros(channels, 96, 64, dtype=torch.uint8))).size == (PIXELS * 2 // 3, PIXELS)
