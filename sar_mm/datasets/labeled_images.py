"""Which images are labeled: drawn, or read from a list."""

import json
from collections import Counter
from typing import Dict, List, Optional, Sequence, Set, Union

import numpy as np
from mmengine.fileio import get_text

from ..checks import UsageError, check_integer


def draw_per_class(
    labels: np.ndarray,
    per_class: Union[int, Sequence[int]],
    num_classes: int,
    seed: int = 0,
    classes: Optional[Sequence[str]] = None,
) -> np.ndarray:
    """Draw images of each class without replacement.

    The first images of a permutation are drawn that depends on the seed and on the images of this class only, not on
    other classes or the global random state. With more images per class, the same ones and others are drawn.

    Args:
        labels: Class index of every image, (N,).
        per_class: Images of each class, or K numbers of images.
        num_classes: K.
        seed: Seed of the draw.
        classes: Names of the classes, for the message.

    Returns:
        Indices of the drawn images in ascending order.

    Raises:
        ValueError: A class has too few images.
    """
    numbers: List[int] = np.broadcast_to(per_class, num_classes).tolist()
    drawn = [np.zeros(0, dtype=np.int64)]
    for label, number in enumerate(numbers):
        images = np.flatnonzero(labels == label)
        if len(images) < number:
            raise UsageError(f'{class_name(label, classes)} has {len(images)} images, but {number} are to be drawn')
        drawn.append(np.random.default_rng([seed, label]).permutation(images)[:number])
    return np.sort(np.concatenate(drawn))


def class_name(label: int, classes: Optional[Sequence[str]]) -> str:
    """Return how messages call a class."""
    return f'class {label}' if classes is None else f'class {label} ({classes[label]})'


def draw_fraction(
    labels: np.ndarray, fraction: float, num_classes: int, seed: int = 0, classes: Optional[Sequence[str]] = None
) -> np.ndarray:
    """Draw round(fraction * n_k) of the n_k images of each class k, and at least one; see :func:`draw_per_class`."""
    counts = np.bincount(labels, minlength=num_classes).tolist()
    numbers = [max(1, round(fraction * number)) if number else 0 for number in counts]
    return draw_per_class(labels, numbers, num_classes, seed, classes)


def draw_covering(classes_of_image: Sequence[Set[int]], count: int, seed: int = 0) -> np.ndarray:
    """Draw images such that every class that occurs anywhere is in at least one of them.

    From the rarest class on, one image is drawn of each class that no drawn image shows, then others at random.

    Args:
        classes_of_image: The class indices that each image shows.
        count: Images to draw.
        seed: Seed of the draw.

    Returns:
        Indices of the drawn images in ascending order.

    Raises:
        ValueError: There are not as many images, or that many do not show all classes.
    """
    check_integer('count', count, 1)
    if count > len(classes_of_image):
        raise UsageError(f'there are {len(classes_of_image)} images, but {count} are to be drawn')
    order = np.random.default_rng(seed).permutation(len(classes_of_image)).tolist()
    images_of_class: Dict[int, List[int]] = {}
    for index in order:
        for label in classes_of_image[index]:
            images_of_class.setdefault(label, []).append(index)
    drawn, covered = [], set()
    for label in sorted(images_of_class, key=lambda label: (len(images_of_class[label]), label)):
        if label not in covered:
            drawn.append(images_of_class[label][0])
            covered |= set(classes_of_image[drawn[-1]])
    if len(drawn) > count:
        raise UsageError(
            f'{count} images are too few to show all {len(covered)} classes with seed {seed}, which takes {len(drawn)}'
        )
    taken = set(drawn)
    drawn += [index for index in order if index not in taken][: count - len(drawn)]
    return np.sort(np.array(drawn, dtype=np.int64))


def read_indices(path: str) -> List[int]:
    """Read the indices of labeled images.

    Args:
        path: Path or URL of a text file with an index per line, or of a JSON file with a list of them under "label", as
            the published splits of FixMatch (Sohn et al., NeurIPS 2020).

    Raises:
        ValueError: The file is neither, or holds no index, a negative one, or one twice.
    """
    text = get_text(path, encoding='utf-8-sig').strip()
    message = f'{path} is not a text file with one index per line, or JSON with a list of indices under "label"'
    try:
        indices = json.loads(text)['label'] if text.startswith('{') else [int(line) for line in text.split()]
    except (KeyError, ValueError) as error:
        raise UsageError(f'{message}: {type(error).__name__}: {error}') from error
    is_list = isinstance(indices, list) and all(type(index) is int and index >= 0 for index in indices)
    if not is_list or not indices:
        raise UsageError(message)
    twice = [index for index, number in Counter(indices).items() if number > 1]
    if twice:
        raise UsageError(f'{path} lists {len(twice)} indices twice, {twice[0]} for one')
    return indices
