"""How long the explorer takes from a hand's move to the painted picture, in a real browser.

Times are taken in the page: from the event (key, pointer, click) to the animation frame after the
canvas was painted with the answer. A new target is held against one gradient rollout, `explain` of
the prepared image, timed in the same kernel between the clicks.

python benchmarks/explorer.py > benchmarks/RESULTS_EXPLORER.md
"""

import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from table import machine, markdown

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import HOW_TO_GET_ONE, Lab, running_browser, running_server
from helpers import write_notebook

HEADER = ("what", "model", "method", "median", "90 %", "target")
MOVES = 40
SINGLE, STEADY = 400, 150  # milliseconds from one painted picture to the next move
CANVAS = ".rollout-canvas canvas"
# From an event of the given kind to the frame after the canvas shows something else: the number of
# the frame that Python sent, or the patch that is traced.
WATCH = f"""([kind, shown]) => {{
    const canvas = document.querySelector('{CANVAS}');
    window.took = new Promise(resolve => {{
        let start = null;
        const begin = () => {{ start ??= performance.now(); }};
        addEventListener(kind, begin, {{capture: true, once: true}});
        const before = canvas.dataset[shown];
        new MutationObserver((_, observer) => {{
            if (canvas.dataset[shown] === before || start === null) return;
            observer.disconnect();
            requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - start)));
        }}).observe(canvas, {{attributes: true, attributeFilter: ['data-' + shown]}});
    }});
}}"""
EMPTY = """async () => {
    const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel
    await new Promise(resolve => setTimeout(resolve, 150))
    const start = performance.now()
    await kernel.requestExecute({code: '', silent: true, store_history: false}).done
    return performance.now() - start
}"""
START = """
import time, torch
from rollout import explain, explore, load_model
from rollout.demo.samples import sample_path
model = load_model({name!r}{options})
explorer = explore(model, "scene_cat_dog", method={method!r}, target=0)
images = model.images(sample_path("scene_cat_dog"))
"""
ONE_ROLLOUT = """
start = time.perf_counter()
explain(model, images, method="gradient_rollout", target={target})
seconds = time.perf_counter() - start
"""
MODELS = {
    "demo": ("demo", ""),
    "ViT-B/16": ("vit_base_patch16_224", ", pretrained=False"),
    "DINOv2-S, 224 px": ("dinov2_scenes", ""),
    "DINOv2-S, 518 px": ("dinov2_scenes", ", image_size=518"),
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder)) as server:
        with running_browser(server) as lab:
            if lab is None:
                sys.exit(HOW_TO_GET_ONE)
            names = sys.argv[1:] or MODELS  # some of them, or all
            rows = [row for name in names for row in measure(lab, Path(folder), name)]
    print("\n\n".join(["# The explorer's latency", machine(), HOW, markdown(HEADER, rows)]))


HOW = f"""\
`python benchmarks/explorer.py`: JupyterLab and headless Chromium on the same machine, {MOVES} moves
each. From the event in the page to the frame after the canvas was painted with
the answer; milliseconds. "One gradient rollout" is `explain` of the prepared image in the same
kernel. A first hover fetches the maps of all patches; the others are painted from them. Targets
hold for the demo model on an idle machine; the weights of ViT-B/16 are random. The empty request
does nothing in the kernel: what the machine and its load cost before the explorer does anything."""


def measure(lab: Lab, folder: Path, name: str) -> list[tuple[str, ...]]:
    """The table's rows of one model."""
    rows = []
    for method in ("attention_rollout", "gradient_rollout"):
        page = open_explorer(lab, folder, name, method)
        for rest in (SINGLE, STEADY):
            what = f"slider to picture, every {rest} ms"
            rows.append(row(what, name, method, slide(page, rest), "median 60, 90 % 100"))
        rows.append(row("hover a patch", name, method, hover(page), "median 40"))
    rows.append(row("empty request", name, "", empty(page), "-"))
    took, rollouts = choose_targets(lab, page)
    share = statistics.median(a / b for a, b in zip(took, rollouts, strict=True))
    verdict = f"{share:.2f} x one gradient rollout (target 1.5)"
    rows.append(row("new target", name, "gradient_rollout", took, verdict))
    lab.close_pages()
    return rows


def open_explorer(lab: Lab, folder: Path, name: str, method: str) -> Any:
    lab.close_pages()
    model, options = MODELS[name]
    source = START.format(name=model, options=options, method=method) + "explorer"
    page = lab.open(write_notebook(folder / "explorer.ipynb", source))
    lab.run_all(page)
    page.locator(CANVAS).first.wait_for()
    page.wait_for_timeout(2000)  # whatever JupyterLab still does at its start
    return page


def timed(
    page: Any, kind: str, act: Callable[[], None], shown: str = "number", rest: int = 150
) -> float:
    """Milliseconds from the event to the painted answer."""
    page.evaluate(WATCH, [kind, shown])
    act()
    took = page.evaluate("() => window.took")
    page.wait_for_timeout(rest)  # what is beside the picture is drawn meanwhile
    return took


def empty(page: Any) -> list[float]:
    """What any question to the kernel takes on this machine under its present load."""
    return [page.evaluate(EMPTY) for _ in range(MOVES)]


def slide(page: Any, rest: int) -> list[float]:
    handle = page.locator(".widget-slider", has=page.get_by_text("discard", exact=True))
    handle.locator(".noUi-handle").focus()
    press = partial(page.keyboard.press, "ArrowRight")
    return [timed(page, "keydown", press, rest=rest) for _ in range(MOVES)]


def hover(page: Any) -> list[float]:
    box = page.locator(CANVAS).first.bounding_box()
    side = (box["width"] - 14) / 2 / 14

    def over(move: int) -> Callable[[], None]:
        row, column = (5 * move + move // 14) % 14, (3 * move) % 14
        x, y = box["x"] + (column + 0.5) * side, box["y"] + 22 + (row + 0.5) * side
        return lambda: page.mouse.move(x, y)

    over(0)()  # fetches the maps of all patches
    page.wait_for_timeout(1000)
    return [timed(page, "pointermove", over(move), "patch") for move in range(1, MOVES + 1)]


def choose_targets(lab: Lab, page: Any) -> tuple[list[float], list[float]]:
    """Milliseconds of each new class, and of one gradient rollout beside it."""
    page.mouse.move(5, 5)
    search = page.get_by_placeholder("search a class")
    took, rollouts = [], []
    for target in range(1, 12):
        lab.execute(page, ONE_ROLLOUT.format(target=target))
        rollouts.append(1000 * lab.ask(page, "seconds"))
        search.fill(str(target))
        took.append(timed(page, "keydown", lambda: search.press("Enter")))
    return took, rollouts


def row(what: str, model: str, method: str, took: Sequence[float], target: str) -> tuple[str, ...]:
    middle, late = statistics.median(took), statistics.quantiles(took, n=10)[-1]
    return what, model, method.replace("_", " "), f"{middle:.0f}", f"{late:.0f}", target


if __name__ == "__main__":
    main()
