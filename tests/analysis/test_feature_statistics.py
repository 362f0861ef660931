import math
from itertools import combinations

import numpy as np
import pytest
import torch

from sar_mm.analysis import FeatureStatistics, geometry

K, C = 5, 7


def make(count=300, offset=0.0, classes=K, seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(classes, (count,), generator=generator)
    centre = torch.randn(classes, C, generator=generator, dtype=torch.float64)
    feature = offset + centre[target] + 0.5 * torch.randn(count, C, generator=generator, dtype=torch.float64)
    return feature, target


def gather(feature, target, batch=64, **options):
    statistics = FeatureStatistics(K, C, **options)
    for start in range(0, len(feature), batch):
        statistics.update(feature[start : start + batch], target[start : start + batch])
    return statistics


def cosine(a, b):
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


def naive_geometry(feature, target, weight, anchors):
    """All of geometry() with every feature in memory, class by class and pair by pair."""
    feature, target, weight, anchors = (x.double().numpy() for x in (feature, target, weight, anchors))
    seen = [k for k in range(K) if (target == k).any()]
    rows = {k: feature[target == k] for k in seen}
    mean = {k: rows[k].mean(0) for k in seen}
    var = {k: np.mean([np.sum((f - mean[k]) ** 2) for f in rows[k]]) for k in seen}
    norm = [np.mean([np.linalg.norm(f) for f in rows[k]]) for k in seen]
    used = np.concatenate(list(rows.values()))
    within = sum(np.sum((rows[k] - mean[k]) ** 2) for k in seen) / len(used)
    between = sum(len(rows[k]) * np.sum((mean[k] - used.mean(0)) ** 2) for k in seen) / len(used)
    centre = np.mean([mean[k] for k in seen], axis=0)
    centred = {k: mean[k] - centre for k in seen}
    pairs = list(combinations(seen, 2))
    cosines = [cosine(mean[i], mean[j]) for i, j in pairs]
    cosines_centred = [cosine(centred[i], centred[j]) for i, j in pairs]
    lengths = [np.linalg.norm(centred[k]) for k in seen]
    weight = weight[seen] - weight[seen].mean(0)
    stacked = np.stack([centred[k] for k in seen])
    away = [np.linalg.norm(mean[k] - anchors[k]) for k in seen]
    return dict(
        classes_seen=len(seen),
        within_scatter=within,
        between_scatter=between,
        within_between_ratio=within / between,
        cosine_max=max(cosines),
        cosine_mean=np.mean(cosines),
        cosine_max_centred=max(cosines_centred),
        cosine_mean_centred=np.mean(cosines_centred),
        norm_mean=np.mean(norm),
        norm_cv=np.std(norm) / np.mean(norm),
        nc1_cdnv=np.mean([(var[i] + var[j]) / (2 * np.sum((mean[i] - mean[j]) ** 2)) for i, j in pairs]),
        nc2_equinorm=np.std(lengths) / np.mean(lengths),
        nc2_equiangularity=np.std(cosines_centred),
        nc2_max_angle=np.mean([abs(c + 1 / (len(seen) - 1)) for c in cosines_centred]),
        nc3_self_duality=np.linalg.norm(weight / np.linalg.norm(weight) - stacked / np.linalg.norm(stacked)),
        anchor_distance=np.mean(away),
        anchor_distance_relative=np.mean([d / np.linalg.norm(anchors[k]) for d, k in zip(away, seen)]),
    )


def reference(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(K, C, generator=generator), torch.randn(K, C, generator=generator)


@pytest.mark.parametrize('classes', [K, K - 2], ids=['all_classes', 'two_classes_never_seen'])
@pytest.mark.parametrize('batch', [1, 64, 300])
def test_geometry__equals_full_memory(classes, batch):
    feature, target = make(classes=classes)
    weight, anchors = reference()
    numbers = geometry(gather(feature, target, batch), weight, anchors)
    assert numbers == pytest.approx(naive_geometry(feature, target, weight, anchors), rel=1e-9)


@pytest.mark.parametrize('offset', [1e3, 1e6])
def test_geometry__large_offset_does_not_cancel(offset):
    feature, target = make()
    weight, anchors = reference()
    expected = geometry(gather(feature, target), weight, anchors)
    numbers = geometry(gather(feature + offset, target), weight, anchors)
    unmoved = [name for name in expected if name.startswith(('within', 'between', 'nc')) or name.endswith('centred')]
    assert len(unmoved) == 10
    # float64 holds a feature of 1e6 to about 1e-10.
    assert {n: numbers[n] for n in unmoved} == pytest.approx({n: expected[n] for n in unmoved}, rel=1e-7)


def test_geometry__scatters_add_up_to_that_of_all_features():
    feature, target = make()
    numbers = geometry(gather(feature, target))
    total = (feature - feature.mean(0)).square().sum(1).mean().item()
    assert numbers['within_scatter'] + numbers['between_scatter'] == pytest.approx(total)


def test_geometry__full_collapse_is_zero():
    etf = torch.eye(K, C, dtype=torch.float64) - torch.eye(K, C, dtype=torch.float64).mean(0)
    target = torch.arange(K).repeat(3)
    numbers = geometry(gather(3 * etf[target] + 5, target), classifier_weight=2 * etf + 1, anchors=3 * etf + 5)
    for name, value in numbers.items():
        if name.startswith(('nc', 'within', 'anchor')):
            assert value == pytest.approx(0, abs=1e-7), name
    assert numbers['cosine_max_centred'] == pytest.approx(-1 / (K - 1))


def test_geometry__without_weight_and_anchors_has_fewer_names():
    names = set(geometry(gather(*make())))
    assert names == set(geometry(gather(*make()), *reference())) - {
        'nc3_self_duality',
        'anchor_distance',
        'anchor_distance_relative',
    }


def test_geometry__leaves_out_anchors_never_set():
    feature, target = make()
    anchors = reference()[1]
    anchors[1] = 0
    distance = [(feature[target == k].mean(0) - anchors[k]).norm().item() for k in range(K) if k != 1]
    numbers = geometry(gather(feature, target), anchors=anchors)
    assert numbers['anchor_distance'] == pytest.approx(np.mean(distance))


def test_geometry__one_class_or_none_has_no_pairs():
    numbers = geometry(gather(torch.randn(4, C), torch.zeros(4)))
    assert numbers['classes_seen'] == 1 and numbers['within_scatter'] > 0
    assert all(math.isnan(numbers[name]) for name in ('cosine_max', 'nc1_cdnv', 'nc2_max_angle'))
    assert geometry(FeatureStatistics(K, C))['classes_seen'] == 0


@pytest.mark.parametrize('name', ['classifier_weight', 'anchors'])
def test_geometry__wrong_shapes(name):
    with pytest.raises(ValueError, match=rf'`{name}` to be of shape \(5, 7\), but got \(4, 7\)'):
        geometry(FeatureStatistics(K, C), **{name: torch.zeros(4, C)})


def test_feature_statistics__maps_are_rows_and_labels_without_a_class_are_left_out():
    generator = torch.Generator().manual_seed(0)
    feature = torch.randn(2, C, 6, 5, generator=generator)
    labels = torch.tensor([0, 1, 2, 3, 4, 5, 255, -1])
    target = labels[torch.randint(len(labels), (2, 6, 5), generator=generator)]
    statistics = FeatureStatistics(K, C, ignore_index=3)
    statistics.update(feature, target)
    rows, flat = feature.permute(0, 2, 3, 1).reshape(-1, C).double(), target.flatten()
    for k in range(K):
        own = rows[flat == k] if k != 3 else rows[:0]
        assert statistics.count[k] == len(own)
        if len(own):
            assert torch.allclose(statistics.mean[k], own.mean(0), atol=1e-12)
            assert statistics.scatter[k].item() == pytest.approx((own - own.mean(0)).square().sum().item())
            assert statistics.norm_sum[k].item() == pytest.approx(own.norm(dim=1).sum().item())


def test_feature_statistics__uint8_labels_do_not_wrap_around():
    statistics = FeatureStatistics(300, C, ignore_index=299)
    statistics.update(torch.ones(3, C), torch.tensor([43, 255, 0], dtype=torch.uint8))
    assert statistics.count.nonzero().flatten().tolist() == [0, 43, 255]


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_feature_statistics__sums_are_in_float64(dtype):
    feature = torch.full((20000, C), 0.1, dtype=dtype)
    statistics = gather(feature, torch.zeros(20000, dtype=torch.long), batch=20000)
    assert torch.allclose(statistics.mean[0], feature[0].double(), rtol=1e-12)
    assert statistics.scatter[0] < 1e-16


def test_feature_statistics__reduce_of_one_process_changes_nothing():
    whole = gather(*make())
    for name in ('count', 'mean', 'scatter', 'norm_sum'):
        assert torch.equal(getattr(whole.reduce(), name), getattr(whole, name)), name


@pytest.mark.parametrize(
    'feature, target, message',
    [
        ((3, C + 1), (3,), r'`feature` to be .* C = 7, but got \(3, 8\)'),
        ((3,), (3,), r'`feature`'),
        ((3, C), (2,), r'`target` to be class indices of shape \(3,\), but got \(2,\)'),
        ((2, C, 4, 4), (2, 8, 8), r'`target` to be class indices of shape \(2, 4, 4\), but got \(2, 8, 8\)'),
    ],
)
def test_feature_statistics__wrong_shapes(feature, target, message):
    with pytest.raises(ValueError, match=message):
        FeatureStatistics(K, C).update(torch.zeros(feature), torch.zeros(target))


def test_feature_statistics__wrong_arguments():
    with pytest.raises(ValueError, match='`num_classes` to be an integer of at least 1, but got 0'):
        FeatureStatistics(0, C)
