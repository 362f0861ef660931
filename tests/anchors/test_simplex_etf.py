import pytest

import sar_mm  # noqa: F401
from sar_mm.anchors import SimplexETFAnchors


@pytest.mark.parametrize(('num_classes', 'dim'), [(2, 1), (2, 5), (3, 2), (5, 4), (5, 9), (20, 19), (19, 64)])
@pytest.mark.parametrize('seed', [0, 7])
def test_simplex_etf__pairs_have_the_same_cosine(num_classes, dim, seed):
    rows = SimplexETFAnchors(seed=seed)(num_classes, dim).double().tolist()
    for i in range(num_classes):
        for j in range(num_classes):
            product = sum(a * b for a, b in zip(rows[i], rows[j]))
            assert product == pytest.approx(1 if i == j else -1 / (num_classes - 1), abs=1e-6)
    for column in zip(*rows):
        assert sum(column) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(('num_classes', 'dim'), [(3, 1), (20, 18)])
def test_simplex_etf__refuses_too_many_classes(num_classes, dim):
    with pytest.raises(ValueError, match=rf'`dim`.*\({num_classes - 1}\).*but got {dim}'):
        SimplexETFAnchors(dim=dim)(num_classes, 64)
