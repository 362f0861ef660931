import pytest
import torch

import sar_mm  # noqa: F401
from sar_mm.ops import pull, pull_loss, pull_triton

pytest.importorskip('triton')

COMPARE = """
import os
os.environ['TRITON_INTERPRET'] = '1'  # the kernels, run by Triton's interpreter on the CPU
import torch
from sar_mm.ops import pull_blocked, pull_triton

torch.manual_seed(0)
for shape in ((70, 37), (3, 40, 9), (2, 37, 9, 13), (0, 37, 9, 13), (2, 37, 9, 0)):
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for layout in ('channels_first', 'channels_last'):
            feature = torch.randn(shape).to(dtype)
            if layout == 'channels_last':
                feature = feature.movedim(1, -1).contiguous().movedim(-1, 1)
            elif len(shape) == 2:
                feature = feature.t().contiguous().t()
            places = (shape[0], *shape[2:])
            rest = torch.randint(6, places), torch.rand(places), torch.randn(6, shape[1])
            rest[1][:1] = 0  # whose squares may be infinite without making a NaN
            feature[:1] *= 1e25 if dtype == torch.float32 else 1
            value, expected = (module.pull_value(feature, *rest) for module in (pull_triton, pull_blocked))
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=0)
            scale = torch.tensor(0.3)
            found, expected = (module.pull_gradient(feature, *rest, scale) for module in (pull_triton, pull_blocked))
            assert found.stride() == expected.stride()
            torch.testing.assert_close(found, expected)
print('done')
"""


@pytest.mark.slow
@pytest.mark.ci
def test_pull_triton__interpreted_equals_blocked(run_python):
    assert run_python(COMPARE)[0][-1] == 'done'


@pytest.mark.parametrize(
    ('dtype', 'channels_last', 'arch'),
    [('fp32', False, 80), ('fp32', True, 90), ('bf16', True, 80), ('fp16', False, 90)],
)
def test_pull_triton__compiles_for_a_gpu(dtype, channels_last, arch):
    """To PTX, for an A100 and an H100, without either."""
    compiler = pytest.importorskip('triton.compiler')
    backends = pytest.importorskip('triton.backends.compiler')
    for kernel in (pull_triton._value, pull_triton._gradient):
        one = 'c' if channels_last else 'p'  # Triton compiles a stride of 1 as a constant
        constants = dict(POSITIONS=pull_triton.POSITIONS, CHANNELS=pull_triton.CHANNELS)
        constants.update({f'{name}_{one}': 1 for name in ('feature', 'out')})
        constants['anchors_c' if channels_last else 'anchors_k'] = 1
        types = dict(feature=f'*{dtype}', out=f'*{dtype}', target='*i64')
        types.update(dict.fromkeys(('weight', 'anchors', 'sums', 'scale'), '*fp32'))
        names = kernel.arg_names
        source = compiler.ASTSource(
            fn=kernel,
            signature={name: 'constexpr' if name in constants else types.get(name, 'i32') for name in names},
            constexprs={(names.index(name),): value for name, value in constants.items() if name in names},
        )
        compiled = compiler.compile(source, target=backends.GPUTarget('cuda', arch, 32))
        assert 'st.global' in compiled.asm['ptx']


def test_pull_triton__takes_labels_on_a_gpu_only():
    feature, labels = torch.zeros(2, 3), torch.zeros(2).long()
    assert not pull_triton.takes(feature, labels)
    if torch.cuda.is_available():
        assert pull_triton.takes(feature.cuda(), labels.cuda())
        assert not pull_triton.takes(feature.cuda().double(), labels.cuda())
        assert not pull_triton.takes(feature.cuda(), torch.zeros(2, 4).cuda())


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('shape', [(300, 100), (2, 70, 33, 65), (1, 1, 1, 1)])
def test_pull_triton__equals_the_cpu(shape, channels_last, dtype, monkeypatch):
    monkeypatch.setattr(pull, '_failed_kernels', [])
    feature = torch.randn(shape).to(dtype)
    if channels_last:
        feature = feature.movedim(1, -1).contiguous().movedim(-1, 1)
    target, anchors = torch.randint(-1, 20, (shape[0], *shape[2:])), torch.randn(19, shape[1])

    def step(device):
        leaf = feature.to(device).requires_grad_()
        loss = pull_loss(leaf, target.to(device), anchors.to(device))
        (loss + leaf.float().sin().sum()).backward()
        return loss.detach().cpu(), leaf.grad.cpu()

    expected = step('cpu')
    torch.testing.assert_close(step('cuda'), expected)
    assert all(torch.equal(*each) for each in zip(step('cuda'), step('cuda')))
    assert pull._failed_kernels == []  # else these were blocks, too
    monkeypatch.setenv('SAR_MM_PULL', 'blocked')
    torch.testing.assert_close(step('cuda'), expected)
