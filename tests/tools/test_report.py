"""tools/analysis_tools/report.py on work folders of the quickstart's models, stock and SAR, that were never trained."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import MODELS, DefaultScope

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / 'configs' / 'quickstart'
CLASSIFICATION = 'resnet18_1xb64-300iter_digits-lt'
SEGMENTATION = 'fcn_unet_1xb16-400iter_digit-scenes-64x64'
SEMI = 'resnet18-fixmatch_1xb20-600iter_digits-40labels'
TOOL = ROOT / 'tools' / 'analysis_tools' / 'report.py'
ALL = [
    'Scores',
    'Scores of the checkpoints',
    'Curves of the scores',
    'Losses',
    'Gate and anchors',
    'Classes by frequency',
]
ALL += ['Confusion matrices', 'Geometry of the features', 't-SNE and cosines', 'Predictions']


def log(score, sar, number):
    anchors = dict(loss_anchor=0.5, anchor_gate=1.0, anchor_cos=0.2) if sar else {}
    for at in (10, 20):
        yield dict(lr=0.1, loss=2.0 / at + number, iter=at, step=at, **anchors)
    yield {score: 50.0 + 10 * sar + number, 'time': 0.1, 'step': 20}


def make_run(folder, name, seed, score):
    """Make the work folder of a run: its config, its log, and a checkpoint of weights drawn with the seed."""
    folder.mkdir(parents=True)
    MODULE2PACKAGE['mmseg'] = 'mmseg'
    cfg = Config.fromfile(QUICKSTART / f'{name}.py')
    cfg.randomness = dict(seed=seed)
    visual = folder / '20260101_120000' / 'vis_data'
    visual.mkdir(parents=True)
    for path in (folder / f'{name}.py', visual / 'config.py'):
        cfg.dump(path)
    lines = log(score, name.startswith('sar_'), seed)
    (visual / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)))
    torch.manual_seed(seed + 10 * name.startswith('sar_'))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    model.init_weights()
    for key, value in model.state_dict().items():
        if key.endswith('semantic_anchors'):
            value.normal_()
    torch.save(dict(state_dict=model.state_dict()), folder / 'iter_20.pth')


@pytest.fixture(scope='module')
def folder(digits, tmp_path_factory):
    for module in ('sklearn', 'jinja2', 'mmpretrain.models', 'mmseg.models'):
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp('report')
    shutil.copytree(digits, folder / 'data')
    for prefix, seeds in (('', [0, 1]), ('sar_', [0])):
        for seed in seeds:
            make_run(folder / 'cls' / f'{prefix}{seed}', f'{prefix}{CLASSIFICATION}', seed, 'accuracy/top1')
        make_run(folder / 'seg' / f'{prefix}0', f'{prefix}{SEGMENTATION}', 0, 'mIoU')
    return folder


@pytest.fixture(scope='module')
def run(run_tool, folder):
    return lambda *arguments, code=0: run_tool(TOOL, *arguments, folder=folder, code=code)


def sections(page):
    return [re.sub('&.*?;', '', title) for title in re.findall(r'<h2>(.*?)</h2>', page)]


def cells(page, row):
    (found,) = re.findall(rf'<tr><td>{re.escape(row)}</td>(.*?)</tr>', page)
    return re.findall(r'<td class="number[^"]*">(.*?)</td>', found)


@pytest.fixture(scope='module')
def classification(run, folder):
    output = run('cls', '--samples-per-class', 5, '--pictures', 4, '--out', 'out/cls.html', '--figures', 'figures')
    return output, (folder / 'out' / 'cls.html').read_text(encoding='utf-8')


@pytest.mark.slow
@pytest.mark.ci
def test_report__of_classification(classification, folder):
    output, page = classification
    assert sections(page) == ['Models', 'Runs', *ALL]
    assert 'cls.html: 3 runs of 2 models' in output
    assert cells(page, 'accuracy/top1') == ['50.50 ± 0.71', '60.00']
    # The test set has 54 images of each class.
    assert cells(page, 'accuracy') == cells(page, 'balanced_accuracy')
    assert cells(page, 'anchor_distance')[0] == '–' != cells(page, 'anchor_distance')[1]
    assert page.count('aria-label="confusion_') == 2
    plain = page.replace('<wbr>', '')
    assert 'resnet18_1xb64-300iter_digits-lt' in plain and '<h1>Report: resnet18, sar_resnet18</h1>' in plain
    assert re.search(r'<th class="number model"><span [^>]*>■</span>&nbsp;sar_resnet18</th>', plain)
    figures = {path.name for path in (folder / 'figures').iterdir()}
    names = re.findall(r'aria-label="(.*?)"', page)
    assert figures == {f'{name}.{suffix}' for name in names for suffix in ('pdf', 'png')}


@pytest.mark.slow
@pytest.mark.ci
def test_report__of_segmentation(run, folder):
    output = run('seg', '--names', 'stock,SAR', '--samples-per-class', 5, '--pictures', 4, '--out', 'seg.html')
    page = (folder / 'seg.html').read_text(encoding='utf-8')
    assert sections(page) == ['Models', 'Runs', *(title.replace(' by frequency', '') for title in ALL)]
    assert 'the report has no counts of the classes: ' in output and 'class_counts.py' in output
    assert 'share of right pixels differs most between stock and SAR' in page
    # With the counts, the classes are in their order, and their groups among the scores.
    counts = dict(classes=[*map(str, range(10)), 'background'], images=[9] * 11, pixels=[10**k for k in range(11)])
    (folder / 'counts.json').write_text(json.dumps(counts))
    run('seg', '--predict', 'first', '--samples-per-class', 5, '--class-counts', 'counts.json', '--out', 'seg.html')
    page = (folder / 'seg.html').read_text(encoding='utf-8')
    assert 'Classes by frequency' in sections(page) and len(cells(page, 'mIoU/common')) == 2


def test_report__of_logs_alone(run, folder, tmp_path):
    shutil.copytree(folder / 'cls', tmp_path / 'cls')
    for path in tmp_path.rglob('*.pth'):
        path.unlink()
    run(tmp_path / 'cls', '--predict', 'none', '--title', 'A title', '--out', tmp_path / 'new' / 'report.html')
    page = (tmp_path / 'new' / 'report.html').read_text(encoding='utf-8')
    assert sections(page) == ['Models', 'Runs', 'Scores', 'Curves of the scores', 'Losses', 'Gate and anchors']
    assert '<h1>A title</h1>' in page and '20 of 300 iterations so far' in page
    message = 'there is no whole checkpoint of resnet18, sar_resnet18 yet: add --predict none'
    assert message in run(tmp_path / 'cls', code=2)


@pytest.mark.slow
def test_report__of_one_model_without_anchors(run, folder):
    run('cls/0', '--samples-per-class', 5, '--out', 'one.html')
    page = (folder / 'one.html').read_text(encoding='utf-8')
    assert sections(page) == [
        'Models',
        'Runs',
        *(title for title in ALL if title not in ('Gate and anchors', 'Predictions')),
    ]


@pytest.mark.parametrize(
    ('command', 'message'),
    [
        (['absent'], 'there is no folder absent'),
        (['cls', '--names', 'one'], '--names is to have a different name for each of the 2 models'),
        (['cls', 'seg'], 'the runs have different tasks, default_scope is mmpretrain'),
        (['seg', '--cfg-options', "model.test_cfg.mode='slide'"], '--cfg-options model.test_cfg.mode=whole'),
        (['cls', '--pictures', 0], '--pictures is to be at least 1, not 0'),
        (['cls', '--predict', 'some'], "invalid choice: 'some'"),
        (['cls', '--class-counts', 'absent.json'], 'there are no class counts in absent.json'),
    ],
)
def test_report__typing_errors(run, command, message):
    assert message in run(*command, code=2)


def test_report__help_for_an_option_that_is_misspelt(run):
    output = run('cls', '--cfg-options', 'model.backbone.stem_chanels=8', code=1)
    assert 'has no option stem_chanels; did you mean stem_channels?' in output.split('help: model.backbone.')[1]


def test_report__models_of_different_classes(run, folder, tmp_path):
    shutil.copytree(folder / 'cls', tmp_path / 'cls')
    for path in (tmp_path / 'cls' / 'sar_0').rglob('*.py'):
        path.write_text(path.read_text() + "\nval_dataloader['dataset']['classes'] = list('abcdefghij')\n")
        path.write_text(path.read_text() + "\nval_evaluator = dict(type='Accuracy')\n")
    for path in (tmp_path / 'cls' / '0').rglob('*.py'):
        path.write_text(path.read_text() + "\nval_dataloader['dataset']['classes'] = list('0123456789')\n")
    output = run(tmp_path / 'cls' / '0', tmp_path / 'cls' / 'sar_0', '--predict', 'none', code=2)
    assert "the runs have different classes, ['0', '1'" in output and "['a', 'b'" in output


def test_report__help_imports_neither_torch_nor_mmengine(run_python):
    code = f"""
