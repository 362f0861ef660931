"""Every shipped config: read, compared with the stock one, and with what is said of it."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import MODELS, DefaultScope
from shipped_configs import CONFIGS, ROOT, read

import sar_mm  # noqa: F401
from sar_mm.models.projector import AnchorProjector

FOLDERS = sorted({path.parent for path in CONFIGS if path.parents[1].name in ('segmentation', 'classification')})


def head_types(model):
    """The types of all heads in a model's config, also of heads within heads."""
    if isinstance(model, dict):
        own = [model['type']] if str(model.get('type')).endswith('Head') else []
        return own + [kind for value in model.values() for kind in head_types(value)]
    return [kind for value in model for kind in head_types(value)] if isinstance(model, (list, tuple)) else []


# ----- What they say


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config__anchors_are_where_the_name_says(path):
    cfg = read(path)
    is_sar = path.name.startswith('sar_')
    assert any(kind.startswith('SAR') for kind in head_types(cfg.model)) == is_sar
    # The stock models of these use our losses, data sets and the like.
    of_ours = path.parents[1].name in ('long_tailed', 'noisy_labels', 'semi_supervised') or path.stem.endswith(
        'digits-40labels'
    )
    assert ('sar_mm' in cfg.get('custom_imports', dict(imports=[]))['imports']) == (is_sar or of_ours)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config__validations_are_logged_at_their_iteration(path):
    config = read(path)
    by_iteration = 'max_iters' in config.train_cfg
    logger = config.default_hooks.logger
    assert logger.get('log_metric_by_epoch', True) != by_iteration


@pytest.mark.parametrize('path', [p for p in CONFIGS if 'match' in p.name], ids=lambda path: path.stem)
def test_config__learning_rate_is_for_labeled_and_unlabeled_images(path):
    cfg = read(path)
    sampler, batch = cfg.train_dataloader.sampler, cfg.train_dataloader.batch_size
    gpus, labeled = map(int, re.search(r'_(\d+)xb(\d+)', path.stem).groups())
    assert (sampler.labeled, sampler.labeled + sampler.unlabeled) == (labeled, batch)
    assert cfg.get('auto_scale_lr', dict(base_batch_size=gpus * batch))['base_batch_size'] == gpus * batch


PUBLISHED = ('unimatch_4xb2', 'fixmatch_1xb64', 'freematch_1xb64')


@pytest.mark.parametrize(
    'path', [p for p in CONFIGS if any(name in p.name for name in PUBLISHED)], ids=lambda path: path.stem
)
def test_config__labels_as_published(path):
    cfg = read(path)
    semi = cfg.model.semi
    assert 'teacher' not in semi
    if 'unimatch' in path.name:
        assert semi.threshold == (0.0 if 'cityscapes' in path.name else 0.95)
        assert (semi.sup_weight, semi.unsup_weight, semi.feature_dropout) == (0.5, 0.5, 0.5)
        assert semi.joint_forward is False
        return
    assert 'freematch' in path.name or semi.threshold == 0.95
    assert semi.keys() <= {'threshold', 'distribution_alignment'}
    dataset = cfg.train_dataloader.dataset
    assert dataset.labeled_among_unlabeled and 'LabeledSubset' not in str(dataset.unlabeled)
    averages = [hook for hook in cfg.custom_hooks if hook.type == 'EMAHook']
    assert [hook.momentum for hook in averages] == [0.001]


def own_files(path):
    """The longest way from a config through the files of this repository that it inherits from."""
    bases = re.search(r"^_base_ = (\[.*?\]|'.*?')", path.read_text(), re.S | re.M)
    found = re.findall(r"'(.*?)'", bases[1]) if bases else []
    ways = [own_files((path.parent / base).resolve()) for base in found if '::' not in base]
    return [path, *max(ways, key=len, default=[])]


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config__inherits_through_three_files_at_most(path):
    assert len(own_files(path)) <= 4


def differences(sar, stock, path=''):
    if isinstance(sar, dict) and isinstance(stock, dict) and sar.keys() == stock.keys():
        pairs = [(sar[key], stock[key], f'{path}.{key}') for key in stock]
    elif isinstance(sar, (list, tuple)) and isinstance(stock, (list, tuple)) and len(sar) == len(stock):
        pairs = [(one, other, path) for one, other in zip(sar, stock)]
    else:
        return [] if sar == stock else [(path, sar, stock)]
    return [difference for pair in pairs for difference in differences(*pair)]


@pytest.mark.parametrize('path', [p for p in CONFIGS if p.name.startswith('sar_')], ids=lambda path: path.stem)
def test_config__differs_from_stock_in_head_types_only(path):
    stock_file = path.with_name(path.name[len('sar_') :])
    if stock_file.is_file():
        stock = read(stock_file).to_dict()
    else:
        base = re.search(r"_base_ = '(.*)'", path.read_text())[1]
        assert '::' in base and base.endswith(stock_file.name)
        stock = Config.fromfile(Config._get_cfg_path(base, str(path))[0]).to_dict()
    sar = read(path).to_dict()
    assert sar.pop('custom_imports')['imports'] == ['sar_mm']
    stock.pop('custom_imports', None)
    keys = sar.get('optim_wrapper', {}).get('paramwise_cfg', {}).get('custom_keys', {})
    if 'head' in keys:  # see test_config__projector_is_trained_as_outside_of_the_head
        keys.pop('anchor_head')
        stock['optim_wrapper']['paramwise_cfg']['custom_keys'].pop('anchor_head', None)
    changed = differences(without_scope(sar), without_scope(stock))
    assert len(changed) >= 1
    assert all(place.endswith('head.type') and new == f'SAR{old}' for place, new, old in changed)


