from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope

from sar_mm.models.semi.teacher import labeling

pytest.importorskip('mmseg.models')


def build(decode_head, auxiliary_head=None, semi=None, **options):
    backbone = dict(type='ResNet', depth=18, base_channels=4, stem_channels=4, norm_cfg=dict(type='BN'))
    model = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', size=(32, 32)),
        backbone=dict(backbone, strides=(1, 1, 1, 1)),
        decode_head=decode_head,
        auxiliary_head=auxiliary_head,
        train_cfg={},
        test_cfg=ConfigDict(mode='slide', crop_size=(16, 16), stride=(8, 8)),
    )
    with DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build(dict(type='SemiSegmentor', segmentor=dict(model, **options), semi=semi)).train()


def fcn(kind='FCNHead', **options):
    head = dict(type=kind, in_channels=32, in_index=3, channels=8, num_convs=1, concat_input=False, num_classes=3)
    return dict(head, norm_cfg=dict(type='BN'), **options)


def losses_of(model, items):
    return model(**model.data_preprocessor(items, training=True), mode='loss')


def test_cutmix__student_sees_mixed_images_with_mixed_labels(make_semi, make_items, monkeypatch):
    model = make_semi('seg', semi=dict(threshold=0.5, cutmix_prob=1.0))
    seen = []
    loss = type(model.student).loss

    def watch(self, inputs, samples):
        seen.append((inputs, torch.stack([sample.gt_sem_seg.data[0] for sample in samples])))
        return loss(self, inputs, samples)

    monkeypatch.setattr(type(model.student), 'loss', watch)
    data = model.data_preprocessor(make_items('seg', 2, 4), training=True)
    before = data['inputs'].clone()
    student = deepcopy(model.student)
    with torch.no_grad():
        mixed_in = model.predict_probability(deepcopy(student).eval(), before[6:])
    model(**data, mode='loss')
    images, labels = seen[0]
    with torch.no_grad(), labeling(student):
        of_batch = model.predict_probability(student, images)[6:]

    def threshold(probability):
        confidence, label = probability.max(dim=1)
        return label.masked_fill(confidence < 0.5, 255)

    assert torch.equal(images[:2], before[:2]) and torch.equal(images[6:], before[6:])
    assert (labels[6:] == 255).all()  # weak views are there to be labeled
    moved = (images[2:6] != before[2:6]).any(dim=1)  # (4, 16, 16)
    assert 0.01 < moved.float().mean() < 0.5
    # What is mixed in has labels of evaluation mode, all else those of the batch.
    assert torch.equal(labels[2:6][~moved], threshold(of_batch)[~moved])
    # Every pixel and its label come from the same one of the unlabeled images.
    sources = (images[2:6, None] == before[None, 2:6]).all(dim=2)  # (4, 4, 16, 16)
    other = threshold(mixed_in)
    expected = torch.where(sources, other[None], torch.full_like(other[None], -7)).amax(dim=1)
    assert torch.equal(labels[2:6][moved], expected[moved])
    assert not torch.equal(other, threshold(of_batch))


def test_feature_dropout__adds_a_view_of_the_weak_images(make_semi, make_items, monkeypatch):
    model = make_semi('seg', semi=dict(threshold=0.0, cutmix_prob=0.0, feature_dropout=0.5))
    data = model.data_preprocessor(make_items('seg', 2, 3, views=2), training=True)
    seen, decode = [], type(model.student.decode_head).forward
    monkeypatch.setattr(
        type(model.student.decode_head), 'forward', lambda self, inputs: seen.append(inputs) or decode(self, inputs)
    )
    features = deepcopy(model.student).extract_feat(data['inputs'])
    losses = model(**data, mode='loss')
    assert [len(each[0]) for each in seen] == [11, 11, 11]  # to label, and both heads to learn
    student = seen[1]
    for clean, given in zip(features, student):
        torch.testing.assert_close(given[:8], clean[:8])
        dropped = (given[8:] == 0).flatten(2).all(dim=2) & (clean[8:] != 0).flatten(2).any(dim=2)
        kept = ~(given[8:] == 0).flatten(2).all(dim=2)
        assert dropped.any() and kept.any()
        torch.testing.assert_close(given[8:][kept], 2 * clean[8:][kept])
    assert not model.student.backbone._forward_hooks
    assert losses['loss_unsup'] > 0


def test_feature_dropout__unsupervised_loss_is_the_mean_of_both_kinds(make_semi, make_items, monkeypatch):
    model = make_semi('seg', semi=dict(threshold=0.0, cutmix_prob=0.0, feature_dropout=1e-9))
    # Nothing is dropped; weak and strong views alike have the same loss, and so has their mean.
    items = make_items('seg', 2, 3, views=2)
    for item in items[2:]:
        for name in ('strong0', 'strong1'):
            getattr(item, name)['inputs'].copy_(item.weak['inputs'])
    reference = make_semi('seg', semi=dict(threshold=0.0, cutmix_prob=0.0))
    for each in (model, reference):
        for module in each.student.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
    torch.testing.assert_close(losses_of(model, items)['loss_unsup'], losses_of(reference, items)['loss_unsup'])


def test_loss__padding_is_no_part_of_the_images(make_items):
    model = build(fcn(), semi=dict(threshold=0.0, cutmix_prob=0.0))
    data = model.data_preprocessor(make_items('seg', 2, 3), training=True)
    assert data['inputs'].shape[2:] == (32, 32)
    assert float(model(**data, mode='loss')['pseudo_ratio']) == pytest.approx(0.25)


