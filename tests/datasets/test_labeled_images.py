import numpy as np
import pytest
from in_memory import shuffled

from sar_mm.datasets import draw_covering, draw_fraction, draw_per_class, read_indices


def test_draw_per_class__counts_and_order():
    labels = np.array(shuffled([30, 20, 10]))
    drawn = draw_per_class(labels, 7, 3)
    assert np.bincount(labels[drawn]).tolist() == [7, 7, 7]
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    assert np.bincount(labels[draw_per_class(labels, [3, 0, 2], 3)]).tolist() == [3, 0, 2]


def test_draw_per_class__more_images_are_the_same_and_others():
    labels = np.array(shuffled([30, 20, 10]))
    few, many = (set(draw_per_class(labels, number, 3, seed=4).tolist()) for number in (2, 9))
    assert few < many
    assert few != set(draw_per_class(labels, 2, 3, seed=5).tolist())


def test_draw_per_class__a_class_does_not_depend_on_the_others():
    labels = np.array(shuffled([30, 20, 10]))
    other = np.where(labels == 1, 1, 2 - labels)
    first, second = (draw_per_class(x, 5, 3) for x in (labels, other))
    assert first[labels[first] == 1].tolist() == second[other[second] == 1].tolist()


@pytest.mark.parametrize(('classes', 'name'), [(None, 'class 1'), (['ant', 'bee'], r'class 1 \(bee\)')])
def test_draw_per_class__too_few_images(classes, name):
    with pytest.raises(ValueError, match=f'{name} has 2 images, but 3 are to be drawn'):
        draw_per_class(np.array([0, 0, 0, 1, 1]), 3, 2, classes=classes)


def test_draw_fraction__a_class_without_images_has_none():
    assert draw_fraction(np.array([0, 0, 2, 2]), 0.5, 3).size == 2


def test_draw_fraction__share_of_each_class_and_at_least_one():
    labels = np.array(shuffled([100, 34, 3]))
    assert np.bincount(labels[draw_fraction(labels, 0.1, 3)]).tolist() == [10, 3, 1]
    assert len(draw_fraction(labels, 1, 3)) == 137


@pytest.mark.parametrize('seed', range(5))
def test_draw_covering__every_class_is_there(seed):
    rng = np.random.default_rng(seed)
    images = [set(np.flatnonzero(rng.random(8) < 0.1 * (1 + np.arange(8) % 4)).tolist()) for _ in range(60)]
    images[17].add(8)  # a class in one image only
    drawn = draw_covering(images, 9, seed).tolist()
    assert set().union(*(images[index] for index in drawn)) == set().union(*images)
    assert len(drawn) == 9 and drawn == sorted(set(drawn))
    assert drawn == draw_covering(images, 9, seed).tolist() != draw_covering(images, 9, seed + 1).tolist()


def test_draw_covering__images_are_random_otherwise():
    images = [{0}] * 30
    counts = np.bincount(np.concatenate([draw_covering(images, 10, seed) for seed in range(900)]), minlength=30)
    assert (np.abs(counts - 300) < 5 * np.sqrt(300 * 2 / 3)).all()


def test_draw_covering__too_few_images():
    with pytest.raises(ValueError, match='2 images are too few to show all 3 classes with seed 0, which takes 3'):
        draw_covering([{0}, {1}, {2}, set()], 2)
    with pytest.raises(ValueError, match='there are 4 images, but 5 are to be drawn'):
        draw_covering([{0}, {1}, {2}, set()], 5)
    assert draw_covering([{0}, {1}, {2}, set()], 3).tolist() == [0, 1, 2]


@pytest.mark.parametrize('text', ['3\n0\n12\n', '3\r\n0\r\n12', '{"distribution": [1], "label": [3, 0, 12]}'])
def test_read_indices__forms(tmp_path, text):
    path = tmp_path / 'list'
    for encoding in ('utf-8', 'utf-8-sig'):  # editors on Windows write a byte order mark
        path.write_text(text, encoding=encoding)
        assert read_indices(str(path)) == [3, 0, 12]


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'is not a text file with one index per line'),
        ('a.png\n', "is not a text file with one index per line.*'a.png'"),
        ('-1\n', 'is not a text file'),
        ('{"labels": [1]}', "KeyError: 'label'"),
        ('{"label": [1.5]}', 'is not a text file'),
        ('{"label": 1}', 'is not a text file'),
        ('{"label": [1]', 'JSONDecodeError'),
        ('1\n2\n1\n', 'lists 1 indices twice, 1 for one'),
    ],
)
def test_read_indices__errors(tmp_path, text, message):
    path = tmp_path / 'list'
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_indices(str(path))
