"""Turn the published lists of ImageNet-LT, Places-LT and iNaturalist 2018 into annotation files for mmpretrain.

    python tools/dataset_converters/long_tailed_lists.py imagenet-lt --lists LISTS --images data/imagenet --out data/imagenet_lt

writes ``meta/train.txt``, ``meta/val.txt`` and ``meta/test.txt`` into the folder of ``--out``, a line
``relative/path label`` per image, for mmpretrain's data sets:
``dict(type='CustomDataset', data_root='data/imagenet_lt', ann_file='meta/train.txt', data_prefix='../imagenet', ...)``.

LISTS is the folder with

- ``ImageNet_LT_{train,val,test}.txt`` or ``Places_LT_{train,val,test}.txt`` (Liu et al., CVPR 2019), or
- ``iNaturalist18_{train,val}.txt``, or iNaturalist's own ``train2018.json`` and ``val2018.json``; its test set has no
  published labels.

The paths in them are relative to ``--images``. Nothing is written unless every line can be read, every label is in its
range, every image is there, and the sizes are the published ones.
"""  # noqa: E501

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple


class Benchmark(NamedTuple):
    """What is published about a data set."""

    stem: str
    num_classes: int
    sizes: Dict[str, int]
    largest: int  # training images of the most frequent class
    smallest: int
    json_stem: Optional[str] = None


BENCHMARKS = {
    'imagenet-lt': Benchmark('ImageNet_LT_', 1000, dict(train=115846, val=20000, test=50000), 1280, 5),
    'places-lt': Benchmark('Places_LT_', 365, dict(train=62500, val=7300, test=36500), 4980, 5),
    'inaturalist2018': Benchmark('iNaturalist18_', 8142, dict(train=437513, val=24426), 1000, 2, '{}2018.json'),
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('dataset', choices=BENCHMARKS)
    parser.add_argument('--lists', type=Path, required=True, help='folder of the published lists')
    parser.add_argument('--images', type=Path, required=True, help='folder that the paths in the lists start from')
    parser.add_argument('--out', type=Path, required=True, help='folder to write meta/*.txt to')
    parser.add_argument('--no-count-check', action='store_true', help='accept other sizes, as of a subset')
    return parser.parse_args()


if __name__ == '__main__':  # before the imports below, which take seconds
    ARGS = parse_args()

from sar_mm.checks import UsageError
from sar_mm.cli.errors import report_errors

SHOWN = 5  # of the images or lines that are wrong
MANY, FEW = 100, 20  # the groups of Liu et al.: more than 100 training images, fewer than 20
Sample = Tuple[str, int]


def some(items: List[str]) -> str:
    more = f' and {len(items) - SHOWN:,} more' if len(items) > SHOWN else ''
    return ', '.join(items[:SHOWN]) + more


def read_lines(path: Path) -> List[Sample]:
    """Read ``path label`` lines; the path may have blanks in it."""
    samples, malformed = [], []
    for number, line in enumerate(path.read_text(encoding='utf-8-sig').splitlines(), start=1):
        fields = line.strip().rsplit(None, 1)
        if not fields:
            continue
        if len(fields) == 2 and fields[1].lstrip('-').isdecimal() and not fields[0].startswith('/'):
            samples.append((fields[0], int(fields[1])))
        else:
            malformed.append(f'line {number}: {line!r}')
    if malformed:
        raise UsageError(f'{path} has lines that are not `relative/path label`: {some(malformed)}')
    return samples


def read_json(path: Path) -> List[Sample]:
    """Read iNaturalist's own annotations."""
    try:
        content = json.loads(path.read_text(encoding='utf-8-sig'))
        labels = {entry['image_id']: entry['category_id'] for entry in content['annotations']}
        return [(image['file_name'], int(labels[image['id']])) for image in content['images']]
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f'{path} is not an annotation file of iNaturalist 2018, with `images` and their `annotations`: '
            f'{type(error).__name__}: {error}'
        ) from error


