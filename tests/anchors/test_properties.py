"""What holds of predefined anchors for any number of classes, dimension and seed; hypothesis draws them."""

import random

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import sar_mm  # noqa: F401
from sar_mm.registry import ANCHORS

always = settings(derandomize=True, deadline=None, max_examples=60, database=None)
classes, dims, seeds = st.integers(2, 24), st.integers(1, 24), st.integers(0, 2**32 - 1)
DRAWN = ['GaussianAnchors', 'OrthogonalAnchors', 'SimplexETFAnchors', 'EquiangularAnchors', 'SeparatedAnchors']


def build(kind, **options):
    if kind == 'SeparatedAnchors':
        options.setdefault('steps', 5)
    return ANCHORS.build(dict(type=kind, **options))


def smallest_dim(kind, num_classes):
    return {
        'OrthogonalAnchors': num_classes,
        'EquiangularAnchors': num_classes,  # with its default cosine, 0
        'SimplexETFAnchors': num_classes - 1,
    }.get(kind, 1)


def cosines(anchors):
    """Cosines of all pairs of different anchors, in float64."""
    unit = torch.nn.functional.normalize(anchors.double())
    return (unit @ unit.t())[~torch.eye(len(anchors), dtype=torch.bool)]


@pytest.mark.parametrize('kind', DRAWN)
@always
@given(num_classes=classes, dim=dims, seed=seeds, other=seeds)
def test_anchors__follow_from_their_seed_alone(kind, num_classes, dim, seed, other):
    assume(dim >= smallest_dim(kind, num_classes))
    torch.manual_seed(other)
    np.random.seed(other % 2**32)
    random.seed(other)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    anchors = build(kind, seed=seed)(num_classes, dim)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1] and random.getstate() == before[2]
    assert anchors.shape == (num_classes, dim) and anchors.dtype == torch.float32 and anchors.device.type == 'cpu'
    assert anchors.isfinite().all() and not anchors.requires_grad
    torch.rand(3)
    assert torch.equal(build(kind, seed=seed)(num_classes, dim), anchors)
    assert torch.equal(build(kind, seed=seed, dim=dim)(num_classes, 7), anchors)  # dim goes before the channels
    if seed != other and dim > 2:
        assert not torch.equal(build(kind, seed=other)(num_classes, dim), anchors)


@pytest.mark.parametrize('kind', DRAWN[1:])
@always
@given(num_classes=classes, dim=dims, seed=seeds)
def test_anchors__are_unit_vectors_at_their_cosines(kind, num_classes, dim, seed):
    assume(dim >= smallest_dim(kind, num_classes))
    anchors = build(kind, seed=seed)(num_classes, dim)
    torch.testing.assert_close(anchors.norm(dim=1), torch.ones(num_classes), rtol=0, atol=1e-6)
    found = cosines(anchors)
    if kind == 'SimplexETFAnchors' or (kind == 'SeparatedAnchors' and num_classes <= dim + 1):
        torch.testing.assert_close(found, torch.full_like(found, -1 / (num_classes - 1)), rtol=0, atol=1e-6)
    elif kind != 'SeparatedAnchors':
        torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-6)
    else:  # no set of K vectors is below the simplex
        assert found.max() >= -1 / (num_classes - 1) - 1e-6


@pytest.mark.parametrize('kind', ['OrthogonalAnchors', 'EquiangularAnchors', 'SimplexETFAnchors'])
@always
@given(num_classes=classes, dim=dims, seed=seeds)
def test_anchors__say_when_there_are_too_few_dimensions(kind, num_classes, dim, seed):
    assume(dim < smallest_dim(kind, num_classes))
    with pytest.raises(ValueError, match='argument `dim`') as error:
        build(kind, seed=seed)(num_classes, dim)
    assert str(error.value).endswith(f'but got {dim}')


@always
@given(num_classes=classes, more=st.integers(-1, 5), seed=seeds, cosine=st.floats(-1, 1, exclude_max=True))
def test_equiangular_anchors__have_the_cosine_that_there_is(num_classes, more, seed, cosine):
    smallest = -1 / (num_classes - 1)
    assume(abs(cosine - smallest) > 1e-6)
    anchors = build('EquiangularAnchors', cosine=cosine, seed=seed)
    name = 'cosine' if cosine < smallest else 'dim' if more < 0 else None
    if name is None:
        found = cosines(anchors(num_classes, num_classes + more))
        torch.testing.assert_close(found, torch.full_like(found, cosine), rtol=0, atol=1e-5)
    else:
        with pytest.raises(ValueError, match=f'argument `{name}`'):
            anchors(num_classes, max(num_classes + more, 1))


@always
@given(num_classes=st.integers(2, 12), dim=st.integers(2, 6), seed=seeds)
def test_separated_anchors__lie_no_closer_than_where_they_start(num_classes, dim, seed):
    assume(num_classes > dim + 1)
    start, end = (build('SeparatedAnchors', steps=steps, seed=seed)(num_classes, dim) for steps in (0, 100))
    assert cosines(end).max() <= cosines(start).max() + 1e-6


@pytest.mark.parametrize('kind', DRAWN)
@always
@given(st.one_of(st.integers(max_value=1), st.floats(), st.booleans(), st.text(max_size=2), st.none()))
def test_anchors__refuse_other_numbers_of_classes(kind, num_classes):
    with pytest.raises(ValueError, match='argument `num_classes` to be an integer of at least 2'):
        build(kind)(num_classes, 8)


@pytest.mark.parametrize('kind', DRAWN)
@pytest.mark.parametrize('name, minimum', [('dim', 1), ('seed', 0)])
@always
@given(data=st.data())
def test_anchors__refuse_other_dimensions_and_seeds(kind, name, minimum, data):
    value = data.draw(st.one_of(st.integers(max_value=minimum - 1), st.floats(), st.booleans(), st.text(max_size=2)))
    with pytest.raises(ValueError, match=f'argument `{name}` to be an integer of at least {minimum}'):
        build(kind, **{name: value})


@always
@given(
    num_classes=classes,
    dim=dims,
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(['float16', 'float32', 'float64', '>f4', 'int64', 'uint8', 'bool', 'complex64']),
    fault=st.sampled_from(['none', 'none', 'nan', 'inf', 'row', 'flat']),
    order=st.sampled_from('CF'),
)
def test_embedding_anchors__are_the_rows_of_the_file(tmp_path_factory, num_classes, dim, seed, dtype, fault, order):
    array = np.random.default_rng(seed).normal(size=(num_classes, dim)).astype(dtype, order=order)
    is_float = np.issubdtype(array.dtype, np.floating) and array.dtype.isnative
    if fault in ('nan', 'inf') and is_float:
        array[-1, -1] = float(fault)
    stored = {'row': array[1:], 'flat': array.ravel()}.get(fault, array)
    path = tmp_path_factory.mktemp('anchors') / 'anchors.npy'
    np.save(path, stored)
    anchors = build('EmbeddingAnchors', path=str(path))
    if is_float and fault == 'none':
        found = anchors(num_classes, 5)
        assert found.dtype == torch.float32
        np.testing.assert_array_equal(found.numpy(), array.astype('float32'))
    else:
        with pytest.raises(ValueError, match='argument `path`') as error:
            anchors(num_classes, 5)
        assert str(path) in str(error.value)
