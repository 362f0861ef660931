from typing import List, NamedTuple, Optional

from torch import Tensor

from .task_losses import Part


class View(NamedTuple):
    """Unlabeled images with their pseudo-labels."""

    images: Tensor  # (N, C, H, W)
    label: Tensor  # (N,) or (N, H, W)
    mask: Tensor  # which labels count, of the same shape
    inside: Tensor  # what is no padding, of the same shape
    samples: List  # data samples of the images

    @property
    def weight(self) -> Optional[Tensor]:
        """The mask as weights of the images, (N,); None for pixels, which are ignored by their label."""
        return self.mask.float() if self.mask.dim() == 1 else None

    @property
    def part(self) -> Part:
        """These images as a part of a batch whose losses are split."""
        return Part(len(self.images), self.weight, self.inside.float().mean())
