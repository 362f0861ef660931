from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.visualization import Visualizer
from PIL import Image

from sar_mm.checks import UsageError
from sar_mm.cli.pictures import PredictionPictures, common_folder


class Images(list):
    """A data set of paths."""

    def get_data_info(self, index):
        return {} if self[index] is None else dict(img_path=self[index])


class ClassVisualizer:
    def __init__(self):
        self.drawn = {}

    def visualize_cls(self, image, sample, out_file, **options):
        self.drawn[out_file] = (image, sample['number'], options)


class SegVisualizer(Visualizer):
    def __init__(self, name='visualizer'):
        self.drawn = {}

    def add_datasample(self, name, image, data_sample, out_file):
        self.drawn[out_file] = image


def test(paths, visualizer, dataset=Images, batch_size=2, **options):
    """Draw as a test of these images does, in batches."""
    runner = SimpleNamespace(visualizer=visualizer, test_dataloader=SimpleNamespace(dataset=dataset(paths)))
    hook = PredictionPictures('out', **options)
    hook.before_test(runner)
    for start in range(0, len(paths), batch_size):
        samples = [dict(img_path=path) if path else {} for path in paths[start : start + batch_size]]
        samples = [dict(sample, number=start + index) for index, sample in enumerate(samples)]
        inputs = [torch.full((3, 4, 5), start + index, dtype=torch.uint8) for index in range(len(samples))]
        hook.after_test_iter(runner, start // batch_size, dict(inputs=inputs), samples)
    return visualizer.drawn


test.__test__ = False


def test_prediction_pictures__every_image_has_its_own():
    paths = ['data/car/1.png', 'data/cat/1.png', 'data/cat/1.jpg', 'data/cat/far/2.png', 'data/2.png']
    drawn = test(paths, ClassVisualizer(), draw_gt=False)
    assert list(drawn) == ['out/car/1.png', 'out/cat/1.png', 'out/cat/1.jpg.png', 'out/cat/far/2.png', 'out/2.png']
    for number, (image, of_sample, options) in enumerate(drawn.values()):
        assert image.shape == (4, 5, 3) and image.dtype == np.uint8 and (image == number).all()
        assert of_sample == number and options == dict(draw_gt=False)


def test_prediction_pictures__images_in_memory_are_numbered():
    assert list(test([None] * 3, ClassVisualizer())) == ['out/0.png', 'out/1.png', 'out/2.png']


def test_prediction_pictures__data_sets_that_list_no_images():
    drawn = test(['data/car/1.png', 'data/cat/1.png'], ClassVisualizer(), list)
    assert list(drawn) == ['out/0_1.png', 'out/1_1.png']


def test_prediction_pictures__segmentation_draws_on_the_image_file(tmp_path):
    paths = [tmp_path / folder / 'x.png' for folder in ('aachen', 'bonn')]
    for path, color in zip(paths, ([10, 0, 0], [0, 0, 20])):
        path.parent.mkdir()
        Image.fromarray(np.full((2, 3, 3), color, dtype=np.uint8)).save(path)
    drawn = test(list(map(str, paths)), SegVisualizer())
    assert {name: image[0, 0].tolist() for name, image in drawn.items()} == {
        'out/aachen/x.png': [10, 0, 0],
        'out/bonn/x.png': [0, 0, 20],
    }


def test_prediction_pictures__needs_a_visualizer_that_draws():
    with pytest.raises(UsageError, match=r"Visualizer draws no predictions, set visualizer=dict\(type='UniversalVisua"):
        test([None], Visualizer())


def test_common_folder():
    assert common_folder(Images(['/d/a/1.png'])) == '/d/a'
    assert common_folder(Images(['/d/a/1.png', '/d/ab/1.png', None])) == '/d'
    assert common_folder(Images([None])) == ''
