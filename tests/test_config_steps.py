"""Every shipped config, built and trained for one step on random data."""

import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import BaseDataElement
from shipped_configs import CONFIGS, read

import sar_mm  # noqa: F401


def quick():
    """One config per folder; the others are slow."""
    smallest = {'deeplabv3': 'pascal', 'swin': 'sar_swin-tiny', 'hrnet': 'cityscapes'}
    for folder in sorted({path.parent for path in CONFIGS}):
        names = [path for path in CONFIGS if path.parent == folder]
        wanted = smallest.get(folder.name, 'sar_')
        first = next(path for path in names if path.name.startswith('sar_') and wanted in path.name)
        for path in names:
            # A step with 8,142 classes takes half a minute; those of ImageNet-LT differ in their number only.
            is_quick = folder.name == 'quickstart' or path == first and folder.name != 'inaturalist2018'
            yield pytest.param(path, id=path.stem, marks=[] if is_quick else pytest.mark.slow)


def make_batch(scope, num_classes, channels, size, labeled=True):
    images = [torch.randint(256, (channels, size, size), dtype=torch.uint8) for _ in range(2)]
    if scope == 'mmpretrain':
        from mmpretrain.structures import DataSample

        samples = [DataSample() for _ in images]
        for sample in samples if labeled else []:
            sample.set_gt_label(int(torch.randint(num_classes, ())))
        return dict(inputs=torch.stack(images), data_samples=samples)
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    samples = []
    for _ in images:
        meta = dict(img_shape=(size, size), ori_shape=(size, size))
        sample = SegDataSample(metainfo=meta)
        if labeled:
            sample.gt_sem_seg = PixelData(data=torch.randint(num_classes, (1, size, size)))
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


def unlabeled_pipeline(cfg):
    dataset = cfg.train_dataloader.dataset.unlabeled
    while 'pipeline' not in dataset:
        dataset = dataset.dataset
    return dataset.pipeline


def make_semi_batch(scope, num_classes, channels, size, branches):
    """Two labeled and two unlabeled images, the latter with a view per branch."""
    views = {
        name: make_batch(scope, num_classes, channels, size, labeled=name == 'labeled')
        for name in ('labeled', *branches)
    }

    def item(name, index):
        return {key: values[index] for key, values in views[name].items()}

    labeled = [BaseDataElement(labeled=item('labeled', index)) for index in range(2)]
    return labeled + [BaseDataElement(**{name: item(name, index) for name in branches}) for index in range(2)]


@pytest.mark.parametrize('path', quick())
def test_config__trains_a_step_on_random_data(path):
    cfg = read(path)
    scope = cfg.default_scope
    size = 224 if path.parent.name == 'swin_transformer' else 64  # its windows do not fit smaller maps
    cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))  # as the Runner does
    is_semi = cfg.model.type in ('SemiClassifier', 'SemiSegmentor')
    student = cfg.model.get('classifier', cfg.model.get('segmentor')) if is_semi else cfg.model
    if 'size' in student.data_preprocessor:
        student.data_preprocessor.size = (size, size)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope), MODELS.switch_scope_and_registry(scope) as registry:
        try:
            model = registry.build(cfg.model)
        except RuntimeError as error:
            pytest.skip(f'{path.stem}: {error}' if 'mmcv' in str(error) else pytest.fail(str(error)))
        optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    model = revert_sync_batchnorm(model).train()
    # Some schedules start from a rate so small that float32 would not see the step.
    for group in optim_wrapper.optimizer.param_groups:
        group['lr'] = 1e-3
    own = model.student if is_semi else model
    head = own.head if scope == 'mmpretrain' else own.decode_head
    heads = head if isinstance(head, torch.nn.ModuleList) else [head]
    for module in model.modules():
        if hasattr(module, 'set_class_counts'):  # as ClassCountsHook does
            module.set_class_counts(range(1, heads[-1].num_classes + 1))
    before = {name: value.clone() for name, value in own.named_parameters()}
    batch = (scope, heads[-1].num_classes, student.backbone.get('in_channels', 3), size)
    if is_semi:
        branches = [name for name in unlabeled_pipeline(cfg)[-1] if name != 'type']
        data = make_semi_batch(*batch, branches)
    else:
        data = make_batch(*batch)
    log = model.train_step(data, optim_wrapper)
    assert log['loss'].isfinite()
    assert any('loss_anchor' in name for name in log) == path.name.startswith('sar_')
    assert ('pseudo_ratio' in log) == is_semi
    after = dict(own.named_parameters())
    assert all(value.isfinite().all() for value in after.values())
    still = [name for name, value in before.items() if torch.equal(value, after[name])]
    # A bias in front of a normalisation has no gradient but rounding errors: only weight decay is sure to move it.
    still = [name for name in still if not name.endswith(('projector.0.bias', 'projector.3.bias'))]
    assert [name for name in still if 'anchor_head' in name or 'conv_seg' in name] == []
    trained = [value for value in after.values() if value.requires_grad]
    assert len(trained) - (len(before) - len(still)) < len(before) / 2
