from types import SimpleNamespace

import pytest
from torch import nn

from sar_mm.engine.checks import check_class_weights, check_classes, check_sync_bn, classifying_heads
from sar_mm.engine.errors import UsageError

THREE = dict(classes=('a', 'b', 'c'))


def head(kind='FCNHead', loss=None, **options):
    """Return a model with one decode head that has these attributes."""
    module = type(kind, (nn.Module,), {})()
    for name, value in options.items():
        setattr(module, name, value)
    if loss is not None:
        module.loss_decode = loss
    model = nn.Module()
    model.decode_head = module
    return model


def data(metainfo, **options):
    return SimpleNamespace(metainfo=metainfo, **options)


@pytest.mark.parametrize(
    'model, dataset',
    [
        (head(num_classes=3), data(THREE)),
        (head(num_classes=19), data(dict(classes=None))),  # names no classes
        (head(num_classes=19), data({})),
        (head(num_classes=19), SimpleNamespace()),
        (head(num_classes=1, out_channels=1), data(dict(classes=('background', 'vessel')))),
        (head(num_classes=2, out_channels=1), data(dict(classes=('vessel',)))),
        (head(num_classes=2), data(THREE, reduce_zero_label=True)),
        (head('STDCHead', num_classes=2), data(THREE)),  # edges
        (head('VPDDepthHead', num_classes=40), data(THREE)),
        (head('MultiTaskHead'), data(THREE)),  # its sub-heads have classes
    ],
)
def test_check_classes__what_fits(model, dataset):
    check_classes(list(classifying_heads(model)), dataset, 'train_dataloader.dataset')


def test_check_classes__what_does_not():
    heads = list(classifying_heads(head(num_classes=4)))
    message = r'^model.decode_head.num_classes=4, but .* train_dataloader.dataset has 3 classes \(a, b, c\): set num_'
    with pytest.raises(UsageError, match=message):
        check_classes(heads, data(THREE), 'train_dataloader.dataset')


def test_classifying_heads__of_cascades_and_of_students():
    cascade = nn.Module()
    cascade.decode_head = nn.ModuleList([head(num_classes=3).decode_head, head(num_classes=3).decode_head])
    cascade.auxiliary_head = None
    assert [each.place for each in classifying_heads(cascade)] == ['model.decode_head.0', 'model.decode_head.1']
    semi = nn.Module()
    semi.student = head(num_classes=3)
    assert [each.place for each in classifying_heads(semi)] == ['model.segmentor.decode_head']


def test_check_class_weights__of_one_of_several_losses():
    loss = nn.ModuleList([nn.CrossEntropyLoss(), nn.Identity()])
    loss[1].class_weight = [1.0, 2.0]
    with pytest.raises(
        UsageError, match=r'model.decode_head.loss_decode.1.class_weight has 2 entries, but .*classes=3'
    ):
        check_class_weights(list(classifying_heads(head(num_classes=3, loss=loss))))
    loss[1].class_weight = [1.0, 2.0, 3.0]
    check_class_weights(list(classifying_heads(head(num_classes=3, loss=loss))))


def test_check_sync_bn__on_a_cpu():
    model = nn.Module()
    model.backbone = nn.Sequential(nn.SyncBatchNorm(4))
    with pytest.raises(
        UsageError, match=r"model.backbone.0 is of type SyncBN, .*set norm_cfg=dict\(type='BN'\) in model.b"
    ):
        check_sync_bn(model)
    check_sync_bn(nn.BatchNorm2d(4))
