"""JupyterLab in a real browser, offline: the fixture `lab`.

    def test_it_runs(lab):
        page = lab.open(path)  # a copy of the notebook, in a tab of its own; the kernel is idle
        lab.run_all(page)  # raises with the traceback if a cell fails
        page.locator("canvas").first.click()  # any of Playwright's calls
        assert lab.ask(page, "model.name") == "demo"  # what Python holds, by way of JSON
        lab.screenshot(page, "demo")  # runs/browser/demo.png

The server runs once per test session, a browser once per module; a fixture of the module may open
pages on `lab_browser`, which stay until its end. `tests/conftest.py` imports the fixtures, so a
test only names `lab`. Where no browser is found the tests skip and say what to do.
What fails leaves a picture in runs/browser/. The browser cannot reach anything but the server;
`lab.outside` lists what it tried to.
"""

import ast
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PICTURES = Path(__file__).parents[1] / "runs" / "browser"
INSTALLED = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOW_TO_GET_ONE = (
    "no browser to test JupyterLab in: `python -m playwright install chromium-headless-shell`, "
    "or the system's package (apt install chromium)"
)
FLAGS = [
    "--no-sandbox",  # as root, and in containers
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # offline
]
# No pop-up over the notebook, and every cell in the page however long the notebook is.
LAB_SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
}
RUN_ALL = "() => void jupyterapp.commands.execute('notebook:run-all-cells')"
# Asked of the notebook, as the page shows an error and a warning under the same type.
ERRORS = """[...jupyterapp.shell.currentWidget.content.model.cells]
    .filter(cell => cell.type === 'code').flatMap(cell => cell.outputs.toJSON())
    .filter(output => output.output_type === 'error').map(output => output.traceback.join('\\n'))"""
ENDED = f"""() => {{
    const prompts = [...document.querySelectorAll(
        '.jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell .jp-InputPrompt')]
    return prompts.every(prompt => /\\[\\d+\\]/.test(prompt.textContent)) || {ERRORS}.length > 0
}}"""
EXECUTE = """async ([code, expression]) => {
    const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel
    const asked = expression === null ? {} : {answer: expression}
    const reply = await kernel.requestExecute(
        {code, silent: true, store_history: false, user_expressions: asked}).done
    return reply.content
}"""


@dataclass(frozen=True)
class Server:
    """A running JupyterLab."""

    address: str
    token: str
    root: Path


@dataclass
class Lab:
    """A browser at a JupyterLab; pages are Playwright's.

    Attributes:
        outside: addresses beyond the server that any page asked for; none of them is reached.
    """

    server: Server
    browser: Any
    timeout: float = 120.0
    outside: list[str] = field(default_factory=list)
    _pages: list[Any] = field(default_factory=list)

    def open(
        self, notebook: Path, *, width: int = 1400, height: int = 1000, as_it_is: bool = False
    ) -> Any:
        """A page with a copy of the notebook, connected to an idle kernel.

        Args:
            as_it_is: with the outputs that it was saved with, not in its empty state.
        """
        name = f"{len(list(self.server.root.iterdir()))}/notebooks/{Path(notebook).name}"
        (self.server.root / name).parent.mkdir(parents=True)
        copy = shutil.copyfile if as_it_is else _without_outputs
        copy(notebook, self.server.root / name)
        context = self.browser.new_context(viewport={"width": width, "height": height})
        page = context.new_page()
        page.set_default_timeout(1000 * self.timeout)
        page.on("request", lambda request: self._note(request.url))
        self._pages.append(page)
        page.goto(f"{self.server.address}/lab/tree/{name}?token={self.server.token}&reset")
        page.locator(".jp-NotebookPanel .jp-Notebook").wait_for()
        # The status is "idle" before there is a kernel, so its name must be there as well.
        page.locator(".jp-NotebookPanel .jp-KernelName", has_not_text="No Kernel").wait_for()
        page.locator("#jp-main-statusbar", has_text="| Idle").wait_for()
        return page

    def run_all(self, page: Any, *, timeout: float | None = None) -> None:
        """Run All Cells, to the end; a cell that fails is an AssertionError with its traceback."""
        page.evaluate(RUN_ALL)
        page.wait_for_function(ENDED, timeout=1000 * (timeout or self.timeout))
        errors = self.errors(page)
        assert errors == [], errors[0]

    def errors(self, page: Any) -> list[str]:
        """The tracebacks of the cells that failed, first cell first."""
        return [_plain(error) for error in page.evaluate(ERRORS)]

    def execute(self, page: Any, code: str) -> None:
        """Run code in the page's kernel, beside the notebook's cells."""
        self._reply(page, code, None)

    def ask(self, page: Any, expression: str) -> Any:
        """The value of an expression in the page's kernel; it must be what JSON can carry."""
        reply = self._reply(page, "", f"__import__('json').dumps({expression})")
        answer = reply["user_expressions"]["answer"]
        assert answer["status"] == "ok", _plain("\n".join(answer["traceback"]))
        return json.loads(ast.literal_eval(answer["data"]["text/plain"]))

    def screenshot(self, page: Any, name: str) -> Path:
        """The page as it looks now, as runs/browser/NAME.png."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=PICTURES / f"{name}.png")
        return PICTURES / f"{name}.png"

    def keep_pictures(self, test: str) -> None:
        """A picture of each page, after a failure."""
        for number, page in enumerate(self._pages):
            with suppress(Exception):  # a page that crashed must not hide why
                self.screenshot(page, f"failed_{test}_{number}")

    def close_pages(self, first: int = 0) -> None:
        """Shut the pages from the first on and their kernels down."""
        for page in self._pages[first:]:
            with suppress(Exception):
                page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.shutdown()")
            page.context.close()
        del self._pages[first:]

    def _reply(self, page: Any, code: str, expression: str | None) -> dict[str, Any]:
        reply = page.evaluate(EXECUTE, [code, expression])
        assert reply["status"] == "ok", _plain("\n".join(reply["traceback"]))
        return reply

    def _note(self, address: str) -> None:
        if not address.startswith((self.server.address, "data:", "blob:")):
            self.outside.append(address)


@pytest.fixture(scope="session")
def lab_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("lab")) as server:
        yield server


@contextmanager
def running_server(root: Path) -> Iterator[Server]:
    """JupyterLab on a free port, with settings and folders of its own below `root`."""
    (root / "work").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = os.urandom(12).hex()
    server = Server(f"http://127.0.0.1:{port}", token, root / "work")
    with open(root / "lab.log", "w") as log:
        process = subprocess.Popen(
            _command(server, port), env=_environment(root), stdout=log, stderr=subprocess.STDOUT
        )
    try:
        _wait_until_up(server, process, root / "lab.log")
        yield server
    finally:
        process.terminate()  # shuts the kernels down, too
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def lab_browser(lab_server: Server) -> Iterator[Lab]:
    """A browser for one module: while it runs, the thread has a running event loop, which would
    disturb other modules' tests."""
    with running_browser(lab_server) as lab:
        if lab is None:
            pytest.skip(HOW_TO_GET_ONE)
        yield lab


