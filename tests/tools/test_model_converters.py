"""Converters of checkpoints, from the command line to the file."""

import pickle
import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import ExponentialMovingAverage
from mmengine.runner import CheckpointLoader
from torch import nn

from sar_mm.engine.cli import check_checkpoint

TOOLS = Path(__file__).parents[2] / 'tools' / 'model_converters'
NEW_TORCH = hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint')


@pytest.fixture
def convert(monkeypatch, capsys):
    """Run a converter with a command line; return what it prints."""

    def run(tool, *arguments, code=0):
        monkeypatch.setattr(sys, 'argv', [f'{tool}.py', *map(str, arguments)])
        try:
            runpy.run_path(str(TOOLS / f'{tool}.py'), run_name='__main__')
            found = 0
        except SystemExit as error:
            found = error.code
        output = ''.join(capsys.readouterr())
        assert found == code, output
        return output

    return run


def training_checkpoint(model):
    """What mmengine's runner saves: logs are pickled objects, which PyTorch refuses to load as weights."""
    log = HistoryBuffer()
    log.update(1.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return dict(
        meta=dict(epoch=3, iter=30, dataset_meta=dict(classes=('a', 'b')), logs=[log]),
        state_dict=model.state_dict(),
        message_hub=dict(log_scalars={'train/loss': log}, runtime_info={}),
        optimizer=optimizer.state_dict(),
        param_schedulers=[],
    )


@pytest.fixture
def saved(tmp_path, make_model):
    """Save the training checkpoint of a tiny SAR model."""

    def save(kind):
        model = make_model(kind, sar=True)
        torch.save(training_checkpoint(model), tmp_path / 'trained.pth')
        return model, tmp_path / 'trained.pth', tmp_path / 'sub' / 'out.pth'

    return save


TRUST = [] if NEW_TORCH else ['--trust']


@pytest.mark.parametrize('kind', ['cls', 'vit', 'seg', 'cascade'])
def test_to_stock__result_loads_strictly_into_the_stock_model(kind, convert, saved, make_model):
    model, source, out = saved(kind)
    printed = convert('to_stock', source, out, *TRUST)
    number = sum('anchor_head' in name for name in model.state_dict())
    assert f'{number} tensors of semantic anchors dropped' in printed

    checkpoint = torch.load(out, weights_only=True)
    assert checkpoint.keys() == {'meta', 'state_dict'}
    if NEW_TORCH:
        assert checkpoint['meta'] == dict(epoch=3, iter=30, dataset_meta=dict(classes=('a', 'b')))
    stock = make_model(kind, sar=False)
    stock.load_state_dict(checkpoint['state_dict'], strict=True)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in stock.state_dict().items())


class Semi(nn.Module):
    """A student, a teacher as mmengine averages it, and state of the method's own."""

    def __init__(self, student, has_teacher=True):
        super().__init__()
        self.student = student
        if has_teacher:
            self.teacher = ExponentialMovingAverage(student)
            with torch.no_grad():
                for parameter in self.teacher.module.parameters():
                    parameter.add_(1)
        self.register_buffer('threshold', torch.full((5,), 0.95))


@pytest.mark.parametrize('kind', ['cls', 'seg'])
@pytest.mark.parametrize('sar', [False, True], ids=['stock', 'sar'])
@pytest.mark.parametrize(('options', 'part'), [([], 'teacher'), (['--part', 'student'], 'student')])
def test_to_stock__takes_a_part_of_a_semi_supervised_model(kind, sar, options, part, tmp_path, convert, make_model):
    model = Semi(make_model(kind, sar))
    source, out = tmp_path / 'trained.pth', tmp_path / 'out.pth'
    torch.save(training_checkpoint(model), source)
    expected = dict(student=model.student, teacher=model.teacher.module)[part].state_dict()
    others = len(model.state_dict()) - len(expected)

    printed = convert('to_stock', source, out, *options, '--keep-anchors', *TRUST)
    assert f'{len(expected)} tensors of the {part} taken, {others} others dropped' in printed
    assert '0 tensors of semantic anchors dropped' in printed
    kept = torch.load(out, weights_only=True)['state_dict']
    make_model(kind, sar).load_state_dict(kept, strict=True)
    assert all(torch.equal(value, expected[name]) for name, value in kept.items())

    convert('to_stock', source, out, *options, *TRUST)
    kept = torch.load(out, weights_only=True)['state_dict']
    make_model(kind, sar=False).load_state_dict(kept, strict=True)
    assert all(torch.equal(value, expected[name]) for name, value in kept.items())


def test_to_stock__a_semi_supervised_model_without_a_teacher(tmp_path, convert, make_model):
    model = make_model('cls', sar=False)
    source, out = tmp_path / 'trained.pth', tmp_path / 'out.pth'
    torch.save({f'student.{name}': value for name, value in model.state_dict().items()}, source)
    for options in ([], ['--part', 'student'], ['--keep-anchors']):
        convert('to_stock', source, out, *options)
        make_model('cls', sar=False).load_state_dict(torch.load(out, weights_only=True)['state_dict'], strict=True)
        out.unlink()
    message = 'there is no teacher in the checkpoint: no name in it begins with `teacher.module.`; use --part student'
    assert message in convert('to_stock', source, out, '--part', 'teacher', code=2)
    assert not out.exists()


