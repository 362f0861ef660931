import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'dataset_converters' / 'long_tailed_lists.py'
# 101 training images of class 0, 100 of 1, 20 of 2 and 19 of 3
COUNTS = {0: 101, 1: 100, 2: 20, 3: 19}


@pytest.fixture(scope='module')
def tool():
    return SimpleNamespace(**runpy.run_path(str(TOOL)))


@pytest.fixture
def folder(tmp_path):
    """Lists and images of a small ImageNet-LT."""
    lines = {
        'train': [f'train/n0{k}/{i} {k}.JPEG {k}' for k, count in COUNTS.items() for i in range(count)],
        'val': [f'train/n0{k}/val{k}.JPEG {k}' for k in COUNTS],
        'test': [f'val/{k}.JPEG {k}' for k in COUNTS],
    }
    (tmp_path / 'lists').mkdir()
    for split, content in lines.items():
        (tmp_path / 'lists' / f'ImageNet_LT_{split}.txt').write_text('\n'.join(content) + '\n')
        for line in content:
            path = tmp_path / 'images' / line.rsplit(' ', 1)[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return tmp_path


@pytest.fixture
def convert(tool, capsys, folder):
    """Run the tool in this process; return its exit code and what it printed."""

    def convert(dataset='imagenet-lt', check=False):
        arguments = [dataset, '--lists', folder / 'lists', '--images', folder / 'images', '--out', folder / 'out']
        arguments += [] if check else ['--no-count-check']
        code = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr('sys.argv', ['long_tailed_lists.py', *map(str, arguments)])
            try:
                tool.main(tool.parse_args())
            except SystemExit as stop:
                code = stop.code
        printed = capsys.readouterr()
        assert (code == 0) == (folder / 'out').exists()  # nothing is written on error
        return code, printed.out + printed.err

    return convert


def test_lists__are_written_for_mmpretrain(convert, folder):
    code, output = convert()
    assert code == 0, output
    for split in ('train', 'val', 'test'):
        written = (folder / 'out' / 'meta' / f'{split}.txt').read_text()
        assert written == (folder / 'lists' / f'ImageNet_LT_{split}.txt').read_text()
    lines = [' '.join(line.split()) for line in output.splitlines()]
    assert lines[:5] == [
        'training images per class classes train val test',
        'many (more than 100) 1 101 1 1',
        'medium (20 to 100) 2 120 2 2',
        'few (fewer than 20) 1 19 1 1',
        'all 4 240 4 4',
    ]


@pytest.mark.parametrize(
    'dataset, name', [('imagenet-lt', 'ImageNet_LT_train.txt'), ('inaturalist2018', 'train2018.json')]
)
def test_lists__with_a_byte_order_mark(convert, inaturalist, dataset, name):
    path = inaturalist / 'lists' / name
    path.write_text(path.read_text(), encoding='utf-8-sig')
    code, output = convert(dataset=dataset)
    assert code == 0, output
    assert (inaturalist / 'out' / 'meta' / 'train.txt').read_text().startswith('train')


def test_lists__mmpretrain_reads_them(convert, folder):
    datasets = pytest.importorskip('mmpretrain.datasets')
    from sar_mm.datasets import class_counts

    convert()
    data = datasets.CustomDataset(data_root=str(folder / 'out'), ann_file='meta/train.txt', data_prefix='../images')
    assert class_counts(data) == list(COUNTS.values())
    assert all(Path(data.get_data_info(i)['img_path']).is_file() for i in range(len(data)))


def test_lists__published_sizes_are_checked(convert):
    code, output = convert(check=True)
    assert code == 2
    assert 'nothing was written' in output
    assert 'train images: 240 instead of the published 115,846' in output
    assert 'test images: 4 instead of the published 50,000' in output
    assert 'classes in val: 4 instead of the published 1,000' in output
    assert 'most frequent class: 101 instead of the published 1,280' in output
    assert 'least frequent class: 19 instead of the published 5' in output


def test_lists__published_sizes_are_accepted(tool):
    for name, largest, smallest in (('imagenet-lt', 1280, 5), ('places-lt', 4980, 5), ('inaturalist2018', 1000, 2)):
        benchmark = tool.BENCHMARKS[name]
        splits = {}
        for split, size in benchmark.sizes.items():
            labels = [k for k in range(benchmark.num_classes) for _ in range(smallest if split == 'train' else 1)]
            labels += [0] * (largest - smallest) if split == 'train' else []
            rest = size - len(labels)
            labels += [1 + i % (benchmark.num_classes - 2) for i in range(rest)]  # the last class stays the smallest
            splits[split] = [('x.jpg', label) for label in labels]
        assert tool.deviations(benchmark, splits) == []
        splits['train'].pop()
        assert len(tool.deviations(benchmark, splits)) >= 1


def test_lists__absent_images(convert, folder):
    for number in range(7):
        (folder / 'images' / 'train' / 'n00' / f'{number} 0.JPEG').unlink()
    (folder / 'images' / 'val' / '3.JPEG').unlink()
    code, output = convert()
    assert code == 2
    names = ', '.join(f'train/n00/{number} 0.JPEG' for number in range(5))
    assert '7 of the 240 images in' in output and f'ImageNet_LT_train.txt are not in {folder / "images"}' in output
    assert f'{names} and 2 more' in output
    assert '1 of the 4 images in' in output and 'val/3.JPEG' in output


@pytest.mark.parametrize('label', [-1, 1000])
def test_lists__labels_out_of_range(convert, folder, label):
    path = folder / 'lists' / 'ImageNet_LT_val.txt'
    path.write_text(path.read_text().replace('val2.JPEG 2', f'val2.JPEG {label}'))
    code, output = convert()
    assert code == 2
    assert f'1 labels outside 0 to 999: {label} of train/n02/val2.JPEG' in output


@pytest.mark.parametrize('line', ['val/0.JPEG', 'val/0.JPEG cat', 'val/0.JPEG 0.5', '/val/0.JPEG 0', '0'])
def test_lists__malformed_lines(convert, folder, line):
    path = folder / 'lists' / 'ImageNet_LT_test.txt'
    path.write_text(path.read_text().replace('val/1.JPEG 1', line) + '\n')
    code, output = convert()
    assert code == 2
    assert f'ImageNet_LT_test.txt has lines that are not `relative/path label`: line 2: {line!r}' in output


def test_lists__absent_list(convert, folder):
    (folder / 'lists' / 'ImageNet_LT_val.txt').unlink()
    code, output = convert()
    assert code == 2 and f'there is no ImageNet_LT_val.txt in {folder / "lists"}' in output
    code, output = convert(dataset='inaturalist2018')
    assert code == 2 and 'there is no iNaturalist18_train.txt or train2018.json in' in output


@pytest.fixture
def inaturalist(folder):
    samples = {'train': {7: ('train_val2018/Aves/3/a.jpg', 3), 9: ('train_val2018/Aves/0/b.jpg', 0)}}
    samples['val'] = {5: ('train_val2018/Aves/3/c.jpg', 3)}
    for split, content in samples.items():
        images = [dict(id=key, file_name=name) for key, (name, _) in content.items()]
        # Not in the order of the images.
        annotations = [dict(id=0, image_id=key, category_id=label) for key, (_, label) in reversed(content.items())]
        path = folder / 'lists' / f'{split}2018.json'
        path.write_text(json.dumps(dict(images=images, annotations=annotations)))
        for name, _ in content.values():
            (folder / 'images' / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / 'images' / name).touch()
    return folder


def test_lists__inaturalist_from_json(convert, inaturalist):
    code, output = convert(dataset='inaturalist2018')
    assert code == 0, output
    meta = inaturalist / 'out' / 'meta'
    assert sorted(path.name for path in meta.iterdir()) == ['train.txt', 'val.txt']
    assert (meta / 'train.txt').read_text() == 'train_val2018/Aves/3/a.jpg 3\ntrain_val2018/Aves/0/b.jpg 0\n'
    assert (meta / 'val.txt').read_text() == 'train_val2018/Aves/3/c.jpg 3\n'


def test_lists__inaturalist_from_lists(convert, inaturalist):
    (inaturalist / 'lists' / 'iNaturalist18_train.txt').write_text('train_val2018/Aves/0/b.jpg 0\n')
    convert(dataset='inaturalist2018')
    assert (inaturalist / 'out' / 'meta' / 'train.txt').read_text() == 'train_val2018/Aves/0/b.jpg 0\n'


@pytest.mark.parametrize(
    'content',
    ['{', '[]', '{"images": []}', '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []}'],
)
def test_lists__inaturalist_broken_json(convert, inaturalist, content):
    (inaturalist / 'lists' / 'val2018.json').write_text(content)
    code, output = convert(dataset='inaturalist2018')
    assert code == 2 and 'val2018.json is not an annotation file of iNaturalist 2018' in output


def test_lists__as_a_command(run_process, folder):
    arguments = ['--lists', folder / 'lists', '--images', folder, '--out', folder / 'out', '--no-count-check']
    output = run_process(TOOL, 'imagenet-lt', *arguments, folder=folder, code=2)
    assert 'error: nothing was written:' in output and 'Traceback' not in output
    assert output.count('are not in') == 3
