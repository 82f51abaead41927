"""A data source."""

import torch

from ensdistill.data import DataSource, RawData, Split, SplitSizes
from ensdistill.settings.base import setting


class Stripes(DataSource, SplitSizes):
    """Horizontal and vertical stripes under noise."""

    images: int = setting(200, "Number of images.", ge=10, le=100_000)
    noise: float = setting(0.5, "Standard deviation of the noise; white is 1.", ge=0, le=10)
    train_size: int = setting(60, "Number of labeled training images.", ge=2)
    val_size: int = setting(60, "Number of validation images.", ge=2)
    test_size: int = setting(60, "Number of test images.", ge=2)

    def __call__(self):
        generator = torch.Generator().manual_seed(self.seed)
        labels = torch.arange(self.images) % 2
        rows = torch.arange(8).view(1, 8, 1).expand(self.images, 8, 8) % 2
        clean = torch.where(labels.view(-1, 1, 1) == 0, rows, rows.mT).float()
        noisy = (clean + self.noise * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
        return RawData(Split((noisy * 255).to(torch.uint8).unsqueeze(1), labels), ("horizontal", "vertical"))