@pytest.mark.parametrize('part', ['student', 'teacher'])
def test_to_stock__part_of_a_model_that_is_not_semi_supervised(part, convert, saved):
    _, source, out = saved('cls')
    printed = convert('to_stock', source, out, '--part', part, *TRUST, code=2)
    assert f'--part {part} is for the checkpoints of semi-supervised models' in printed
    assert 'nothing to drop from the checkpoint: anchors are to be kept' in convert(
        'to_stock', source, out, '--keep-anchors', *TRUST, code=2
    )
    assert not out.exists()


@pytest.mark.parametrize(('kind', 'layer'), [('cls', 'head.fc'), ('seg', 'decode_head.conv_seg')])
@pytest.mark.parametrize('tau', [0.5, 1.0])
def test_tau_normalize__rows_are_divided_by_a_power_of_their_norm(kind, layer, tau, convert, saved, make_model):
    model, source, out = saved(kind)
    weights = model.state_dict()
    with torch.no_grad():
        weights[f'{layer}.weight'].mul_(torch.arange(5.0).reshape(5, *[1] * (weights[f'{layer}.weight'].dim() - 1)))
        weights[f'{layer}.bias'].fill_(3)
    torch.save(training_checkpoint(model), source)
    convert('tau_normalize', source, out, '--tau', tau, '--layer', layer, *TRUST)

    found = torch.load(out, weights_only=True)['state_dict']
    for before, after in zip(weights[f'{layer}.weight'].flatten(1).tolist(), found[f'{layer}.weight'].flatten(1)):
        norm = sum(value * value for value in before) ** 0.5
        expected = [value / norm**tau if norm else 0.0 for value in before]
        assert after.tolist() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(found[f'{layer}.bias'], torch.zeros(5))
    assert found.keys() == weights.keys()
    changed = {name for name in weights if not torch.equal(weights[name], found[name])}
    assert changed == {f'{layer}.weight', f'{layer}.bias'}
    # As tools/test.py does before it tests.
    for sar in (False, True):
        check_checkpoint(SimpleNamespace(model=make_model(kind, sar=sar)), str(out), 'config', to_resume=False)


def test_tau_normalize__zero_changes_nothing(convert, saved):
    model, source, out = saved('cls')
    convert('tau_normalize', source, out, '--tau', 0, *TRUST)
    found = torch.load(out, weights_only=True)['state_dict']
    assert all(torch.equal(value, found[name]) for name, value in model.state_dict().items())


@pytest.mark.skipif(not NEW_TORCH, reason='needs PyTorch 2.6')
def test_converters__run_nothing_that_is_pickled(tmp_path, convert, saved):
    class Harmful:
        def __reduce__(self):
            return eval, (f'open({str(tmp_path / "ran")!r}, "w").close()',)

    model, source, out = saved('cls')
    torch.save(dict(training_checkpoint(model), message_hub=Harmful()), source)
    convert('to_stock', source, out)
    assert out.is_file() and not (tmp_path / 'ran').exists()
    convert('to_stock', source, out, '--trust')
    assert (tmp_path / 'ran').exists()


def test_converters__take_a_bare_state_dict(tmp_path, convert):
    source, out = tmp_path / 'weights.pth', tmp_path / 'out.pth'
    torch.save({'fc.weight': torch.tensor([[3.0, 4.0], [0.0, 0.5]])}, source)
    convert('tau_normalize', source, out, '--layer', 'fc')
    checkpoint = CheckpointLoader.load_checkpoint(str(out), map_location='cpu')
    assert checkpoint['meta'] == {}
    torch.testing.assert_close(checkpoint['state_dict']['fc.weight'], torch.tensor([[0.6, 0.8], [0.0, 1.0]]))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--layer', 'head.fcc'], r"`layer` to be .* one of \['head.fc', 'head.other'\], but got 'head.fcc'"),
        (['--layer', 'backbone.fc'], r'`layer`'),
        (['--tau', '1.5'], r'`tau` to be a number in \[0, 1\], but got 1.5'),
        (['--tau', '-0.1'], r'`tau`'),
        (['--tau', 'much'], r'argument --tau: invalid float value'),
    ],
)
def test_tau_normalize__names_wrong_arguments(tmp_path, convert, arguments, message):
    source, out = tmp_path / 'weights.pth', tmp_path / 'out.pth'
    linear = ('head.fc', 'head.other', 'backbone.fc', 'head.anchor_head.projector.0')
    weights = {f'{name}.weight': torch.ones(2, 2) for name in linear}
    torch.save(dict(weights, **{'head.conv.weight': torch.ones(2, 2, 3, 3)}), source)
    assert re.search(message, convert('tau_normalize', source, out, *arguments, code=2))
    assert not out.exists()


def test_converters__files_that_cannot_be_converted(tmp_path, convert):
    source, out = tmp_path / 'source.pth', tmp_path / 'out.pth'

    def refused(*arguments):
        return convert('to_stock', *arguments, code=2)

    assert f'there is no checkpoint {source}' in refused(source, out)
    source.write_bytes(b'not a checkpoint')
    assert f'{source} cannot be read as a checkpoint' in refused(source, out)
    source.write_bytes(pickle.dumps([1, 2]))
    assert 'cannot be read as a checkpoint' in refused(source, out)
    for content in ([1, 2], {}, dict(state_dict=3), dict(epoch=3)):
        torch.save(content, source)
        assert 'holds no weights' in refused(source, out)
    torch.save({'head.fc.weight': torch.ones(2, 2)}, source)
    nothing = 'there is nothing to drop from the checkpoint: '
    assert f'{nothing}no name in it contains `anchor_head.`, and it is not that of a semi-' in refused(source, out)
    assert 'OUT is CHECKPOINT itself' in refused(source, source)
    assert not out.exists()
