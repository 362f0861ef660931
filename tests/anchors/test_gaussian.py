import subprocess
import sys

import pytest
import torch

import sar_mm  # noqa: F401
from sar_mm.anchors import GaussianAnchors, OrthogonalAnchors, SeparatedAnchors, SimplexETFAnchors
from sar_mm.registry import ANCHORS

KINDS = [GaussianAnchors, OrthogonalAnchors, SeparatedAnchors, SimplexETFAnchors]


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(('dim', 'width'), [(None, 7), (9, 9)])
def test_anchors__have_shape_and_dtype(kind, dim, width):
    anchors = kind(dim=dim)(5, 7)
    assert anchors.shape == (5, width)
    assert anchors.dtype == torch.float32
    assert anchors.device.type == 'cpu'


@pytest.mark.parametrize('kind', KINDS)
def test_anchors__depend_on_the_seed_alone(kind):
    torch.manual_seed(1)
    first = kind(seed=3)(4, 6)
    torch.manual_seed(2)
    assert torch.equal(kind(seed=3)(4, 6), first)
    assert (kind(seed=4)(4, 6) - first).abs().max() > 0.1


@pytest.mark.parametrize('kind', KINDS)
def test_anchors__leave_the_global_random_state(kind):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    kind()(5, 3) if kind in (GaussianAnchors, SeparatedAnchors) else kind()(4, 6)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
def test_anchors__are_the_same_in_another_process(tmp_path):
    code = (
        'import sys, torch; torch.manual_seed(9); from sar_mm.anchors import *; '
        'kinds = [GaussianAnchors, OrthogonalAnchors, SeparatedAnchors, SimplexETFAnchors]; '
        'torch.save([k(seed=2)(4, 6) for k in kinds] + [SeparatedAnchors(steps=20)(6, 3)], sys.argv[1])'
    )
    path = tmp_path / 'anchors.pth'
    subprocess.run([sys.executable, '-c', code, str(path)], check=True)
    here = [kind(seed=2)(4, 6) for kind in KINDS] + [SeparatedAnchors(steps=20)(6, 3)]
    for mine, theirs in zip(here, torch.load(path)):
        assert torch.equal(mine, theirs)


def test_anchors__ignore_the_default_dtype():
    expected = [kind()(4, 6) for kind in KINDS]
    torch.set_default_dtype(torch.float64)
    try:
        found = [kind()(4, 6) for kind in KINDS[1:]]
    finally:
        torch.set_default_dtype(torch.float32)
    for mine, theirs in zip(found, expected[1:]):
        assert mine.dtype == torch.float32
        assert torch.equal(mine, theirs)


def test_gaussian__has_standard_normal_entries():
    anchors = GaussianAnchors(seed=0)(200, 500).double()
    number = anchors.numel()
    # Five standard errors of the mean (1 / sqrt(n)) and of the standard deviation (1 / sqrt(2 n)).
    assert abs(anchors.mean().item()) < 5 / number**0.5
    assert abs(anchors.std().item() - 1) < 5 / (2 * number) ** 0.5
    # About 68.27 % and 95.45 % within one and two standard deviations, as for no other usual distribution.
    assert (anchors.abs() < 1).double().mean().item() == pytest.approx(0.6827, abs=0.008)
    assert (anchors.abs() < 2).double().mean().item() == pytest.approx(0.9545, abs=0.004)


def test_gaussian__draws_from_its_own_generator():
    expected = torch.randn(3, 4, generator=torch.Generator().manual_seed(11))
    assert torch.equal(GaussianAnchors(seed=11)(3, 4), expected)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(
    ('arguments', 'name'),
    [
        (dict(dim=0), 'dim'),
        (dict(dim=-3), 'dim'),
        (dict(dim=2.5), 'dim'),
        (dict(seed=-1), 'seed'),
        (dict(seed=2**32), 'seed'),
    ],
)
def test_anchors__name_a_wrong_argument(kind, arguments, name):
    with pytest.raises(ValueError, match=f'`{name}`.*but got {arguments[name]}'):
        kind(**arguments)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(
    ('num_classes', 'channels', 'match'),
    [(1, 4, '`num_classes`.*but got 1'), (0, 4, '`num_classes`.*but got 0'), (2, 0, '`channels`.*but got 0')],
)
def test_anchors__name_a_wrong_size(kind, num_classes, channels, match):
    with pytest.raises(ValueError, match=match):
        kind()(num_classes, channels)


@pytest.mark.parametrize('kind', KINDS)
def test_anchors__are_built_by_name(kind):
    assert torch.equal(ANCHORS.build(dict(type=kind.__name__, seed=2))(4, 6), kind(seed=2)(4, 6))
    assert torch.equal(ANCHORS.build(dict(type=kind, seed=2))(4, 6), kind(seed=2)(4, 6))


@pytest.mark.parametrize('cfg', [dict(type='GausianAnchors'), dict(), dict(type=3)])
def test_anchors__unknown_type_lists_the_valid_ones(cfg):
    with pytest.raises(ValueError, match='anchors.type.*but got {!r}'.format(cfg.get('type'))) as error:
        ANCHORS.build(cfg)
    for kind in ['EmbeddingAnchors'] + [kind.__name__ for kind in KINDS]:
        assert kind in str(error.value)
