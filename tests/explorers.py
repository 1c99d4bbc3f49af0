"""What tests of the explorer share."""

from PIL import Image

CANVAS = ".rollout-canvas canvas"
PAINTED = f"number => Number(document.querySelector('{CANVAS}')?.dataset.number) === number"
SCENE = "scene_cat_dog"
WIDE = Image.effect_noise((48, 32), 60).convert("RGB")


def problem(explorer):
    return "rollout-problem" in explorer.status.value


def settled(lab, page):
    """Wait until the browser has painted the frame that Python sent last."""
    number = lab.ask(page, "explorer.canvas.frame['number']")
    page.wait_for_function(PAINTED, arg=number, timeout=20_000)
    return number


def wait_until(lab, page, expression):
    for _ in range(100):
        if lab.ask(page, expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never became true: {expression}")
