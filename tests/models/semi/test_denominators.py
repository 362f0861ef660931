"""UniMatch's loss, written out as its published code has it, and what must not change it."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip('mmseg.models')

SIZE, HEIGHT, WIDTH, CLASSES = 16, 16, 10, 3  # images of 16x10, 37.5 % padding
THRESHOLD = 0.5


def build(make_semi, avg_non_ignore=False, class_weight=None, loss_weight=1.0, several=False, **semi):
    # Without moving statistics and CutMix, the logits of the reference are those of the student.
    options = dict(threshold=THRESHOLD, cutmix_prob=0.0, feature_dropout=1e-9, sup_weight=0.5, unsup_weight=0.5)
    model = make_semi('seg', semi=dict(options, joint_forward=False, **semi))
    for module in model.student.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    from mmseg.models.losses import CrossEntropyLoss

    for head in (model.student.decode_head, model.student.auxiliary_head):
        loss = dict(class_weight=class_weight, avg_non_ignore=avg_non_ignore)
        losses = [CrossEntropyLoss(loss_weight=loss_weight, **loss)]
        if several:
            losses.append(CrossEntropyLoss(loss_weight=0.3, loss_name='loss_other', **loss))
        head.loss_decode = torch.nn.ModuleList(losses) if several else losses[0]
    return model


def make_batch(model, make_items):
    items = make_items('seg', 2, 3, views=2)
    for item in items:
        for view in item.values():
            view['inputs'] = view['inputs'][:, :HEIGHT, :WIDTH]
            view['data_samples'].set_metainfo(dict(img_shape=(HEIGHT, WIDTH)))
            if 'gt_sem_seg' in view['data_samples']:
                labels = view['data_samples'].gt_sem_seg.data[:, :HEIGHT, :WIDTH].clone()
                labels[:, :3] = 255
                del view['data_samples'].gt_sem_seg
                from mmengine.structures import PixelData

                view['data_samples'].gt_sem_seg = PixelData(data=labels)
    return model.data_preprocessor(items, training=True)


def unimatch(student, data, class_weight, loss_weight):
    """(x + 0.25 s1 + 0.25 s2 + 0.5 fp) / 2 of both heads; criterion_l is the mean over valid pixels."""
    weight = None if class_weight is None else torch.tensor(class_weight, dtype=torch.float64)
    x, s1, s2, w = data['inputs'].split([2, 3, 3, 3])
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in data['data_samples'][:2]])
    ignore_mask = torch.full((3, SIZE, SIZE), 255)
    ignore_mask[:, :HEIGHT, :WIDTH] = 0

    def logits(images, head):
        return F.interpolate(head(student.extract_feat(images)), (SIZE, SIZE), mode='bilinear', align_corners=False)

    confidence, label = logits(w, student.decode_head).detach().softmax(dim=1).max(dim=1)
    total = 0
    for head in (student.decode_head, student.auxiliary_head):
        loss_x = F.cross_entropy(logits(x, head), labels, weight=weight, ignore_index=255)
        terms = []
        for view in (s1, s2, w):
            loss = F.cross_entropy(logits(view, head), label, weight=weight, reduction='none')
            loss = loss * ((confidence >= THRESHOLD) & (ignore_mask != 255))
            terms.append(loss.sum() / (ignore_mask != 255).sum())
        total = total + (loss_x + 0.25 * terms[0] + 0.25 * terms[1] + 0.5 * terms[2]) / 2
    return loss_weight * total


@pytest.mark.parametrize('avg_non_ignore', [False, True])
@pytest.mark.parametrize('class_weight', [None, [0.5, 2.0, 1.5]])
@pytest.mark.parametrize(('loss_weight', 'several'), [(1.0, False), (0.4, False), (0.7, True)])
def test_loss__is_that_of_unimatch(avg_non_ignore, class_weight, loss_weight, several, make_semi, make_items):
    model = build(make_semi, avg_non_ignore, class_weight, loss_weight, several)
    data = make_batch(model, make_items)
    model.double()  # gradients of float32 convolutions differ by more than the losses do
    data['inputs'] = data['inputs'].double()
    reference = deepcopy(model.student)
    wanted = unimatch(reference, data, class_weight, 1.0 if several else loss_weight)  # 0.7 and 0.3
    log = model(**data, mode='loss')
    assert 0.1 < log['pseudo_ratio'] < 0.6
    total = sum(value for name, value in log.items() if 'loss' in name)
    torch.testing.assert_close(total, wanted, rtol=1e-6, atol=1e-6)
    total.backward()
    wanted.backward()
    parameters = dict(reference.named_parameters())
    for name, parameter in model.student.named_parameters():
        torch.testing.assert_close(parameter.grad, parameters[name].grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('options', [dict(), dict(use_sigmoid=True), dict(class_weight=[0.5, 2.0, 1.5])])
def test_split_losses__a_sum_is_divided_by_nothing(options):
    from mmseg.models.losses import CrossEntropyLoss

    from sar_mm.models.semi.task_losses import Part, split_losses

    head = torch.nn.Module()
    head.loss_decode = loss = CrossEntropyLoss(reduction='sum', **options)
    generator = torch.Generator().manual_seed(0)
    pred, target = torch.randn(5, 3, 6, 6, generator=generator), torch.randint(3, (5, 6, 6), generator=generator)
    target[:, :2] = 255
    with split_losses(head, [Part(2), Part(3, None, torch.tensor(0.8))]) as collected:
        first = loss(pred, target, weight=None, ignore_index=255)
    for value, part in ((first, slice(0, 2)), (collected[0][0], slice(2, 5))):
        torch.testing.assert_close(value, loss(pred[part], target[part], ignore_index=255))


def test_loss__counts_the_padding_that_cutmix_brings(make_semi, make_items, monkeypatch):
    """The denominator is what is no padding in the mixed image."""
    from sar_mm.models.semi import base

    model = make_semi('seg', semi=dict(threshold=0.0))
    seen, part = [], base.View.part.fget
    monkeypatch.setattr(base.View, 'part', property(lambda self: seen.append(self) or part(self)))
    data = make_batch(model, make_items)
    data['data_samples'][-1].set_metainfo(dict(img_shape=(4, 4)))
    torch.manual_seed(0)
    model(**data, mode='loss')
    views = [view for view in seen if view.mask.any()]
    assert len(views) == 2
    for view in views:
        assert not (view.mask & ~view.inside).any()
        assert view.part.inside == view.inside.float().mean()
    assert not torch.equal(views[0].inside, views[1].inside)


@pytest.mark.parametrize(
    'loss',
    [
        dict(type='CrossEntropyLoss'),
        dict(type='CrossEntropyLoss', avg_non_ignore=True, class_weight=[1.0, 2.0, 3.0]),
        dict(type='CrossEntropyLoss', use_sigmoid=True),
        dict(type='CrossEntropyLoss', use_sigmoid=True, avg_non_ignore=True),
        dict(type='DiceLoss'),
        dict(type='TverskyLoss'),
        dict(type='LogitAdjustedLoss', class_counts=[5, 3, 1]),
        dict(type='LDAMLoss', class_counts=[5, 3, 1], class_weight=[1.0, 2.0, 3.0]),
        dict(type='ClassBalancedLoss', class_counts=[50, 30, 1]),
    ],
    ids=lambda loss: '-'.join(map(str, loss.values())),
)
def test_split_losses__what_is_ignored_changes_nothing(loss):
    from mmengine.registry import MODELS, DefaultScope

    from sar_mm.models.semi.task_losses import Part, split_losses

    with DefaultScope.overwrite_default_scope('mmseg'):
        loss = MODELS.build(loss)
    head = torch.nn.Module()
    head.loss_decode = loss
    generator = torch.Generator().manual_seed(0)
    pred = torch.randn(5, 3, 6, 6, generator=generator)
    target = torch.randint(3, (5, 6, 6), generator=generator)
    ignored = torch.rand(5, 6, 6, generator=generator) < 0.4
    target[ignored] = 255
    other = torch.where(ignored[:, None], 3 * torch.randn(pred.shape, generator=generator), pred)
    results = []
    for scores in (pred, other):
        with split_losses(head, [Part(2), Part(3, None, torch.tensor(0.8))]) as collected:
            first = loss(scores, target, weight=None, ignore_index=255)
        # DiceLoss of mmseg looks at the ignored pixels of labeled images, which is left to it.
        results.append(torch.stack([*([] if type(loss).__name__ == 'DiceLoss' else [first]), *collected[0]]))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize(
    'loss',
    [
        dict(type='CrossEntropyLoss', class_weight=[1.0, 2.0, 3.0]),
        dict(type='LabelSmoothLoss', label_smooth_val=0.1, num_classes=3),
        dict(type='FocalLoss'),
        dict(type='SeesawLoss', num_classes=3),
        dict(type='LogitAdjustedLoss', class_counts=[5, 3, 1]),
        dict(type='LDAMLoss', class_counts=[5, 3, 1], class_weight=[1.0, 2.0, 3.0]),
        dict(type='ClassBalancedLoss', class_counts=[50, 30, 1]),
    ],
    ids=lambda loss: loss['type'],
)
def test_split_losses__what_weighs_nothing_changes_nothing(loss):
    pytest.importorskip('mmpretrain.models')
    from mmengine.registry import MODELS, DefaultScope

    from sar_mm.models.semi.task_losses import Part, split_losses

    is_focal = loss['type'] == 'FocalLoss'
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        losses = [MODELS.build(loss) for _ in range(2)]
    generator = torch.Generator().manual_seed(0)
    pred = torch.randn(6, 3, generator=generator)
    weight = torch.tensor([1.0, 0.0, 1.0, 0.0])
    results = []
    for each, label in zip(losses, (0, 2)):
        head = torch.nn.Module()
        head.loss_module = each
        target = torch.tensor([0, 1, 2, label, 1, label])
        scores = pred.clone()
        scores[[3, 5]] += label
        for _ in range(2):  # with what the first step leaves behind
            with split_losses(head, [Part(2), Part(4, weight)]) as collected:
                first = each(scores, F.one_hot(target, 3) if is_focal else target, avg_factor=6)
            results.append(torch.stack([first, *collected[0]]))
    torch.testing.assert_close(results[0], results[2])
    torch.testing.assert_close(results[1], results[3])
