"""Split the training data of a config into labeled and unlabeled images, for semi-supervised learning.

    python tools/dataset_converters/semi_splits.py CONFIG --out data/camvid/semi/1_8 --fraction 1/8

writes ``labeled.txt`` and ``unlabeled.txt`` into the folder of ``--out``. CONFIG is one of supervised training on all
images. The lines are what its data set reads:

- segmentation: names as BaseSegDataset's ``ann_file`` lists them;
- classification with image files: ``path label``, and ``path`` for the unlabeled images, as CustomDataset's
  ``ann_file`` lists them (the latter with ``with_label=False``);
- classification with images in a few large files, as CIFAR-10 and MNIST: indices, for
  ``LabeledSubset(file='.../labeled.txt', part='labeled')``, and the same with ``part='unlabeled'``.

The labeled images are

- ``--per-class N``: of each class N images, in classification;
- ``--fraction F``, as 1/16 or 0.1: in classification that share of every class and at least one image, in segmentation
  of all images, such that every class is in one of them;
- ``--count N``: such that every class is in one of them;
- ``--labeled-list FILE``: a published list. A line is an image, by the end of its path with or without suffix, and
  whatever follows after a blank, as in ``JPEGImages/2007_000032.jpg SegmentationClass/2007_000032.png``; or an index
  into the data set. FixMatch's JSON is read as well. All others are unlabeled, or those of ``--unlabeled-list FILE``.

Nothing is written unless every image of a list is in the data set, and none comes twice. A warning names the classes
that no labeled image shows.
"""

import argparse
import os.path as osp
import sys
from collections import Counter, defaultdict
from fractions import Fraction
from pathlib import Path
from typing import Any, Dict, List, Optional, Set, Tuple


def share(text: str) -> float:
    try:
        value = float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        value = 0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f'{text} is no number in (0, 1), as 1/16 or 0.1')
    return value


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text} is no integer of at least 1')
    return int(text)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='path of the config')
    parser.add_argument('--out', type=Path, required=True, help='folder to write labeled.txt and unlabeled.txt to')
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument('--per-class', type=positive, metavar='N', help='labeled images of each class')
    which.add_argument('--fraction', type=share, metavar='F', help='share of labeled images, in (0, 1)')
    which.add_argument('--count', type=positive, metavar='N', help='labeled images in all')
    which.add_argument('--labeled-list', metavar='FILE', help='list of the labeled images')
    parser.add_argument('--unlabeled-list', metavar='FILE', help='list of the unlabeled images; default all others')
    parser.add_argument('--seed', type=int, default=0, help='of the drawing; default 0')
    parser.add_argument('--cfg-options', nargs='+', help='override settings of the config')
    parser.set_defaults(work_dir=None, launcher='none', local_rank=0)  # what load_config reads of a run
    args = parser.parse_args()
    if args.unlabeled_list and not args.labeled_list:
        parser.error('--unlabeled-list goes with --labeled-list')
    if args.seed < 0:
        parser.error('--seed is to be at least 0')
    return args


if __name__ == '__main__':  # before the imports below, which take seconds
    ARGS = parse_args()

import numpy as np
from class_counts import build_dataset, warn_of_absent
from long_tailed_lists import some
from mmengine.utils import track_iter_progress
from rich.console import Console
from rich.table import Table

from sar_mm.checks import UsageError
from sar_mm.cli.config import load_config
from sar_mm.cli.errors import report_errors
from sar_mm.datasets import SemiSupervisedDataset, draw_covering, draw_fraction, draw_per_class, read_indices
from sar_mm.datasets.class_counts import count_classes, image_label
from sar_mm.datasets.views import underlying


class Images:
    """The images of a data set: how lists call them, and the classes they show."""

    def __init__(self, dataset: Any, has_label_maps: bool) -> None:
        if isinstance(dataset, SemiSupervisedDataset):
            raise UsageError('the config is one of semi-supervised training: give one of training on all images')
        self.dataset = dataset
        self.has_label_maps = has_label_maps
        self.root = underlying(dataset)
        self.suffix = getattr(self.root, 'img_suffix', '')
        paths = [dataset.get_data_info(index).get('img_path') for index in range(len(dataset))]
        # Absolute, so that a list may name folders above those of the data set.
        self.paths = None if None in paths else [Path(osp.abspath(path)).as_posix() for path in paths]
        self.labels: Optional[np.ndarray] = None
        self.values: Set[int] = set()  # of the label maps that were read
        classes = dataset.metainfo.get('classes')
        if has_label_maps:
            if classes is None:
                raise UsageError(f'{type(dataset).__name__} names no classes: set metainfo=dict(classes=[...])')
            number = len(classes)
        else:
            self.labels = image_label(dataset)
            number = count_classes(dataset, self.labels)
        self.classes = list(map(str, classes or range(number)))

    def __len__(self) -> int:
        return len(self.dataset)

    def shown_classes(self, indices: List[int]) -> List[Set[int]]:
        """Return the class indices that each of some images shows."""
        if self.labels is not None:
            return [{int(self.labels[index])} for index in indices]
        shown = []
        for index in track_iter_progress((indices, len(indices)), file=sys.stderr):
            labels = np.unique(self.dataset[index]['gt_seg_map']).tolist()
            self.values.update(labels)
            shown.append({label for label in labels if label < len(self.classes)})  # 255 is ignored everywhere
        return shown

    def names(self) -> List[str]:
        """Return what the data set's ``ann_file`` calls the images, or their indices where they are no files."""
        if self.paths is None:
            return [str(index) for index in range(len(self))]
        prefix = getattr(self.root, 'data_prefix', {}).get('img_path')
        if prefix is None:
            raise UsageError(f'{type(self.root).__name__} has no data_prefix=dict(img_path=...) that names start from')
        folder = osp.abspath(osp.expanduser(prefix))
        names = [Path(osp.relpath(path, folder)).as_posix() for path in self.paths]
        outside = [name for name in names if name.startswith('../')]
        if outside:
            raise UsageError(f'{len(outside)} images are not in {prefix}: {some(outside)}')
        cut = len(self.suffix) if self.has_label_maps else 0  # mmseg adds it again
        return [name[: len(name) - cut] for name in names]


