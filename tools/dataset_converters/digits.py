"""Turn scikit-learn's 1,797 real handwritten digits into two small long-tailed data sets, without a download.

    python tools/dataset_converters/digits.py            # writes data/digits, takes seconds

``classification/{train,test}/<digit>/<number>.png`` is what mmpretrain's CustomDataset reads: 8x8 images, class k with
``int(120 * 50 ** (-k / 9))`` of them for training and 54 for testing. ``classification/train_balanced`` holds all 120
training images of every digit, for semi-supervised learning.

``segmentation/{img_dir,ann_dir}/{train,val}/<number>.png`` is what mmseg's BaseSegDataset reads: 64x64 scenes of four
digits on a textured background, labeled 0 to 9 and 10 for the background. The training scenes show class k
``int(400 * 50 ** (-k / 9))`` times, the validation scenes show all digits equally often.

No handwritten digit is used for both training and testing.
"""

import argparse
from pathlib import Path
from typing import List, Sequence


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path('data/digits'), help='folder to write')
    return parser.parse_args()


if __name__ == '__main__':  # before the imports below, which take seconds
    ARGS = parse_args()

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

NUM_CLASSES = 10
IMBALANCE_FACTOR = 50
TRAIN_POOL = 120  # images per class for training; the smallest class has 174 in all
TEST_POOL = 54
SCENE_SIZE = 64
DIGITS_PER_SCENE = 4
TRAIN_INSTANCES = 400  # of the most frequent class in the scenes
VAL_INSTANCES = 40  # of every class
PALETTE = (
    ((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75))
    + ((227, 119, 194), (188, 189, 34), (23, 190, 207), (255, 221, 113))
    + ((40, 40, 40),)
)


def long_tailed_counts(largest: int) -> List[int]:
    """Return the counts per class of an exponential profile, class 0 the most frequent."""
    return [int(largest * IMBALANCE_FACTOR ** (-k / (NUM_CLASSES - 1))) for k in range(NUM_CLASSES)]


def write_classification(out: Path, pools: dict) -> None:
    """Write every image of the pools, and of the training pool also the first of each class: the long-tailed set."""
    splits = dict(
        train=(pools['train'], long_tailed_counts(TRAIN_POOL)),
        train_balanced=(pools['train'], [TRAIN_POOL] * NUM_CLASSES),
        test=(pools['test'], [TEST_POOL] * NUM_CLASSES),
    )
    for split, (pool, counts) in splits.items():
        for label, (images, count) in enumerate(zip(pool, counts)):
            folder = out / split / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            for number, image in enumerate(images[:count]):
                Image.fromarray(image).save(folder / f'{number:04d}.png')


def draw_background(rng: np.random.Generator) -> np.ndarray:
    """Return a colour texture, (H, W, 3) in [0, 255]: coarse and fine noise."""
    layers = []
    for cells, amplitude in ((4, 60), (16, 30), (SCENE_SIZE, 12)):
        noise = (rng.random((cells, cells, 3)) * 255).astype(np.uint8)
        noise = Image.fromarray(noise).resize((SCENE_SIZE, SCENE_SIZE), Image.BICUBIC)
        layers.append((np.asarray(noise, dtype=float) - 127) / 127 * amplitude)
    return np.clip(110 + sum(layers), 0, 255)


def draw_scene(digits: Sequence, rng: np.random.Generator):
    """Draw (image, label) pairs into the cells of a grid; returns the picture and its label map."""
    scene = draw_background(rng)
    labels = np.full((SCENE_SIZE, SCENE_SIZE), NUM_CLASSES, dtype=np.uint8)
    cell = SCENE_SIZE // 2
    for position, (image, label) in enumerate(digits):
        size = int(rng.integers(22, cell - 1))
        top, left = rng.integers(0, cell - size + 1, size=2) + cell * np.array(divmod(position, 2))
        ink = np.asarray(Image.fromarray(image).resize((size, size), Image.BICUBIC), dtype=float) / 255
        window = (slice(top, top + size), slice(left, left + size))
        colour = rng.choice([rng.uniform(190, 255, 3), rng.uniform(0, 40, 3)])
        scene[window] += ink[:, :, None] * (colour - scene[window])
        labels[window][ink > 0.4] = label
    return Image.fromarray(scene.round().astype(np.uint8)), labels


def write_segmentation(out: Path, pools: dict, rng: np.random.Generator) -> None:
    """Deal the digits into scenes, the last of which may show fewer."""
    counts = dict(train=long_tailed_counts(TRAIN_INSTANCES), val=[VAL_INSTANCES] * NUM_CLASSES)
    for split, pool in dict(train=pools['train'], val=pools['test']).items():
        instances = [
            (images[i % len(images)], label)
            for label, (images, count) in enumerate(zip(pool, counts[split]))
            for i in range(count)
        ]
        instances = [instances[i] for i in rng.permutation(len(instances))]
        for folder in ('img_dir', 'ann_dir'):
            (out / folder / split).mkdir(parents=True, exist_ok=True)
        for number, start in enumerate(range(0, len(instances), DIGITS_PER_SCENE)):
            scene, labels = draw_scene(instances[start : start + DIGITS_PER_SCENE], rng)
            scene.save(out / 'img_dir' / split / f'{number:04d}.png')
            # A palette makes the label maps readable for people; the pixels stay class indices.
            labels = Image.fromarray(labels, mode='P')
            labels.putpalette([value for colour in PALETTE for value in colour])
            labels.save(out / 'ann_dir' / split / f'{number:04d}.png')


def main(args: argparse.Namespace) -> None:
    out = args.out

    rng = np.random.default_rng(0)
    digits = load_digits()
    pools = dict(train=[], test=[])
    for label in range(NUM_CLASSES):
        images = (digits.images[digits.target == label] * (255 / 16)).round().astype(np.uint8)
        images = images[rng.permutation(len(images))]
        pools['train'].append(images[:TRAIN_POOL])
        pools['test'].append(images[TRAIN_POOL : TRAIN_POOL + TEST_POOL])

    write_classification(out / 'classification', pools)
    write_segmentation(out / 'segmentation', pools, rng)
    for folder in (out / 'classification', out / 'segmentation' / 'img_dir'):
        for split in sorted(folder.iterdir()):
            print(f'{sum(1 for _ in split.rglob("*.png")):5d} images in {split}')


if __name__ == '__main__':
    main(ARGS)
