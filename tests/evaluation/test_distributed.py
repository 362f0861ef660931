import json
from pathlib import Path

import pytest
import torch
from metric_parts import compute


def test_metrics__two_processes_equal_one(tmp_path, run_python):
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(4, (25,), generator=generator)
    label[:10] = label[:10].clamp(max=2)  # one class is in one process only
    maps = torch.tensor([0, 1, 2, 255])[torch.randint(4, (2, 3, 8, 8), generator=generator)]
    data = dict(
        label=label,
        prediction=torch.randint(4, (25,), generator=generator),
        feature=torch.randn(25, 6, generator=generator),
        weight=torch.randn(4, 6, generator=generator),
        label_map=maps[0],
        predicted_map=maps[1].clamp(max=2),
    )
    torch.save(data, tmp_path / 'data.pt')
    scripts = [f'import metric_parts; metric_parts.run({str(tmp_path)!r}, {rank}, 2)' for rank in range(2)]
    first, second = (json.loads(output[-1]) for output in run_python(*scripts, paths=[Path(__file__).parent]))
    assert first == pytest.approx(compute(data, 0, 1), rel=1e-9, nan_ok=True)
    assert first == pytest.approx(second, rel=0, abs=0, nan_ok=True)
