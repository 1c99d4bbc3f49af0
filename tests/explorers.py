"""What tests of the explorer share."""

from PIL import Image

SCENE = "scene_cat_dog"
WIDE = Image.effect_noise((48, 32), 60).convert("RGB")


def problem(explorer):
    return "rollout-problem" in explorer.status.value