def without_scope(node):
    if isinstance(node, dict):
        return {key: without_scope(value) for key, value in node.items() if key != '_scope_'}
    return [without_scope(value) for value in node] if isinstance(node, (list, tuple)) else node


@pytest.mark.parametrize('path', [p for p in CONFIGS if p.name.startswith('sar_')], ids=lambda path: path.stem)
def test_config__projector_is_trained_as_outside_of_the_head(path):
    """As in the authors' code, where it is the segmentor's: what a config says of heads is not meant for it."""
    optim_wrapper = read(path).optim_wrapper
    paramwise_cfg = optim_wrapper.get('paramwise_cfg')
    if paramwise_cfg is None:
        return
    assert optim_wrapper.get('constructor') is None  # else this is not the one that the config asks for
    constructor = DefaultOptimWrapperConstructor(dict(optimizer=optim_wrapper.optimizer), paramwise_cfg)
    groups = {}
    for place in ('projector', 'decode_head.anchor_head.projector', 'head.anchor_head.projector'):
        module = model = torch.nn.Module()
        for name in place.split('.')[:-1]:
            module.add_module(name, torch.nn.Module())
            module = getattr(module, name)
        module.projector = AnchorProjector(4, 4, seed=0)
        options = constructor(model).optimizer.param_groups
        groups[place] = [(group['lr'], group['weight_decay']) for group in options]
    reference = groups.pop('projector')
    assert len(reference) == 11 and all(lr == optim_wrapper.optimizer.lr for lr, _ in reference)
    assert all(found == reference for found in groups.values())


@pytest.mark.parametrize(
    'path',
    [p for p in CONFIGS if re.search('resnet32|wrn28', p.stem) and 'crt' not in p.stem],
    ids=lambda path: path.stem,
)
def test_config__weights_start_as_published(path):
    """kaiming_normal_ of all layers in Cao et al.'s code, fan out and Glorot's for the classifier in FixMatch's."""
    cfg = read(path)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        torch.manual_seed(0)
        student = cfg.model.get('classifier', cfg.model)
        backbone, head = (MODELS.build(student[part]) for part in ('backbone', 'head'))
    backbone.init_weights()
    head.init_weights()
    is_wide = 'wrn28' in path.stem
    for name, module in backbone.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            fan = module.kernel_size[0] ** 2 * (module.out_channels if is_wide else module.in_channels)
            assert module.weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.15), name
    weight = head.fc.weight
    if 'Normed' in student.head.type:
        torch.testing.assert_close(weight.norm(dim=1), torch.ones(len(weight)))
    else:
        num_classes, channels = weight.shape
        variance = 2 / (num_classes + channels) if is_wide else 2 / channels
        assert weight.std().item() == pytest.approx(variance**0.5, rel=0.1)
        assert not head.fc.bias.any()


# ----- What is said of them


@pytest.mark.parametrize('folder', FOLDERS, ids=lambda folder: folder.name)
def test_metafile__names_the_configs_of_its_folder(folder):
    metafile = yaml.safe_load((folder / 'metafile.yml').read_text())
    collections = {collection['Name'] for collection in metafile['Collections']}
    here = {path.stem: path for path in CONFIGS if path.parent == folder and path.name.startswith('sar_')}
    assert {model['Name'] for model in metafile['Models']} == set(here)
    for model in metafile['Models']:
        path = here[model['Name']]
        assert model['In Collection'] in collections
        assert ROOT / model['Config'] == path
        gpus, batch = map(int, re.search(r'_(\d+)xb(\d+)', path.stem).groups())
        assert model['Metadata']['Batch Size'] == gpus * batch
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
    assert str((folder / 'metafile.yml').relative_to(ROOT)) in index


@pytest.mark.parametrize('folder', FOLDERS, ids=lambda folder: folder.name)
def test_readme__published_figures_are_the_toolbox_own(folder):
    readme = (folder / 'README.md').read_text()
    rows = re.findall(r'^\| \[(sar_\S+)\]\(\./(\S+)\) \| (\S+) \| (\S+) \|', readme, re.M)
    assert {file for _, file, _, _ in rows} == {
        path.name for path in CONFIGS if path.parent == folder and 'sar_' in path.name
    }
    toolbox = 'mmpretrain' if folder.parent.name == 'classification' else 'mmseg'
    package = pytest.importorskip(toolbox)
    metafiles = (Path(package.__file__).parent / '.mim' / 'configs').glob(f'{folder.name}/metafile.y*ml')
    published = {}
    for metafile in metafiles:
        for model in yaml.safe_load(metafile.read_text())['Models']:
            results = model['Results'] if isinstance(model['Results'], list) else [model['Results']]
            metrics = (results[0] or {}).get('Metrics') or {}
            value = metrics.get('mIoU', metrics.get('Top 1 Accuracy'))
            published[Path(model['Config']).stem] = '-' if value is None else f'{value:.2f}'
    assert {name: figure for name, _, figure, _ in rows} == {
        name: published.get(name[len('sar_') :], '-') for name, *_ in rows
    }
    assert all(measured == '-' for *_, measured in rows)


def test_model_index__is_valid():
    load = pytest.importorskip('modelindex.load_model_index').load
    index = load(str(ROOT / 'model-index.yml'))
    index.build_models_with_collections()
    assert index.check(silent=True) == []
    released = [model for model in index.models if model.weights]
    assert len(index.models) - len(released) == sum(len(list(folder.glob('sar_*.py'))) for folder in FOLDERS)
    assert all((ROOT / model.weights).is_file() and (ROOT / model.config).is_file() for model in released)
