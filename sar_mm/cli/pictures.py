"""Pictures of the predictions of a test, for ``tools/test.py --show-dir``."""

import os.path as osp
from typing import Any, List, Optional, Sequence

import mmcv
from mmengine.fileio import get
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from ..checks import UsageError


class PredictionPictures(Hook):
    """Draw the prediction of every test image into a folder with the subfolders of the images.

    The hooks of the toolboxes name a picture by its image's file name alone, which may occur in several folders. Here
    ``car/1.png`` and ``cat/1.jpg`` become ``car/1.png`` and ``cat/1.jpg.png``; images without a file are numbered. Of
    several processes, the toolboxes' visualizers draw the images of the first one.

    Args:
        out_dir: Folder for the pictures.
        options: Those of the visualizer's ``visualize_cls`` (mmpretrain) or ``add_datasample`` (mmseg).

    Raises:
        UsageError: The visualizer of the run draws no predictions.
    """

    def __init__(self, out_dir: str, **options: Any) -> None:
        self.out_dir = out_dir
        self.options = options
        self._folder = ''
        self._drawn = 0

    def before_test(self, runner: Runner) -> None:
        visualizer = type(runner.visualizer)
        if not hasattr(visualizer, 'visualize_cls') and visualizer.add_datasample is Visualizer.add_datasample:
            raise UsageError(
                f'visualizer: {visualizer.__name__} draws no predictions, set '
                "visualizer=dict(type='UniversalVisualizer') for mmpretrain, 'SegLocalVisualizer' for mmseg"
            )
        self._folder = common_folder(runner.test_dataloader.dataset)
        self._drawn = 0

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None, outputs: Optional[Sequence] = None
    ) -> None:
        for index, sample in enumerate(outputs):
            path = sample.get('img_path')
            out_file = osp.join(self.out_dir, self._name(path))
            if hasattr(runner.visualizer, 'visualize_cls'):
                image = data_batch['inputs'][index].permute(1, 2, 0).cpu().numpy().astype('uint8')
                runner.visualizer.visualize_cls(image, sample, out_file=out_file, **self.options)
            else:
                image = mmcv.imfrombytes(get(path), channel_order='rgb')
                runner.visualizer.add_datasample('test', image, sample, out_file=out_file, **self.options)
            self._drawn += 1

    def _name(self, path: Optional[str]) -> str:
        if path is None:
            return f'{self._drawn}.png'
        # Without a common folder, a number keeps file names apart.
        name = osp.relpath(path, self._folder) if self._folder else f'{self._drawn}_{osp.basename(path)}'
        return name if name.endswith('.png') else f'{name}.png'


def common_folder(dataset: Any) -> str:
    """Return the lowest folder that the images of a data set are in; nothing where it lists no files."""
    if not hasattr(dataset, 'get_data_info'):  # mmengine takes any data set of PyTorch
        return ''
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    folders: List[str] = [osp.dirname(osp.abspath(info['img_path'])) for info in infos if info.get('img_path')]
    return osp.commonpath(folders) if folders else ''
