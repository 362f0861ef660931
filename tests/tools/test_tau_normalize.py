"""tau_normalize.py, and what all converters refuse."""

import pickle
import re
from types import SimpleNamespace

import pytest
import torch
from conversions import NEW_TORCH, TRUST, training_checkpoint
from mmengine.runner import CheckpointLoader

from sar_mm.cli.checkpoints import check_checkpoint


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
    torch.save([1, 2], source)
    assert 'cannot be read as a checkpoint: it holds a list, not a dict' in refused(source, out)
    for content in ({}, dict(state_dict=3), dict(epoch=3)):
        torch.save(content, source)
        assert 'holds no weights' in refused(source, out)
    torch.save({'head.fc.weight': torch.ones(2, 2)}, source)
    nothing = 'there is nothing to drop from the checkpoint: '
    assert f'{nothing}no name in it contains `anchor_head.`, and it is not that of a semi-' in refused(source, out)
    assert 'OUT is CHECKPOINT itself' in refused(source, source)
    assert not out.exists()
