"""torch.compile and CUDA graphs."""

import copy
import shutil
import sys

import pytest
import torch
import torch.nn.functional as F
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from sar_mm.models import SemanticAnchorHead

KINDS = ['seg', 'cls']
SCOPE = dict(seg='mmseg', cls='mmpretrain')
NUM_CLASSES, CHANNELS = 4, 6
LEARNING = dict(
    momentum=0.5, gate_threshold=0.6, loss=dict(confidence_threshold=0.99)
)  # the anchors learn while features are pulled
ALL = dict(gate_per_class=True, loss=dict(class_balanced=True, confidence_threshold=0.99, separation_weight=0.5))
BFLOAT16 = dict(matmul_dtype='bfloat16', **LEARNING)
COMPILES = hasattr(torch, 'compile') and sys.platform == 'linux'
needs_compile = pytest.mark.skipif(not COMPILES, reason='needs torch.compile')
needs_compiler = pytest.mark.skipif(
    not COMPILES or not (shutil.which('g++') or shutil.which('clang++')), reason='needs a C++ compiler'
)


@pytest.fixture(autouse=True)
def fresh_dynamo():
    if COMPILES:
        torch._dynamo.reset()
    yield
    if COMPILES:
        torch._dynamo.reset()


# ----- The anchor head


def make_inputs(kind, seed, device='cpu'):
    """A feature and its target, hard or soft."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2, CHANNELS, 3, 4) if kind == 'segmentation' else (8, CHANNELS)
    feature = torch.randn(shape, generator=generator)
    if kind == 'mixup':
        target = torch.rand(8, NUM_CLASSES, generator=generator).softmax(dim=1)
    else:
        target = torch.randint(NUM_CLASSES + 1, shape[:1] + shape[2:], generator=generator)
        target[target == NUM_CLASSES] = 255
    return feature.to(device), target.to(device)


def opening_weight(head):
    """A classifier's weight with which every anchor gets its class with about the same probability."""
    return (2.5 * torch.linalg.pinv(head.projector(head.anchors).detach()).t()).contiguous()


def anchor_step(head, feature, target, weight):
    """One step of the anchor head, next to a task loss."""
    task = F.linear(feature.movedim(1, -1), weight).square().mean()
    losses = head.loss(feature, target, lambda anchors: F.linear(anchors, weight))
    return dict(losses, loss_task=task)


def total(losses):
    return sum(value for name, value in losses.items() if 'loss' in name)


def gradients(head, feature, weight):
    found = dict(head.named_parameters(), feature=feature, weight=weight)
    return {name: value.grad.clone() for name, value in found.items()}


def compare_compiled(kind, options, backend):
    """Closed, open, open and closed gates: one graph serves them all."""
    eager, compiled = (SemanticAnchorHead(NUM_CLASSES, CHANNELS, seed=3, **options) for _ in range(2))
    opening = opening_weight(eager)
    fast = torch.compile(anchor_step, fullgraph=True, backend=backend)
    gates = []
    for step, factor in enumerate([0.0, 1.0, 1.0, -1.0]):
        found = []
        for head, function in ((eager, anchor_step), (compiled, fast)):
            feature, target = make_inputs(kind, seed=step)
            feature.requires_grad_()
            weight = (factor * opening).requires_grad_()
            head.zero_grad()
            losses = function(head, feature, target, weight)
            total(losses).backward()
            found.append((losses, gradients(head, feature, weight), head.state_dict()))
        for expected, values in zip(*found):
            torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-6)
        gates.append(losses['anchor_gate'].item())
    assert gates == [0, 1, 1, 0] and losses['loss_anchor'] > 0
    assert compiled.initialized.all()


@needs_compile
@pytest.mark.parametrize(
    ('kind', 'options'),
    [('segmentation', ALL), ('classification', LEARNING), ('mixup', ALL), ('classification', BFLOAT16)],
    ids=['seg', 'cls', 'mixup', 'bfloat16'],
)
def test_anchor_head__compiles_to_one_graph(kind, options):
    compare_compiled(kind, options, 'aot_eager')


@pytest.mark.gpu
@pytest.mark.parametrize('options', [LEARNING, ALL, BFLOAT16], ids=['learning', 'all_options', 'bfloat16'])
@pytest.mark.parametrize('kind', ['segmentation', 'classification', 'mixup'])
def test_anchor_head__is_captured_in_a_cuda_graph(kind, options):
    eager, captured = (SemanticAnchorHead(NUM_CLASSES, CHANNELS, **options).cuda() for _ in range(2))
    opening = opening_weight(eager)
    start = copy.deepcopy(captured.state_dict())
    # A graph reads its inputs where they lay when it was captured.
    feature, target = make_inputs(kind, seed=0, device='cuda')
    feature.requires_grad_()
    weight = opening.clone().requires_grad_()

    def step():
        losses = anchor_step(captured, feature, target, weight)
        total(losses).backward()
        return losses

    def forget_gradients():
        for each in (*captured.parameters(), feature, weight):
            each.grad = None  # the graph makes them in its own memory, and overwrites them in every replay

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
            forget_gradients()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        losses = step()
    captured.load_state_dict(start)  # in place, what the warm-up has moved
    gates = []
    for index, factor in enumerate([0.0, 1.0, 1.0, -1.0]):
        new_feature, new_target = make_inputs(kind, seed=index, device='cuda')
        with torch.no_grad():
            feature.copy_(new_feature)
            target.copy_(new_target)
            weight.copy_(factor * opening)
        graph.replay()
        new_feature.requires_grad_()
        new_weight = (factor * opening).requires_grad_()
        eager.zero_grad(set_to_none=True)
        expected = anchor_step(eager, new_feature, new_target, new_weight)
        total(expected).backward()
        for one, other in (
            (losses, expected),
            (gradients(captured, feature, weight), gradients(eager, new_feature, new_weight)),
            (captured.state_dict(), eager.state_dict()),
        ):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        gates.append(losses['anchor_gate'].item())
    assert gates == [0, 1, 1, 0]


