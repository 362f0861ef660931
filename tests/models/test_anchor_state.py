"""The buffers of the anchor head: which belong together, when they change, and what a checkpoint does to them."""

import copy
import warnings

import numpy as np
import pytest
import torch
from anchor_heads import C, K, embedded, load_with_mmengine, load_with_torch, make_head, move_projector, step, trained
from torch import nn

import sar_mm  # noqa: F401

# ----- Another number of classes, other channels, another gate


@pytest.mark.parametrize(
    ('other', 'gate_per_class'),
    [(dict(num_classes=2), True), (dict(channels=8), False), (dict(num_classes=7, channels=3), True)],
    ids=str,
)
@pytest.mark.filterwarnings('ignore:the predefined anchors')
def test_state__starts_anew_where_the_average_does_not_fit(other, gate_per_class):
    head = make_head(**other, gate_per_class=gate_per_class)
    load_with_mmengine(head, trained().state_dict())
    assert not head.initialized.any()
    losses = step(head)
    assert torch.equal(head.semantic_anchors, embedded(head)) and head.initialized.all()
    # Features at the origin are pulled to A, whose mean square is the loss.
    torch.testing.assert_close(losses['loss_pull'], 0.1 * embedded(head).square().mean())


@pytest.mark.filterwarnings('ignore:the predefined anchors')
def test_state__of_a_trained_head_is_reset_by_a_checkpoint_that_does_not_fit():
    head = trained(num_classes=2)
    load_with_mmengine(head, trained().state_dict())
    assert not head.initialized.any()


@pytest.mark.parametrize(
    ('load', 'per_class'),
    [(load_with_torch, (False, True)), (load_with_mmengine, (True, False)), (load_with_torch, (True, True))],
)
def test_state__outlives_another_gate(load, per_class):
    before, after = (make_head(gate_per_class=each, momentum=0.75) for each in per_class)
    step(before)
    kept = before.semantic_anchors.clone()
    load(after, before.state_dict())
    assert torch.equal(after.semantic_anchors, kept) and after.initialized.all()
    move_projector(after)
    step(after)
    torch.testing.assert_close(after.semantic_anchors, 0.75 * kept + 0.25 * embedded(after))


@pytest.mark.parametrize('gate_per_class', [False, True])
def test_state__starts_class_by_class(gate_per_class):
    before, after = make_head(gate_per_class=True), make_head(gate_per_class=gate_per_class, momentum=0.75)
    step(before, right=(1, 3))
    kept = before.semantic_anchors.clone()
    load_with_torch(after, before.state_dict())
    move_projector(after)
    step(after)
    expected = embedded(after)
    expected[[1, 3]] = 0.75 * kept[[1, 3]] + 0.25 * expected[[1, 3]]
    torch.testing.assert_close(after.semantic_anchors, expected)


@pytest.mark.parametrize('flag', [torch.tensor(True), torch.tensor([True, False, True, True])])
def test_state__of_an_older_checkpoint_is_read(flag):
    state = dict(trained().state_dict(), initialized=flag)
    head = make_head()
    load_with_torch(head, state)
    assert torch.equal(head.initialized, flag.float().expand(K))


def test_state__without_an_average_starts_anew():
    state = trained().state_dict()
    del state['semantic_anchors']
    head = make_head()
    load_with_mmengine(head, state)
    assert not head.initialized.any()


def test_state__stays_where_a_stock_checkpoint_is_loaded():
    model = nn.ModuleDict(dict(fc=nn.Linear(C, K), anchor_head=trained()))
    before = copy.deepcopy(model.anchor_head.state_dict())
    load_with_mmengine(model, nn.ModuleDict(dict(fc=nn.Linear(C, K))).state_dict())
    assert all(torch.equal(before[name], value) for name, value in model.anchor_head.state_dict().items())


# ----- Other predefined anchors


