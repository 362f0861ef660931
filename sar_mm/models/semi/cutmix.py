"""CutMix as in UniMatch: French et al., BMVC 2020, with boxes of 2 to 40 % of the area as in Yang et al., CVPR 2023."""

from typing import List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

Box = Tuple[slice, slice]


AREA = (0.02, 0.4)
ASPECT = (0.3, 1 / 0.3)


class Paste(NamedTuple):
    """A box that an image gets from another one."""

    target: int
    source: int
    box: Box


def draw_pastes(number: int, height: int, width: int, prob: float) -> List[Paste]:
    """Draw a box of another image for the share ``prob`` of ``number`` images; a single image has no other one."""
    shift = int(torch.randint(1, max(number, 2), ()))  # so that no image meets itself
    boxes = [draw_box(height, width, prob) for _ in range(number)]
    return [Paste(index, (index + shift) % number, box) for index, box in enumerate(boxes) if box is not None]


def paste(values: Tensor, pastes: List[Paste], source: Optional[Tensor] = None) -> Tensor:
    """Return images, labels or masks (N, ..., H, W) with boxes of ``source``, or of themselves, pasted into them."""
    if not pastes:
        return values
    source = values if source is None else source
    pasted = values.clone()
    for each in pastes:
        pasted[each.target][(..., *each.box)] = source[each.source][(..., *each.box)]
    return pasted


def draw_box(height: int, width: int, prob: float) -> Optional[Box]:
    """Draw a box of random area, shape and place from torch's global generator; None with the chance ``1 - prob``.

    Shape and place are drawn again until the box fits. Its aspect is relative to the image's, or none might fit.
    """
    chance, area = torch.rand(2).tolist()
    if chance >= prob:
        return None
    area = AREA[0] + area * (AREA[1] - AREA[0])
    while True:
        aspect, top, left = torch.rand(3).tolist()
        aspect = ASPECT[0] + aspect * (ASPECT[1] - ASPECT[0])
        rows, columns = max(1, int(height * (area * aspect) ** 0.5)), max(1, int(width * (area / aspect) ** 0.5))
        top, left = int(top * height), int(left * width)
        if top + rows <= height and left + columns <= width:
            return slice(top, top + rows), slice(left, left + columns)