# ----- Whole models


def opened_model(kind, make_model, sar_heads, open_gate):
    model = make_model(kind, sar=True, anchor_head=LEARNING).train()
    for head in sar_heads(model):
        open_gate(head)
        for module in head.modules():
            if isinstance(module, (torch.nn.Dropout, torch.nn.Dropout2d)):
                module.p = 0.0  # its random numbers need not be those of the eager model
    return model


@needs_compile
@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_model__forward_compiles_to_one_graph(kind, make_model, make_batch, sar_heads, open_gate):
    eager, compiled = (opened_model(kind, make_model, sar_heads, open_gate) for _ in range(2))
    fast = torch.compile(compiled.forward, fullgraph=True, backend='aot_eager')
    for step in range(2):
        found = []
        for model, forward in ((eager, eager.forward), (compiled, fast)):
            # mmseg's accuracy, in the stock model too, picks the pixels that are not ignored.
            with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
                losses = forward(*make_batch(kind, step), mode='loss')
            model.zero_grad()
            model.parse_losses(losses)[0].backward()
            grads = {name: each.grad for name, each in model.named_parameters()}
            found.append((losses, grads, model.state_dict()))
        for expected, values in zip(*found):
            torch.testing.assert_close(values, expected, rtol=1e-3, atol=1e-5)
    assert all(value == 1 for name, value in losses.items() if 'anchor_gate' in name)
    assert all(value > 0 for name, value in losses.items() if 'loss_pull' in name)


@needs_compile
@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_model__graph_breaks_for_no_other_reason_than_the_stock_model(kind, make_model, make_batch):
    breaks = torch._dynamo.utils.counters['graph_break']
    found = []
    for sar in (False, True):
        breaks.clear()
        torch.compile(make_model(kind, sar=sar).train().forward, backend='eager')(*make_batch(kind), mode='loss')
        found.append({reason.strip().splitlines()[0] for reason in breaks})
        torch._dynamo.reset()
    assert found[0] == found[1]
    assert bool(found[0]) == (kind == 'seg')  # its accuracy


class Record(Hook):
    """Keeps what every step logs, and the semantic anchors after it."""

    def __init__(self, heads):
        self.heads = heads
        self.log = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        anchors = {f'anchors_{i}': head.anchor_head.semantic_anchors.clone() for i, head in enumerate(self.heads)}
        self.log.append({**{name: torch.as_tensor(value).detach() for name, value in outputs.items()}, **anchors})


@pytest.fixture
def train(tmp_path, make_model, make_batch, sar_heads, open_gate):
    """Train for three steps with mmengine's runner and its option ``compile``; return what was recorded."""

    def run(kind, options):
        model = opened_model(kind, make_model, sar_heads, open_gate)
        batches = [dict(zip(('inputs', 'data_samples'), make_batch(kind, step))) for step in range(3)]
        record = Record(sar_heads(model))
        runner = Runner(
            model=model,
            work_dir=str(tmp_path),
            train_dataloader=DataLoader(batches, collate_fn=lambda batches: batches[0]),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
            train_cfg=dict(by_epoch=False, max_iters=3),
            default_hooks=dict(checkpoint=None, logger=None),
            custom_hooks=[record],
            default_scope=SCOPE[kind],
            experiment_name=f'{kind}_{len(list(tmp_path.iterdir()))}',
            randomness=dict(seed=0),
            cfg=dict(compile=options),
        )
        runner.train()
        return record.log

    return run


def check(found, expected):
    assert len(found) == len(expected) == 3
    for values, eager in zip(found, expected):
        assert all(value.isfinite().all() for value in values.values())
        assert all(value == 1 for name, value in values.items() if 'anchor_gate' in name)
        torch.testing.assert_close(values, eager, rtol=1e-3, atol=1e-4)


@needs_compile
@pytest.mark.slow
@pytest.mark.parametrize('kind', ['seg', pytest.param('cls', marks=pytest.mark.ci)])
def test_runner__compiled_training_step(kind, train):
    graphs = torch._dynamo.utils.counters['stats']
    graphs.clear()
    found = train(kind, dict(backend='aot_eager'))
    assert graphs['unique_graphs'] > 0
    check(found, train(kind, False))


# ----- The default backend


@pytest.fixture
def inductor(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', str(tmp_path / 'inductor'))
    with torch._inductor.config.patch(compile_threads=1):
        yield 'inductor'


@needs_compiler
@pytest.mark.ci
@pytest.mark.slow
def test_anchor_head__compiles_with_inductor(inductor):
    compare_compiled('segmentation', LEARNING, inductor)


@needs_compiler
@pytest.mark.slow
def test_runner__compiled_training_step_with_inductor(inductor, train):
    check(train('cls', dict(backend=inductor)), train('cls', False))
