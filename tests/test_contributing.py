"""What CONTRIBUTING.md and .github/ name is there."""

import os
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / '.github'


def test_contributing__names_files_and_test_levels_that_are_there():
    page = (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8')
    makefile = (ROOT / 'Makefile').read_text()
    levels = set(re.findall(r'`make ((?:test|lint)[\w-]*)`', page))
    assert len(levels) >= 6
    assert [level for level in levels if not re.search(rf'^(.* )?{level}( .*)?:', makefile, re.MULTILINE)] == []
    files = re.findall(r'`((?:sar_mm|tests|docs|demo)/[\w/.]+)`', page)
    assert len(files) >= 6 and [file for file in files if not (ROOT / file).exists()] == []


def test_workflow__runs_ci_run_on_push_and_pull_request():
    workflow = yaml.safe_load((GITHUB / 'workflows/ci.yml').read_text())
    assert set(workflow[True]) == {'push', 'pull_request'}  # YAML 1.1 takes the key `on` for true
    (job,) = workflow['jobs'].values()
    setup, run = job['steps'][-2:]
    assert job['runs-on'].startswith('ubuntu') and setup['with']['python-version'] == '3.11'
    assert os.access(ROOT / run['run'], os.X_OK)


@pytest.mark.parametrize('name', ['bug', 'question'])
def test_issue_forms__have_what_github_asks_for(name):
    form = yaml.safe_load((GITHUB / 'ISSUE_TEMPLATE' / f'{name}.yml').read_text())
    assert {'name', 'description', 'body'} <= set(form)
    fields = [field for field in form['body'] if field['type'] != 'markdown']
    ids = [field['id'] for field in fields]
    assert len(ids) == len(set(ids)) and all(field['attributes']['label'] for field in fields)
    assert any(field.get('validations', {}).get('required') for field in fields)