@contextmanager
def running_browser(server: Server) -> Iterator[Lab | None]:
    """A browser at the server; None where there is no browser."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        yield None
        return
    with sync_playwright() as driver:
        path = find_browser(driver.chromium.executable_path)
        if path is None:
            yield None
            return
        browser = driver.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        lab = Lab(server, browser)
        yield lab
        lab.close_pages()
        browser.close()


@pytest.fixture
def lab(lab_browser: Lab, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The browser; the pages that a test opens are closed after it."""
    lab_browser.outside.clear()
    open_before = len(lab_browser._pages)
    yield lab_browser
    if request.node.stash.get(FAILED, False):
        lab_browser.keep_pictures(re.sub(r"\W+", "_", request.node.name))
    lab_browser.close_pages(open_before)


FAILED = pytest.StashKey[bool]()


def pytest_exception_interact(node: pytest.Item) -> None:
    """Let `lab` know, before it closes the pages, that they are worth a picture."""
    node.stash[FAILED] = True


def find_browser(playwrights_own: str) -> str | None:
    """An executable of the Chromium family: Playwright's, or the system's."""
    if Path(playwrights_own).is_file():
        return playwrights_own
    shell = sorted(Path(playwrights_own).parents[2].glob("chromium_headless_shell-*/*/*shell"))
    if shell:
        return str(shell[-1])
    return next((path for path in map(shutil.which, INSTALLED) if path), None)


def _command(server: Server, port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
        *(f"--port={port}", "--ServerApp.port_retries=0", "--LabApp.expose_app_in_browser=True"),
        *(f"--IdentityProvider.token={server.token}", f"--ServerApp.root_dir={server.root}"),
    ]


def _environment(root: Path) -> dict[str, str]:
    """Nothing of the user's Jupyter, and one thread, as in a kernel that papermill starts."""
    settings = root / "config" / "labconfig" / "default_setting_overrides.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(LAB_SETTINGS))
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    inherited = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    own = {name: str(root / folder) for name, folder in folders.items()}
    return inherited | own | {"OMP_NUM_THREADS": "1", "JUPYTER_PREFER_ENV_PATH": "1"}


def _wait_until_up(server: Server, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 90
    while True:
        try:
            urllib.request.urlopen(f"{server.address}/api/status?token={server.token}", timeout=5)
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.1)


def _without_outputs(notebook: Path, copy: Path) -> None:
    """The notebook as before its first run, so that what the page shows was made in it."""
    content = json.loads(Path(notebook).read_text())
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    copy.write_text(json.dumps(content))


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