import runpy, sys
sys.argv = ['report.py', '--help']
try:
    runpy.run_path({str(TOOL)!r}, run_name='__main__')
except SystemExit:
    print(sorted({{'torch', 'mmengine', 'matplotlib'}} & set(sys.modules)))
"""
    (output,) = run_python(code)
    assert output[-1] == '[]' and any('--predict' in line for line in output)


@pytest.mark.slow
@pytest.mark.parametrize('width', [1440, 500])
def test_report__is_no_wider_than_the_window(classification, width, tmp_path):
    browser = shutil.which('chromium') or shutil.which('google-chrome')
    if browser is None:
        pytest.skip('there is no Chromium or Chrome')
    script = '<script>document.title = document.documentElement.scrollWidth + " of " + innerWidth</script>'
    page = tmp_path / 'page.html'
    page.write_text(classification[1].replace('</body>', f'{script}</body>'), encoding='utf-8')
    command = [browser, '--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', '--dump-dom']
    command += [f'--window-size={width},900', f'--user-data-dir={tmp_path / "profile"}', page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    found, inner = re.search(r'<title>(\d+) of (\d+)</title>', shown).groups()
    assert int(found) <= int(inner) <= width


@pytest.mark.slow
def test_report__of_semi_supervised_models(run, folder):
    for prefix in ('', 'sar_'):
        make_run(folder / 'semi' / f'{prefix}0', f'{prefix}{SEMI}', 0, 'accuracy/top1')
    run('semi', '--samples-per-class', 5, '--out', 'semi.html')
    assert sections((folder / 'semi.html').read_text(encoding='utf-8')) == ['Models', 'Runs', *ALL]
