"""README's picture of the explorer: JupyterLab in headless Chromium, photographed.

python tools/screenshot.py
"""

import sys
import tempfile
from pathlib import Path

from rollout import explain, load_model
from rollout.demo.samples import sample_path
from rollout.explanations.figure_file import write_data

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import HOW_TO_GET_ONE, Lab, running_browser, running_server
from helpers import write_notebook

PICTURE = Path(__file__).parents[1] / "figures" / "explorer.png"
IMAGE, TARGET, RIVAL = "scene_cat_dog", "cat", "dog"
CELL = f"""\
from rollout import explore

explore("demo", "{IMAGE}", target="{TARGET}", rival="{RIVAL}")"""
ROOM = "() => jupyterapp.commands.execute('application:toggle-left-area')"


def photograph(lab: Lab, folder: Path) -> None:
    notebook = write_notebook(folder / "explorer.ipynb", CELL)
    page = lab.open(notebook, width=1150, height=760)
    page.evaluate(ROOM)
    lab.run_all(page)
    page.locator(".rollout-canvas canvas[data-number]").first.wait_for()
    page.wait_for_timeout(1000)  # for what is beside the picture
    page.mouse.move(5, 5)
    page.locator(".jp-OutputArea-output", has=page.locator(".rollout-canvas")).screenshot(
        path=PICTURE
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder)) as server:
        with running_browser(server) as lab:
            if lab is None:
                sys.exit(HOW_TO_GET_ONE)
            photograph(lab, Path(folder))
    model = load_model("demo")
    shown = [explain(model, sample_path(IMAGE), target=target) for target in (TARGET, RIVAL)]
    panels = {explanation.title(): explanation for explanation in shown}
    print(write_data(PICTURE, panels, model="demo", image=IMAGE))


if __name__ == "__main__":
    main()