class Finder:
    """Finds images by the end of their path, with or without its suffix."""

    def __init__(self, paths: List[str], suffix: str) -> None:
        self.forms: Dict[str, List[Tuple[str, int]]] = defaultdict(list)  # by the last component
        for index, path in enumerate(paths):
            forms = {path, osp.splitext(path)[0]}
            if suffix and path.endswith(suffix):
                forms.add(path[: -len(suffix)])
            for form in forms:
                self.forms[osp.basename(form)].append((form, index))

    def __call__(self, line: str) -> Set[int]:
        """Return the images that a line may mean."""
        # The first fits names with blanks, the second drops an annotation.
        for text in (line, line.rsplit(None, 1)[0]):
            name = osp.normpath(text).replace('\\', '/')
            known = self.forms.get(osp.basename(name), ())
            found = {index for form, index in known if form == name or form.endswith(f'/{name}')}
            if found:
                return found
        return set()


def read_list(path: str, images: Images) -> List[int]:
    """Return the indices of the images in a published list."""
    text = Path(path).read_text(encoding='utf-8-sig')
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    is_json = text.lstrip().startswith('{')
    finder = Finder(images.paths or [], images.suffix)
    found = [] if is_json else [finder(line) for line in lines]
    # Names may be numbers: these are indices only where not one of them is a name.
    if images.paths is None or is_json or (not any(found) and all(line.isdecimal() for line in lines)):
        indices = read_indices(path)
        outside = [str(index) for index in indices if index >= len(images)]
        if outside:
            raise UsageError(f'{path} has {len(outside)} indices of {len(images)} or more: {some(outside)}')
        return indices

    def complain(what: str, wrong: List[str]) -> None:
        if wrong:
            raise UsageError(f'{len(wrong):,} of the {len(lines):,} lines in {path} {what}: {some(wrong)}')

    complain('are not in the data set', [line for line, indices in zip(lines, found) if not indices])
    complain('may be several images', [line for line, indices in zip(lines, found) if len(indices) > 1])
    indices = [index for (index,) in found]
    counts = Counter(indices)
    complain('come more than once', [line for line, index in zip(lines, indices) if counts[index] > 1])
    return indices


def split(args: argparse.Namespace, images: Images) -> Tuple[List[int], List[int], List[Set[int]]]:
    """Return the labeled and the unlabeled images, and the classes that each labeled one shows."""
    everything = list(range(len(images)))
    shown = None
    if args.labeled_list:
        labeled = sorted(read_list(args.labeled_list, images))
    elif images.labels is not None and args.count is None:
        draw, number = (draw_fraction, args.fraction) if args.per_class is None else (draw_per_class, args.per_class)
        labeled = draw(images.labels, number, len(images.classes), args.seed, images.classes).tolist()
    elif args.per_class is not None:
        raise UsageError('--per-class is for classification; an image to be segmented shows several: use --count')
    else:
        count = max(1, round(args.fraction * len(images))) if args.count is None else args.count
        shown = images.shown_classes(everything)
        labeled = draw_covering(shown, count, args.seed).tolist()
    unlabeled = sorted(set(everything) - set(labeled))
    if args.unlabeled_list:
        others = read_list(args.unlabeled_list, images)
        both = sorted(set(others) & set(labeled))
        if both:
            names = images.names()
            raise UsageError(f'{len(both):,} images are in both lists: {some([names[index] for index in both])}')
        unlabeled = sorted(others)
    if not unlabeled:
        raise UsageError(f'all {len(images):,} images are labeled, none is left')
    return labeled, unlabeled, [shown[i] for i in labeled] if shown else images.shown_classes(labeled)


def print_table(images: Images, labeled: List[int], unlabeled: List[int], shown: List[Set[int]]) -> None:
    counts = Counter(label for labels in shown for label in labels)
    table = Table(title=f'{len(labeled):,} labeled and {len(unlabeled):,} unlabeled images')
    table.add_column('class', justify='right')
    table.add_column('name')
    table.add_column('labeled images', justify='right')
    for label, name in enumerate(images.classes):
        table.add_row(str(label), name, f'{counts[label]:,}')
    Console().print(table)
    numbers = [counts[label] for label in range(len(images.classes))]
    warn_of_absent(images.classes, numbers, 'labeled image', sorted(images.values))


def main(args: argparse.Namespace) -> None:
    with report_errors():
        cfg = load_config(args)
    with report_errors(cfg):
        images = None
        try:
            images = Images(*build_dataset(cfg))
            labeled, unlabeled, shown = split(args, images)
            names = images.names()
        except (OSError, ValueError) as error:  # too few images of a class, a list that is missing or is not one
            raise UsageError(str(error)) from error
        first = names
        if images.labels is not None and images.paths is not None:
            first = [f'{name} {label}' for name, label in zip(names, images.labels)]
        args.out.mkdir(parents=True, exist_ok=True)
        for file, lines, indices in (('labeled', first, labeled), ('unlabeled', names, unlabeled)):
            content = ''.join(f'{lines[index]}\n' for index in indices)
            (args.out / f'{file}.txt').write_text(content, encoding='utf-8')
    print_table(images, labeled, unlabeled, shown)
    print(f'written to {args.out}')


if __name__ == '__main__':
    main(ARGS)
