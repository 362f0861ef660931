from typing import Optional, Tuple

import torch
from torch import Tensor

Box = Tuple[slice, slice]

AREA = (0.02, 0.4)
ASPECT = (0.3, 1 / 0.3)


def cutmix(images: Tensor, labels: Tensor, mask: Tensor, prob: float) -> Tuple[Tensor, Tensor, Tensor]:
    """Paste a box of another image of the batch into each image, with its labels; CutMix as in UniMatch.

    French et al., "Semi-supervised semantic segmentation needs strong, varied perturbations", BMVC 2020; the sizes of
    the boxes are those of Yang et al., "Revisiting Weak-to-Strong Consistency", CVPR 2023: 2 to 40 % of the area.

    Args:
        images: (N, C, H, W).
        labels: (N, H, W).
        mask: Which labels count, (N, H, W).
        prob: The share of images that get a box. A single image has no other one, and stays as it is.

    Returns:
        All three, of the same shapes, new tensors.
    """
    number = len(images)
    shift = int(torch.randint(1, max(number, 2), ()))  # so that no image meets itself
    mixed = images.clone(), labels.clone(), mask.clone()
    for index in range(number):
        box = draw_box(images.shape[-2], images.shape[-1], prob)
        if box is not None:
            for new, old in zip(mixed, (images, labels, mask)):
                new[index][(..., *box)] = old[(index + shift) % number][(..., *box)]
    return mixed


def draw_box(height: int, width: int, prob: float) -> Optional[Box]:
    """Draw a box of random area, shape and place from torch's global generator; None with the chance ``1 - prob``."""
    chance, area, aspect, top, left = torch.rand(5).tolist()
    if chance >= prob:
        return None
    area = (AREA[0] + area * (AREA[1] - AREA[0])) * height * width
    aspect = ASPECT[0] + aspect * (ASPECT[1] - ASPECT[0])
    rows = max(1, min(int((area * aspect) ** 0.5), height))
    columns = max(1, min(int((area / aspect) ** 0.5), width))
    top, left = int(top * (height - rows + 1)), int(left * (width - columns + 1))
    return slice(top, top + rows), slice(left, left + columns)