@pytest.mark.parametrize(
    'decode_head',
    [
        fcn(),
        fcn('SARFCNHead'),
        fcn('FCNHead', sampler=dict(type='OHEMPixelSampler', thresh=0.7, min_kept=50)),
        fcn('FCNHead', sampler=dict(type='OHEMPixelSampler', min_kept=50)),
        fcn('FCNHead', loss_decode=[dict(type='CrossEntropyLoss'), dict(type='DiceLoss', loss_name='loss_dice')]),
        fcn('SARFCNHead', loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True)),
        fcn('SARFCNHead', loss_decode=dict(type='LDAMLoss', class_counts=[5, 3, 1])),
        dict(fcn('SARDAHead'), pam_channels=8),
    ],
    ids=lambda head: head['type'] + ('-sampler' if 'sampler' in head else '') + str(len(head)),
)
@pytest.mark.parametrize('threshold', [0.0, 1.0])
def test_loss__of_many_kinds_of_heads(decode_head, threshold, make_items):
    decode_head = {k: v for k, v in decode_head.items() if 'FCN' in decode_head['type'] or 'conv' not in k}
    if 'FCN' not in decode_head['type']:
        decode_head.pop('concat_input', None)
    model = build(decode_head, semi=dict(teacher={}))
    model.pseudo_labels.threshold.value = 2 * threshold  # none counts above 1
    losses = losses_of(model, make_items('seg', 2, 2))
    unsup = losses['loss_unsup']
    assert unsup > 0 and unsup.isfinite() if threshold == 0 else unsup == ('DiceLoss' in str(decode_head))
    assert any('loss_anchor' in name for name in losses) == decode_head['type'].startswith('SAR')
    sum(value for name, value in losses.items() if 'loss' in name).backward()


def test_loss__of_a_cascade(make_items):
    heads = [fcn('SARFCNHead'), dict(fcn('SAROCRHead'), ocr_channels=4)]
    for name in ('num_convs', 'concat_input'):
        heads[1].pop(name)
    model = build(heads, semi=dict(threshold=0.0), type='CascadeEncoderDecoder', num_stages=2)
    losses = losses_of(model, make_items('seg', 2, 2))
    assert {'decode_0.loss_anchor', 'decode_1.loss_anchor', 'loss_unsup'} <= losses.keys()


def test_loss__slides_in_tests_but_not_for_pseudo_labels(make_items):
    model = build(fcn(), semi=dict(cutmix_prob=0.0))
    losses_of(model, make_items('seg', 2, 2, size=32))  # encode_decode() of whole images
    model.eval()
    with torch.no_grad():
        assert len(model(torch.randn(2, 3, 32, 32), mode='predict')) == 2


def test_loss__without_known_labels_there_is_no_accuracy(make_semi, make_items):
    assert 'pseudo_acc' not in losses_of(make_semi('seg', semi={}), make_items('seg', known=False))


@pytest.mark.parametrize('teacher', [None, {}])
def test_loss__in_half_precision(teacher, make_semi, make_items):
    model = make_semi('seg', sar=True, semi=dict(threshold=0.0, teacher=teacher))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = losses_of(model, make_items('seg'))
    assert losses['loss_unsup'].dtype == torch.float32 and losses['loss_unsup'].isfinite()
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    assert all(parameter.grad is not None for parameter in model.student.parameters())


@pytest.mark.parametrize(
    ('head', 'message'),
    [
        (dict(type='VPDDepthHead', in_channels=[32, 32, 32, 32]), 'cannot train a VPDDepthHead: it regresses depth'),
        (dict(fcn('PIDHead')), 'cannot train a PIDHead: it needs maps of edges'),
        (dict(fcn('STDCHead'), boundary_threshold=0.1), 'cannot train a STDCHead: it makes edges of the labels'),
        (
            dict(fcn('EncHead'), num_codes=4, in_channels=[8, 16, 32], in_index=(1, 2, 3)),
            'cannot train a EncHead: its loss_se learns',
        ),
        (
            dict(fcn(), out_channels=1, num_classes=2, loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True)),
            'cannot train a FCNHead with CrossEntropyLoss: where all pixels are ignored',
        ),
        (dict(fcn(), loss_decode=dict(type='LovaszLoss', reduction='none')), 'with LovaszLoss: where all pixels are'),
    ],
)
def test_init__heads_that_cannot_be_trained(head, message):
    for name in () if head['type'] in ('FCNHead', 'STDCHead') else ('num_convs', 'concat_input'):
        head.pop(name, None)
    with pytest.raises(TypeError, match=message):
        build(head)


def test_init__heads_that_ignore_different_labels():
    with pytest.raises(ValueError, match='`ignore_index of FCNHead` to be 255, as in the decode head, but got 254'):
        build(fcn(), dict(fcn(), in_channels=16, in_index=2, ignore_index=254))


def test_feature_dropout__of_features_that_are_no_maps(make_items):
    model = build(fcn(), semi=dict(feature_dropout=0.5))
    model.student.backbone.register_forward_hook(lambda *args: tuple(f.flatten(2) for f in args[2]))
    with model.perturbing(0), pytest.raises(
        TypeError, match=r'needs feature maps \(N, C, H, W\), but .* gives \(2, 4, '
    ):
        model.student.backbone(torch.randn(2, 3, 32, 32))


def test_out_channels__for_test_time_augmentation(make_semi):
    assert make_semi('seg', semi={}).out_channels == 3


def test_predict_probability__is_a_distribution(make_semi):
    model = make_semi('seg', semi={}).eval()
    probability = model.predict_probability(model.student, torch.randn(2, 3, 16, 16))
    assert probability.shape == (2, 3, 16, 16)
    torch.testing.assert_close(probability.sum(dim=1), torch.ones(2, 16, 16))
    assert F.one_hot(probability.argmax(dim=1), 3).sum() == 2 * 256
