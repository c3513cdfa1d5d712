"""The page in a real browser, where one is installed."""

import html
import json
import re
import shutil
import subprocess

import pytest

import fedjax_mrl as fm
from fedjax_mrl.reporting import folder
from tests.reporting import runs

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed"),
]
# Uses the page as a reader would and tells the page around it what it found.
PROBE = """
<script>
addEventListener("load", () => {
  const table = document.querySelector("table.sortable");
  const column = (place) =>
    [...table.tBodies[0].rows].map((row) => row.cells[place].textContent);
  const button = (place) => table.tHead.rows[0].cells[place].querySelector("button");
  const orders = [];
  for (const press of [1, 1, 0]) {
    button(press).focus();
    document.activeElement.click();
    const state = table.tHead.rows[0].cells[press].getAttribute("aria-sort");
    orders.push([state, column(press)]);
  }
  const found = {
    width: innerWidth,
    scroll: document.documentElement.scrollWidth,
    images: [...document.images].map((i) => [i.complete, i.naturalWidth]),
    keyboard: [...document.querySelectorAll("th button")].every((b) => !b.tabIndex),
    orders,
  };
  parent.postMessage(JSON.stringify(found), "*");
});
</script>
"""
# Windows are at least 500 wide, frames as wide as they are told.
AROUND = """<!doctype html><link rel="icon" href="data:,"><pre id="probe"></pre><script>
addEventListener("message", (told) => {
  document.querySelector("pre").textContent = told.data;
});
</script><iframe src="probed.html" width="WIDTH" height="800" style="border:0"></iframe>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("browser")
    runs.comparison(path / "c", seeds=2)
    made = fm.report(path / "c", path / "report").page
    text = made.read_text(encoding="utf-8")
    probed = path / "report" / "probed.html"
    probed.write_text(text.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    return probed


def browse(page, *words):
    """What the browser writes to stdout and to stderr."""
    profile = page.parent / "profile"
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={profile}",
    ]
    flags += ["--enable-logging=stderr", "--v=0", "--virtual-time-budget=10000"]
    done = subprocess.run(
        [BROWSER, *flags, *words, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_works_in_a_browser(page, width):
    around = page.parent / f"around-{width}.html"
    around.write_text(AROUND.replace("WIDTH", str(width)), encoding="utf-8")
    shown, logged = browse(around, "--window-size=1400,900", "--dump-dom")
    assert "CONSOLE" not in logged, logged
    found = re.search(r'<pre id="probe">(.*?)</pre>', shown)
    found = json.loads(html.unescape(found[1]))
    assert found["width"] == width and found["scroll"] <= width
    assert len(found["images"]) == 5
    assert all(complete and size > 300 for complete, size in found["images"])
    assert found["keyboard"]
    (up, first), (down, second), (named, third) = found["orders"]
    assert (up, down, named) == ("ascending", "descending", "ascending")
    numbers = [float(text.split(" ")[0]) for text in first]
    assert numbers == sorted(numbers) and second == first[::-1] != first
    assert third == ["fml", "standalone"]


def test_a_browser_that_reports_errors_is_what_is_asked(page):
    broken = page.parent / "broken.html"
    text = (page.parent / folder.PAGE).read_text(encoding="utf-8")
    image = '<img src="https://example.org/a.png"><script>nothing()</script>'
    broken.write_text(text.replace("</main>", f"{image}</main>"), encoding="utf-8")
    _, logged = browse(broken, "--window-size=390,900", "--dump-dom")
    assert "nothing is not defined" in logged  # an error of a script is seen
    assert "Content Security Policy" in logged  # and nothing is loaded


def test_the_page_prints(page):
    target = page.parent / "page.pdf"
    browse(page, "--no-pdf-header-footer", f"--print-to-pdf={target}")
    assert target.read_bytes().startswith(b"%PDF") and target.stat().st_size > 20_000