def read_split(benchmark: Benchmark, lists: Path, split: str) -> Tuple[Path, List[Sample]]:
    """Return the file of a split and what it lists."""
    candidates = [lists / f'{benchmark.stem}{split}.txt']
    if benchmark.json_stem is not None:
        candidates.append(lists / benchmark.json_stem.format(split))
    for path in candidates:
        if path.is_file():
            return path, read_lines(path) if path.suffix == '.txt' else read_json(path)
    raise UsageError(f'there is no {" or ".join(path.name for path in candidates)} in {lists}')


def complaints_about(path: Path, samples: List[Sample], num_classes: int, images: Path) -> List[str]:
    """Check labels and images of a split."""
    complaints = []
    outside = [f'{label} of {name}' for name, label in samples if not 0 <= label < num_classes]
    if outside:
        complaints.append(f'{path} has {len(outside):,} labels outside 0 to {num_classes - 1}: {some(outside)}')
    missing = [name for name, _ in samples if not (images / name).is_file()]
    if missing:
        complaints.append(
            f'{len(missing):,} of the {len(samples):,} images in {path} are not in {images}: {some(missing)}'
        )
    return complaints


def deviations(benchmark: Benchmark, splits: Dict[str, List[Sample]]) -> List[str]:
    """Compare sizes with the published ones."""
    complaints = []

    def compare(what: str, found: int, published: int) -> None:
        if found != published:
            complaints.append(f'{what}: {found:,} instead of the published {published:,}')

    for split, size in benchmark.sizes.items():
        compare(f'{split} images', len(splits[split]), size)
        compare(f'classes in {split}', len({label for _, label in splits[split]}), benchmark.num_classes)
    counts = Counter(label for _, label in splits['train']).values()
    compare('training images of the most frequent class', max(counts, default=0), benchmark.largest)
    compare('training images of the least frequent class', min(counts, default=0), benchmark.smallest)
    return complaints


def print_groups(splits: Dict[str, List[Sample]]) -> None:
    """Print how many images and classes there are, by the frequency of the class in training."""
    counts = Counter(label for _, label in splits['train'])
    groups = {
        f'many (more than {MANY})': {label for label, count in counts.items() if count > MANY},
        f'medium ({FEW} to {MANY})': {label for label, count in counts.items() if FEW <= count <= MANY},
        f'few (fewer than {FEW})': {label for label, count in counts.items() if count < FEW},
    }
    print(f'{"training images per class":26}{"classes":>9}' + ''.join(f'{split:>10}' for split in splits))
    for name, labels in groups.items():
        sizes = [sum(label in labels for _, label in samples) for samples in splits.values()]
        print(f'{name:26}{len(labels):9,}' + ''.join(f'{size:10,}' for size in sizes))
    print(f'{"all":26}{len(counts):9,}' + ''.join(f'{len(samples):10,}' for samples in splits.values()))


def main(args: argparse.Namespace) -> None:
    benchmark = BENCHMARKS[args.dataset]

    with report_errors():
        splits, complaints = {}, []
        for split in benchmark.sizes:
            try:
                path, splits[split] = read_split(benchmark, args.lists, split)
                complaints += complaints_about(path, splits[split], benchmark.num_classes, args.images)
            except UsageError as error:
                complaints.append(str(error))
        if not args.no_count_check and len(splits) == len(benchmark.sizes):
            complaints += deviations(benchmark, splits)
        if complaints:
            raise UsageError('\n  '.join(['nothing was written:', *complaints]))

    folder = args.out / 'meta'
    folder.mkdir(parents=True, exist_ok=True)
    for split, samples in splits.items():
        lines = [f'{name} {label}\n' for name, label in samples]
        (folder / f'{split}.txt').write_text(''.join(lines), encoding='utf-8')
    print_groups(splits)
    print(f'written to {folder}')


if __name__ == '__main__':
    main(ARGS)
