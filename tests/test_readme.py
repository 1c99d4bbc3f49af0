"""README shows files that exist, quotes the demo model's card, and names real commands."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_every_picture_exists():
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", README)
    assert len(pictures) > 15
    assert [picture for picture in pictures if not (ROOT / picture).is_file()] == []


def test_the_quality_table_is_that_of_the_card():
    quality = json.loads((ROOT / "data/models/demo.json").read_text())["quality"]
    for name, title in [
        ("gradient_rollout", "gradient rollout"),
        ("attention_rollout", "attention rollout"),
        ("raw_attention", "raw attention, last block"),
    ]:
        row = quality[name]
        peak, precision = f"{row['peak_on_target']:.0%}", f"{row['map_average_precision']:.2f}"
        share = f"{row['target_share']:.2f}"
        assert f"| {title} | {peak[:-1]} % | {precision} | {share} |" in README
    model = quality["gradient_rollout"]
    assert f"in {100 * model['top_logit_present']:.1f} % of them" in README
    assert f"is {model['mean_average_precision']:.3f}." in README


def test_every_make_target_exists():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.M))
    assert set(re.findall(r"`?make (\w+)`?", README)) <= targets | {"and"}


def test_every_notebook_is_listed():
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"`{notebook.stem}`" in README
