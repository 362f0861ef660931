"""Export a trained model to ONNX, and check with onnxruntime that it gives the same output.

    python tools/model_converters/to_onnx.py CONFIG CHECKPOINT model.onnx --shape 512 1024

CONFIG and CHECKPOINT may be stock ones or have semantic anchors, which take no part in inference; of a semi-supervised
model the part that predicts is exported. The input is a batch (N, 3, H, W) of normalised images, as the model's data
preprocessor makes it; N is free. The output is logits: (N, K) of images, or (N, K, H, W) of pixels, resized to the
input as in inference on whole images.
"""

import argparse
import importlib.util
import inspect
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Sequence


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', metavar='CONFIG', help='path of the config')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='path of the checkpoint')
    parser.add_argument('out', metavar='OUT', type=Path, help='where to write the .onnx file')
    parser.add_argument('--shape', nargs=2, type=int, required=True, metavar=('H', 'W'), help='size of the input')
    parser.add_argument('--batch', type=int, default=0, metavar='N', help='a fixed batch size; default any')
    parser.add_argument('--opset', type=int, default=18, help="version of ONNX's operators; default %(default)s")
    parser.add_argument('--cfg-options', nargs='+', help='override settings of the config')
    parser.set_defaults(work_dir=None, launcher='none', local_rank=0)  # what load_config reads of a run
    args = parser.parse_args()
    if min(args.shape) < 1 or args.batch < 0:
        parser.error(f'--shape and --batch are to be positive, but are {args.shape} and {args.batch}')
    return args


if __name__ == '__main__':  # before the imports below, which take seconds
    ARGS = parse_args()

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

import sar_mm  # noqa: F401  registers the SAR modules, so that configs need no custom_imports here
from sar_mm.checks import UsageError
from sar_mm.cli.checkpoints import check_checkpoint, check_checkpoint_path
from sar_mm.cli.config import load_config
from sar_mm.cli.errors import report_errors

PACKAGES = ('onnx', 'onnxscript', 'onnxruntime')
TOLERANCE = 1e-4  # largest difference between the two outputs, as a share of the largest logit


class Logits(nn.Module):
    """What a segmentor or classifier computes of a batch, as one tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = getattr(model, 'predicting_part', model)

    def forward(self, inputs: Tensor) -> Tensor:
        if hasattr(self.model, 'encode_decode'):
            size = tuple(inputs.shape[2:])
            return self.model.encode_decode(inputs, [dict(img_shape=size, ori_shape=size, pad_shape=size)])
        return self.model(inputs)


def build_model(cfg: Config, args: argparse.Namespace) -> nn.Module:
    """Build the model of the config with the weights of the checkpoint, ready for inference on a CPU."""
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
    loaded = SimpleNamespace(model=model, cfg=cfg)
    check_checkpoint(loaded, args.checkpoint, args.config, to_resume=False)  # it loads it as well
    return Logits(model).eval().requires_grad_(False)


def export(model: nn.Module, shape: Sequence[int], batch: int, opset: int) -> bytes:
    """Return the model as ONNX for inputs (N, 3, H, W), where N is ``batch``, or free if that is 0."""
    images = torch.randn(batch or 2, 3, *shape)  # not 1 where N is free: the exporter takes sizes of 1 for fixed
    try:
        output = model(images)
    except Exception as error:  # whatever a layer says of a size that it cannot take
        raise UsageError(f'the model does not take an input of {tuple(images.shape)}: {error}') from error
    if not isinstance(output, Tensor):
        raise UsageError(
            f'only a model with one tensor of logits can be exported; this gives a {type(output).__name__}'
        )
    free = None if batch else ({0: torch.export.Dim('batch')},)
    options = dict(input_names=['input'], output_names=['logits'], opset_version=opset, dynamic_shapes=free)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            program = torch.onnx.export(model, (images,), dynamo=True, verbose=False, **options)
    except torch.onnx.OnnxExporterError as error:
        hint = '' if batch else '; a fixed batch size, --batch N, may help'
        raise UsageError(f'PyTorch cannot export the model: {error.__cause__ or error}{hint}') from error
    return program.model_proto.SerializeToString()


def largest_difference(model: nn.Module, exported: bytes, shape: Sequence[int], batch: int) -> float:
    """Return how far the exported model is from the model, as a share of the largest logit, over several batches."""
    import onnxruntime

    session = onnxruntime.InferenceSession(exported, providers=['CPUExecutionProvider'])
    largest = 0.0
    for size in [batch] if batch else [1, 2, 3]:
        images = torch.randn(size, 3, *shape)
        expected = model(images)
        try:
            found = torch.from_numpy(session.run(None, {'input': images.numpy()})[0])
        except Exception:  # a size that was taken for fixed in the graph
            return float('inf')
        if found.shape != expected.shape:
            return float('inf')
        largest = max(largest, ((found - expected).abs().max() / expected.abs().max()).item())
    return largest


def check_packages() -> None:
    """Raise a UsageError unless everything that exporting needs is installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f'exporting needs {", ".join(missing)}: run `pip install {" ".join(missing)}`')
    if 'dynamic_shapes' not in inspect.signature(torch.onnx.export).parameters:
        raise UsageError(f'exporting needs PyTorch 2.6 or newer, but this is {torch.__version__}')


def main(args: argparse.Namespace) -> None:
    with report_errors():
        check_packages()
        check_checkpoint_path(args.checkpoint)
        cfg = load_config(args)
    with report_errors(cfg):
        model = build_model(cfg, args)
        torch.manual_seed(0)
        exported = export(model, args.shape, args.batch, args.opset)
        difference = largest_difference(model, exported, args.shape, args.batch)
        if not difference <= TOLERANCE:
            hint = 'the model cannot be exported like this' if args.batch else 'fix the batch size with --batch N'
            raise UsageError(
                f'the exported model differs from the model by {difference:.1e} of the largest logit, more than '
                f'{TOLERANCE:.0e}; {hint}'
            )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(exported)
    size = ', '.join(map(str, [args.batch or 'N', 3, *args.shape]))
    print(f'{args.out} takes images ({size}); its logits differ by {difference:.1e} of the largest one at most')


if __name__ == '__main__':
    main(ARGS)
