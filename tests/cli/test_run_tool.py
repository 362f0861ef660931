import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest

from sar_mm.cli.run_tool import run_tool


@pytest.fixture
def tool(tmp_path):
    def write(code):
        (tmp_path / 'tool.py').write_text(code)
        return [str(tmp_path / 'tool.py')]

    return write


def test_run_tool__output_goes_to_the_log(tool, tmp_path, capsys):
    seconds = run_tool(tool('print("Iter(train) [1/2]  loss: 0.5")'), tmp_path / 'logs' / 'log.txt', 'a label')
    assert (tmp_path / 'logs' / 'log.txt').read_text() == 'Iter(train) [1/2]  loss: 0.5\n'
    assert 0 < seconds < 60 and capsys.readouterr().out.startswith('a label ...')


def test_run_tool__a_failure_ends_this_process_too(tool, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        run_tool(tool('import sys; print("the reason"); sys.exit(3)'), tmp_path / 'log.txt', 'a label')
    printed = capsys.readouterr().out
    assert exit_.value.code == 3 and 'tool.py failed; the end of' in printed and 'the reason' in printed


def is_locked(path):
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_run_tool__a_lock_that_is_passed_on_outlives_this_process(tool, tmp_path):
    lock, started, go_on = (tmp_path / name for name in ('lock', 'started', 'go_on'))
    command = tool(
        'import os, time\n'
        f'open({str(started)!r}, "w").write(str(os.getpid()))\n'
        f'while not os.path.exists({str(go_on)!r}): time.sleep(0.01)\n'
    )
    run_tool_file = sys.modules[run_tool.__module__].__file__  # which needs no import of PyTorch
    parent = (
        f'import fcntl, runpy; from pathlib import Path; run_tool = runpy.run_path({run_tool_file!r})["run_tool"]\n'
        f'file = open({str(lock)!r}, "w"); fcntl.flock(file, fcntl.LOCK_EX)\n'
        f'run_tool({command!r}, Path({str(tmp_path / "log.txt")!r}), "label", pass_fds=[file.fileno()])\n'
    )
    process = subprocess.Popen([sys.executable, '-c', parent], stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not (started.exists() and started.read_text()):
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert is_locked(lock)
    finally:
        go_on.write_text('')
    while is_locked(lock):
        assert time.monotonic() < end
        time.sleep(0.01)
