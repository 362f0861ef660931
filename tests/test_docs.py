import hashlib
import importlib.util
import json
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
import yaml

from sar_mm.registry import MODELS

ROOT = Path(__file__).parents[1]
DOCS, RELEASE = ROOT / 'docs', ROOT / 'release'


def load(name):
    spec = importlib.util.spec_from_file_location(f'docs_{name}', DOCS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def heads():
    return load('heads')


def text_of(name):
    return (ROOT / name).read_text(encoding='utf-8')


def table(text, mark):
    rows = re.search(rf'<!-- {mark} -->\n((?:\|.*\n)+)', text)[1].splitlines()[2:]
    return [[cell.strip() for cell in row.strip('|').split('|')] for row in rows]


# ----- README


def test_readme__results_are_those_of_the_results_page():
    config = '{}resnet8-{}_1xb128-4k_fashion-mnist-lt-if100'
    losses = {'cross-entropy': 'ce', 'logit adjustment': 'la', 'LDAM-DRW': 'ldam-drw'}
    full = {row[0].strip('`'): row[1:] for row in table(text_of('docs/results.md'), 'full-length')}
    shown = table(text_of('README.md'), 'full-length')
    assert {row[0] for row in shown} == set(losses)
    for loss, *figures in shown:
        stock, sar = (full[config.format(prefix, losses[loss])] for prefix in ('', 'sar_'))
        assert figures == [stock[0], sar[0], stock[3], sar[3], stock[4]] and stock[4] == sar[4], loss


def test_readme__its_commands_are_those_of_the_makefile_and_of_ci():
    readme, makefile, ci = text_of('README.md'), text_of('Makefile'), text_of('.ci/run')
    targets = set(re.findall(r'\bmake ([a-z-]+)', readme))
    assert targets >= {'install', 'demo', 'test', 'site'}
    assert all(re.search(rf'^{target}:', makefile, re.M) for target in targets)
    assert all(f'make {target}' in ci for target in ('install', 'demo', 'test', 'site'))


def test_readme__citations_are_those_of_the_citation_file():
    entries = text_of('README.md').split('```bibtex\n')[1].split('```')[0].split('\n\n')
    papers = yaml.safe_load(text_of('CITATION.cff'))['references']
    assert len(entries) == len(papers)
    for entry, paper in zip(entries, papers):
        entry = re.sub(r'\s+', ' ', entry)
        authors = ' and '.join(f'{each["family-names"]}, {each["given-names"]}' for each in paper['authors'])
        assert f'{{{paper["title"]}}}' in entry and f'{{{authors}}}' in entry and f'{{{paper["year"]}}}' in entry


def test_links__files_of_the_repository_are_there():
    pages = [ROOT / 'README.md', *DOCS.glob('*.md'), *(DOCS / 'api').glob('*.md'), *ROOT.glob('configs/*/**/README.md')]
    missing = []
    for page in pages:
        text = re.sub(r'^```.*?^```', '', page.read_text(encoding='utf-8'), flags=re.M | re.S)
        for link in re.findall(r'\]\(([^)\s]+)\)', text):
            path = link.split('#')[0]
            if '://' not in link and path and not (page.parent / path).exists():
                missing.append(f'{page.relative_to(ROOT)}: {link}')
    assert missing == []


# ----- Architecture


def test_architecture__files_are_there():
    named = re.findall(r'`((?:sar_mm|configs|tools)[/\w.]*)`', text_of('docs/architecture.md'))
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []


def imported(folder):
    """The parts of the package that a part imports, by relative imports."""
    file = ROOT / 'sar_mm' / f'{folder}.py'
    for path in [file] if file.is_file() else (ROOT / 'sar_mm' / folder).rglob('*.py'):
        package = path.relative_to(ROOT).with_suffix('').parts[:-1]
        for dots, name in re.findall(r'^from (\.+)([\w.]*) import', path.read_text(encoding='utf-8'), re.M):
            yield '/'.join((*package[: len(package) - len(dots) + 1], *name.split('.')))


@pytest.mark.parametrize(
    'part, never',
    [
        ('anchors', 'ops models datasets engine evaluation analysis cli'),
        ('ops', 'anchors models datasets engine evaluation analysis cli'),
        ('models/losses', 'models/anchor_head models/heads models/semi datasets engine evaluation analysis cli'),
        ('models/anchor_head', 'models/heads models/semi datasets engine evaluation analysis cli'),
        ('models/heads', 'models/semi datasets engine evaluation analysis cli'),
        *((part, 'models baselines cli') for part in ('datasets', 'engine', 'evaluation', 'analysis')),
    ],
)
def test_architecture__imports_run_one_way(part, never):
    found = set(imported(part))
    assert found
    assert [name for name in found for other in never.split() if name.startswith(f'sar_mm/{other}')] == []


# ----- Heads


@pytest.mark.parametrize('toolbox', ['mmseg', 'mmpretrain'])
def test_heads__tables_agree_with_the_code(toolbox, heads):
    pytest.importorskip(f'{toolbox}.models')
    page = (DOCS / 'heads.md').read_text(encoding='utf-8')
    table = re.search(rf'<!-- {toolbox} -->\n((?:\|.*\n)+)', page)[1].splitlines()[2:]
    rows = heads.rows(toolbox)
    missing = sorted(set(rows.values()) - set(table))
    assert missing == [], 'run `make docs`'
    # Heads that only other versions of the toolbox have may be in the table, too.
    others = {re.match(r'\| `(\w+)`', row)[1] for row in set(table) - set(rows.values())}
    assert not others & set(rows)
    assert all(f'SAR{name}' not in MODELS.module_dict for name in others)


def test_heads__a_row_out_of_date_is_found(heads):
    pytest.importorskip('mmseg.models')
    pytest.importorskip('mmpretrain.models')
    page = (DOCS / 'heads.md').read_text(encoding='utf-8')
    wrong = page.replace('`SARFCNHead`', '`SARFcnHead`', 1)
    assert wrong != page and heads.render(wrong).count('`SARFcnHead`') == 0


def test_reliability__page_of_made_up_rows():
    reliability = load('reliability')
    config, data, kills = 'test_wrong_configs.py', 'test_bad_data.py', 'test_kills.py'
    rows = [
        reliability.Row(kills, 'a', 'passed', dict(fault='a | b', outcome='fine\nas it is', kills=20), ''),
        reliability.Row(kills, 'b', 'failed', dict(fault='c', kills=3), 'assert 1 == 2'),
        reliability.Row(kills, 'of the tests', 'passed', {}, ''),
        reliability.Row(config, 'd', 'passed', dict(fault='e', outcome='/tmp/x-1/y/config.py: ' + 'word ' * 99), ''),
        reliability.Row(config, 'f', 'skipped', dict(fault='g'), 'Skipped: no toolbox'),
        reliability.Row(data, 'h', 'passed', dict(fault='i', outcome='ValueError: no image'), ''),
        reliability.Row(data, 'j', 'passed', dict(fault='k', outcome='trains'), ''),
        reliability.Row(data, 'l', 'failed', {}, 'AssertionError: no error'),
    ]
    page = reliability.render(rows, date(2026, 1, 31))
    assert reliability.render(rows[::-1], date(2026, 1, 31)) != page  # tests keep their order
    assert 'kills survived: 20 of 23;' in page and 'the remedy: 1 of 1;' in page
    assert 'inputs: 3 tried, 1 refused' in page and 'and 1 trained on' in page
    assert '| a \\| b | fine as it is | passed |' in page
    assert '| c | assert 1 == 2 | failed |' in page
    assert '| g | Skipped: no toolbox | skipped |' in page and '| l | AssertionError: no error | failed |' in page
    assert 'of the tests' not in page and 'on 2026-01-31' in page
    (long,) = re.findall(r'^\| e \| config\.py: (.*) \| passed \|$', page, re.MULTILINE)
    assert long.endswith('word ...') and len(long) < reliability.LONGEST


def test_results__trainings_are_of_configs_that_are_there():
    result = subprocess.run([sys.executable, str(DOCS / 'results.py'), '--list'], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    sys.path.insert(0, str(DOCS))
    try:
        import results
    finally:
        sys.path.remove(str(DOCS))
    for name, experiment in results.EXPERIMENTS.items():
        assert f'{name}: ' in result.stdout
        assert all(run.config.is_file() for run in experiment.runs())


def test_release__checkpoints_are_those_of_their_hashes_logs_and_metafiles():
    sums = dict(line.split()[::-1] for line in (RELEASE / 'SHA256SUMS').read_text().splitlines())
    assert set(sums) == {file.name for file in RELEASE.glob('*.pth')}
    models = [
        model
        for folder in ('fashion_mnist', 'cifar10')
        if (file := ROOT / 'configs' / 'long_tailed' / folder / 'metafile.yml').is_file()
        for model in yaml.safe_load(file.read_text())['Models']
    ]
    assert {Path(model['Weights']).name for model in models} == set(sums)
    results = {}
    for line in (DOCS / 'results' / 'long_tailed.jsonl').read_text().splitlines():
        result = json.loads(line)
        results[result['config'], result['variant'], result['seed']] = result['scores']
    for model in models:
        weights = ROOT / model['Weights']
        sha = hashlib.sha256(weights.read_bytes()).hexdigest()
        assert sums[weights.name] == sha and weights.stem.endswith(sha[:8])
        assert weights.stat().st_size < 1e6
        assert (ROOT / model['Config']).is_file() and (ROOT / model['Training Log']).is_file()
        accuracy = model['Results'][0]['Metrics']['Top 1 Accuracy']
        assert accuracy == pytest.approx(results[model['Name'], None, 0]['accuracy'], abs=0.1)  # half precision
