"""Collect the checkpoints, logs and hashes to publish: python docs/release.py

Of every training to the end with seed 0 (docs/experiments.py) whose checkpoint is in work_dirs/, release/ gets the
stock model's weights in half precision, with the first digits of their SHA-256 in the name as torch.hub has it, and the
log as JSON lines. Each is tested with the stock config; the accuracy goes into the metafile.yml of the configs.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, Optional

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tools' / 'benchmarks'))

import torch  # noqa: E402
import yaml  # noqa: E402
from experiments import EXPERIMENTS, ROOT  # noqa: E402
from results import results_of, work_dir_of  # noqa: E402
from train_configs import Run, is_there, log_files  # noqa: E402

from sar_mm import allow_bases  # noqa: E402

RELEASE = ROOT / 'release'
KEPT = ('dataset_meta', 'epoch', 'iter', 'mmengine_version', 'seed')
PUBLISHED = ('full-length', 'cifar10')
COLLECTIONS = {
    'fashion_mnist': dict(name='SAR_on_Fashion-MNIST-LT', architecture='ResNet-8', data='Fashion-MNIST-LT'),
    'cifar10': dict(name='SAR_on_CIFAR-10-LT', architecture='ResNet-32', data='CIFAR-10-LT'),
}
TITLE = 'Beyond Prototypes: Semantic Anchor Regularization for Better Representation Learning'


def tool(*command: object) -> None:
    subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def publish(run: Run, work_dir: Path, file: Path) -> Optional[Path]:
    """Write the released checkpoint and log of a training; return None where it or its result is not there."""
    last = work_dir / 'last_checkpoint'
    if run.seed != 0 or not last.is_file() or not is_there(file, run):
        return None
    name, new = run.config.stem, RELEASE / 'new.pth'
    tool('tools/model_converters/to_stock.py', last.read_text().strip(), new, '--half')
    saved = torch.load(new, weights_only=True)
    # Not the config, which has the folders of the machine.
    saved['meta'] = {key: saved['meta'][key] for key in KEPT if key in saved['meta']}
    torch.save(saved, new)
    sha = hashlib.sha256(new.read_bytes()).hexdigest()
    for old in RELEASE.glob(f'{name}-*.pth'):
        old.unlink()
    checkpoint = new.rename(RELEASE / f'{name}-{sha[:8]}.pth')
    lines = [line for file in log_files(work_dir) for line in file.read_text().splitlines()]
    (RELEASE / f'{name}.log.json').write_text('\n'.join(lines) + '\n')
    return checkpoint


def test(run: Run, checkpoint: Path, work_dir: Path) -> float:
    """Return the test accuracy of a released checkpoint with the stock config."""
    stock = run.config.with_name(run.config.name.replace('sar_', '', 1))
    out = work_dir / 'test_release'
    tool('tools/test.py', stock, checkpoint, '--work-dir', out)
    newest = max(out.glob('*/*.json'), key=lambda path: path.stat().st_mtime)
    return json.loads(newest.read_text())['accuracy']


def model_of(run: Run, checkpoint: Path, accuracy: float) -> dict:
    collection = COLLECTIONS[run.config.parent.name]
    return {
        'Name': run.config.stem,
        'In Collection': collection['name'],
        'Config': str(run.config.relative_to(ROOT)),
        'Metadata': {'Training Data': collection['data'], 'Batch Size': 128},
        'Results': [
            {
                'Task': 'Image Classification',
                'Dataset': collection['data'],
                'Metrics': {'Top 1 Accuracy': round(accuracy, 2)},
            }
        ],
        'Weights': str(checkpoint.relative_to(ROOT)),
        'Training Log': f'release/{run.config.stem}.log.json',
    }


def write_metafile(folder: Path, models: List[dict]) -> None:
    """Write the metafile of a folder of configs; models that are not among these keep what it said of them."""
    file = folder / 'metafile.yml'
    known = yaml.safe_load(file.read_text())['Models'] if file.is_file() else []
    by_name: Dict[str, dict] = {model['Name']: model for model in [*known, *models]}
    collection = COLLECTIONS[folder.name]
    head = {
        'Name': collection['name'],
        'Metadata': {
            'Training Techniques': ['Semantic Anchor Regularization'],
            'Architecture': [collection['architecture']],
        },
        'Paper': {'Title': TITLE, 'URL': 'https://arxiv.org/abs/2312.11872'},
        'README': 'README.md',
    }
    said = {'Collections': [head], 'Models': [by_name[name] for name in sorted(by_name)]}
    file.write_text(yaml.safe_dump(said, sort_keys=False, allow_unicode=True))


def main() -> None:
    allow_bases()
    RELEASE.mkdir(exist_ok=True)
    models: Dict[Path, List[dict]] = {}
    for name in PUBLISHED:
        for run in EXPERIMENTS[name].runs():
            work_dir = work_dir_of(EXPERIMENTS[name]) / run.name / f'seed{run.seed}'
            checkpoint = publish(run, work_dir, results_of(EXPERIMENTS[name]))
            if checkpoint is not None:
                accuracy = test(run, checkpoint, work_dir)
                print(f'{checkpoint.name}: {accuracy:.2f} %, {checkpoint.stat().st_size / 1e6:.2f} MB')
                models.setdefault(run.config.parent, []).append(model_of(run, checkpoint, accuracy))
    for folder, found in models.items():
        write_metafile(folder, found)
    sums = [f'{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}' for file in sorted(RELEASE.glob('*.pth'))]
    (RELEASE / 'SHA256SUMS').write_text('\n'.join(sums) + '\n')


if __name__ == '__main__':
    main()
