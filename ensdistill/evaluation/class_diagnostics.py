"""Diagnostics per class and per image: accuracies, confusion matrices, and thumbnails of the hardest images.

The amount of data is limited, so that all diagnostics fit in a small file and on one page.
"""

import base64
import io
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ensdistill.data import Split

CLASSES = 15  # maximum number of rows in a confusion matrix
EXAMPLES = 12  # maximum number of thumbnails in each list
PIXELS = 48  # longest side of a thumbnail in pixels


def confusion_matrix(log_p: Tensor, labels: Tensor) -> Tensor:
    """Returns the number of images for each true class (row) and predicted class (column), int64 (c,c).

    Args:
        log_p: Log-probabilities, (N,c).
        labels: True classes, (N,); images with label -1 are ignored.
    """
    classes, known = log_p.shape[1], labels >= 0
    cells = labels[known] * classes + log_p[known].argmax(1)
    return torch.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def class_accuracies(confusion: Tensor) -> list[float | None]:
    """Returns the accuracy of each class, in [0, 1]; None for a class without images."""
    right, images = confusion.diagonal().tolist(), confusion.sum(1).tolist()
    return [r / n if n else None for r, n in zip(right, images, strict=True)]


def most_confused(confusions: Sequence[Tensor]) -> list[int]:
    """Returns the indices of the classes with the most errors in these matrices: at most `CLASSES`, sorted by index.

    An error counts for both the true and the predicted class, so that both classes of a confused pair tend to be shown.
    """
    total = torch.stack(list(confusions)).sum(0)
    errors = total.sum(0) + total.sum(1) - 2 * total.diagonal()
    return sorted(errors.argsort(descending=True, stable=True)[:CLASSES].tolist())


def part_of(confusion: Tensor, classes: Sequence[int]) -> list[list[int]]:
    """Returns the rows of the given classes; the columns are the given classes, followed by the sum over all others."""
    rows = confusion[list(classes)]
    shown = rows[:, list(classes)]
    others = rows.sum(1, keepdim=True) - shown.sum(1, keepdim=True)
    return [list(map(int, row)) for row in torch.cat([shown, others], 1).tolist()]


def hardest_images(split: Split, student: Tensor, ensemble: Tensor | None) -> dict[str, list[dict[str, Any]]]:
    """Returns the images that are hardest for a student, each with predictions and a thumbnail.

    Args:
        split: The images.
        student: Log-probabilities of the student, (N,c), on the CPU.
        ensemble: Log-probabilities of the ensemble, (N,c); None if there are no teachers.

    Returns:
        `wrong`: misclassified images, sorted by negative log-likelihood (nats), largest first. `disputed`: images
        sorted by KL(ensemble || student) in nats, largest first. Each list has at most `EXAMPLES` images.
    """
    labels = split.labels.cpu()
    nll = -student.gather(1, labels.clamp(min=0)[:, None])[:, 0]
    nll = torch.where((labels >= 0) & (student.argmax(1) != labels), nll.nan_to_num(posinf=1e9), -1.0)
    found = {"wrong": _examples(split, nll, student, ensemble), "disputed": []}
    if ensemble is not None:
        kl = (ensemble.exp() * (ensemble - student)).nan_to_num(nan=0.0, posinf=1e9).sum(1)
        found["disputed"] = _examples(split, kl, student, ensemble)
    return found


def _examples(split: Split, value: Tensor, student: Tensor, ensemble: Tensor | None) -> list[dict[str, Any]]:
    best = value.argsort(descending=True, stable=True)[:EXAMPLES].tolist()
    return [
        {
            "index": n,
            "label": int(split.labels[n]),
            "value": float(value[n]),
            "student": _prediction(student[n]),
            "ensemble": _prediction(ensemble[n]) if ensemble is not None else None,
            "thumbnail": thumbnail(split.images[n]),
        }
        for n in best
        if value[n] > 0
    ]


def _prediction(log_p: Tensor) -> tuple[int, float]:
    """Returns the predicted class and its probability."""
    return int(log_p.argmax()), float(log_p.max().exp())


def thumbnail(image: Tensor) -> str:
    """Returns an image as a PNG data URI; the longest side has at most `PIXELS` pixels.

    Args:
        image: uint8 image of shape (C,H,W). Three channels are interpreted as RGB; otherwise, the mean of the
            channels is drawn in gray.
    """
    from PIL import Image  # imported here, because few commands draw images

    channels = image.cpu()
    pixels = channels.permute(1, 2, 0) if len(channels) == 3 else channels.float().mean(0).round().to(torch.uint8)
    picture, file = Image.fromarray(pixels.contiguous().numpy()), io.BytesIO()
    picture.thumbnail((PIXELS, PIXELS))
    picture.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
