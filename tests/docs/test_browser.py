"""The documentation site in a browser, at the widths of a desktop and of a phone."""

import json
import re
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.ci]
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
# A page that loads others in a frame of a given width, and writes what it measures there into itself.
SCRIPT = """<!DOCTYPE html><pre id="result"></pre><script>
const wait = milliseconds => new Promise(done => setTimeout(done, milliseconds));

async function open(url, width) {
  const frame = document.createElement('iframe');
  frame.style = `width: ${width}px; height: 900px; border: 0`;
  const loaded = new Promise(done => { frame.onload = done; });
  frame.src = url;
  document.body.append(frame);
  await loaded;
  return frame;
}

function measure(page, width) {
  const root = page.contentDocument.documentElement;
  const wide = [...page.contentDocument.querySelectorAll('.table-wrapper')].filter(
    frame => frame.scrollWidth > frame.clientWidth + 1 || frame.getBoundingClientRect().right > width);
  return {
    page: root.scrollWidth,
    images: [...page.contentDocument.images].filter(image => !image.naturalWidth).map(image => image.src),
    tables: wide.map(frame => [frame.getBoundingClientRect().right <= width,
      page.contentWindow.getComputedStyle(frame).overflowX, frame.innerText.slice(0, 60)]),
  };
}

async function search(word) {
  const frame = await open(`search.html?q=${word}`, 1440);
  for (let step = 0; step < 100; step++) {
    const summary = frame.contentDocument.querySelector('.search-summary');
    if (summary && /finished/.test(summary.textContent))
      return [...frame.contentDocument.querySelectorAll('#search-results li a')].map(link => link.getAttribute('href'));
    await wait(100);
  }
  return [];
}

async function main() {
  const result = {search: await search('gate_threshold'), pages: {}};
  for (const url of PAGES) {
    for (const width of WIDTHS) {
      const frame = await open(url, width);
      for (const image of frame.contentDocument.images) image.loading = 'eager';
      await Promise.all([...frame.contentDocument.images].map(image => image.decode().catch(() => null)));
      result.pages[`${url} ${width}`] = measure(frame, width);
      frame.remove();
    }
  }
  document.getElementById('result').textContent = JSON.stringify(result);
  document.title = 'done';
}
window.onload = main;
</script>"""
WIDTHS = (1440, 390)


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope='module')
def seen(site, tmp_path_factory):
    """What the browser measures: results of a search, and widths, pictures and tables of every page."""
    browser = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if browser is None:
        pytest.skip(f'none of {", ".join(BROWSERS)} is installed')
    pages = sorted(str(file.relative_to(site)) for file in site.rglob('*.html') if '_modules' not in file.parts)
    script = SCRIPT.replace('PAGES', json.dumps(pages)).replace('WIDTHS', json.dumps(WIDTHS))
    (site / 'measure.html').write_text(script)
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Handler, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    profile = tmp_path_factory.mktemp('profile')
    command = [browser, '--headless=new', '--no-sandbox', '--disable-gpu', f'--user-data-dir={profile}']
    # Other hosts, as that of MathJax, are answered at once: none may be reachable, and a request would take its time.
    command += ['--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1', '--virtual-time-budget=36000000']
    command += ['--dump-dom', f'http://127.0.0.1:{server.server_port}/measure.html']
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=600).stdout
    finally:
        server.shutdown()
        (site / 'measure.html').unlink()
    result = re.search(r'<pre id="result">(\{.*\})</pre>', output, re.DOTALL)
    assert result, output[-2000:]
    return json.loads(result[1].replace('&amp;', '&').replace('&lt;', '<').replace('&gt;', '>'))


def test_browser__search_finds_an_option(seen):
    assert any('options.html' in link for link in seen['search'])
    assert any('api/anchor_head.html' in link for link in seen['search'])


def test_browser__pictures_load(seen):
    assert len(seen['pages']) > 100
    assert {name: page['images'] for name, page in seen['pages'].items() if page['images']} == {}


@pytest.mark.parametrize('width', WIDTHS)
def test_browser__no_page_is_wider_than_the_window(seen, width):
    pages = {name: page['page'] for name, page in seen['pages'].items() if name.endswith(f' {width}')}
    assert {name: right for name, right in pages.items() if right > width} == {}


def test_browser__tables_fit_a_desktop_and_scroll_on_a_phone(seen):
    for name, page in seen['pages'].items():
        if name.endswith(' 1440'):
            assert page['tables'] == [], name
        for is_inside, overflow, text in page['tables']:
            assert is_inside and overflow == 'auto', (name, text)