@pytest.mark.parametrize(
    'other', [dict(type='SimplexETFAnchors'), dict(seed=1), dict(dim=9), dict(type='OrthogonalAnchors')], ids=str
)
def test_state__takes_the_anchors_of_the_config_and_says_so_once(other):
    class Model(nn.Module):
        def __init__(self, **options):
            super().__init__()
            self.student, self.teacher = make_head(**options), make_head(**options)

    given = Model()
    step(given.student)
    model = Model(anchors=other)
    own = model.student.anchors.clone()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('default')
        load_with_mmengine(model, given.state_dict())
        assert not caught  # to test or export a model, no anchors matter
        step(model.eval().student)
        assert not caught and not model.student.initialized.any()
        model.train()
        step(model.student)
        first = [each.clone() for each in (embedded(model.student), model.student.semantic_anchors)]
        model.train()
    texts = [str(each.message) for each in caught if 'predefined anchors' in str(each.message)]
    assert len(texts) == 1
    name, value = next(iter(other.items()))
    assert f'{name}={value!r}' in texts[0] and f'{tuple(given.student.anchors.shape)}' in texts[0]
    assert torch.equal(*first)
    assert torch.equal(model.student.anchors, own) and torch.equal(model.teacher.anchors, own)
    assert not model.teacher.initialized.any()


@pytest.mark.parametrize(
    ('kind', 'dtype'),
    [
        ('GaussianAnchors', torch.float32),
        ('SimplexETFAnchors', torch.bfloat16),
        ('GaussianAnchors', torch.float16),
        ('SimplexETFAnchors', torch.float64),
    ],
)
def test_state__of_the_same_anchors_is_kept_without_a_word(kind, dtype):
    before, head = trained(anchors=dict(type=kind)), make_head(anchors=dict(type=kind))
    state = {name: value.to(dtype) for name, value in before.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        load_with_torch(head, state)
    torch.testing.assert_close(head.semantic_anchors, before.semantic_anchors, rtol=1e-2, atol=1e-2)
    assert head.initialized.all()


# ----- A file of anchors that is not there


@pytest.fixture
def from_file(tmp_path):
    path = tmp_path / 'names.npy'
    np.save(path, np.random.default_rng(0).standard_normal((K, 11)).astype(np.float32))
    return dict(type='EmbeddingAnchors', path=str(path))


@pytest.mark.parametrize('load', [load_with_torch, load_with_mmengine])
def test_state__of_anchors_of_a_file_needs_no_file(load, from_file, tmp_path):
    before = trained(anchors=from_file)
    head = make_head(anchors=dict(from_file, path=str(tmp_path / 'gone.npy')))
    weight = head.projector[0].weight
    load(head, before.state_dict())
    assert head.projector[0].weight is weight  # the optimizer has it
    for name, value in before.state_dict().items():
        assert torch.equal(head.state_dict()[name], value), name
    step(before), step(head)
    assert torch.equal(head.semantic_anchors, before.semantic_anchors)


def test_state__of_anchors_of_a_missing_file_cannot_be_trained(from_file, tmp_path):
    head = make_head(anchors=dict(from_file, path=str(tmp_path / 'gone.npy')))
    with pytest.raises(FileNotFoundError, match='`path`.*gone.npy'):
        step(head)
    load_with_mmengine(head, trained(num_classes=3).state_dict())  # nor with those of other classes
    with pytest.raises(FileNotFoundError, match='`path`.*gone.npy'):
        step(head)


# ----- Losses that are computed for validation


@pytest.mark.parametrize('started', [False, True])
@pytest.mark.parametrize('how', ['eval', 'no_grad', 'both'])
def test_state__is_not_changed_by_a_loss_for_validation(how, started):
    head = make_head()
    if started:
        step(head)
        move_projector(head)
    expected = step(copy.deepcopy(head))
    before = copy.deepcopy(head.state_dict())
    head.train(how == 'no_grad')
    with torch.set_grad_enabled(how == 'eval'):
        losses = step(head)
    for name, value in head.state_dict().items():
        assert torch.equal(value, before[name]), name
    for name, value in expected.items():
        assert torch.equal(losses[name], value), name
