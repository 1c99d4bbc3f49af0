"""The committed notebooks: their form, that they are what their code gives, and that they run.

What fails here after a change to the code is mended by `make figures`.
"""

import json
import re
import statistics
from pathlib import Path

import nbformat
import papermill
import pytest
import timm
import torch
from helpers import fill_cache, redraw
from outputs import frames, pictures, same_picture, same_text, texts
from rerun_notebooks import STAMP, code_cells, stamp, tidy

from rollout.collection.notebooks import run_notebook
from rollout.explanations.figure_file import read_figure

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# They make what ships. An hour, and minutes; here a few steps, which give other numbers.
TRAINING = {"08_train_the_demo_model": "demo", "12_train_a_probe": "dinov2_scenes"}
OF_OWN_MODELS = ("06_method_comparison", "10_a_real_model")  # what they ask is asked of those
QUICK = {
    "08_train_the_demo_model": {
        "steps": 3,
        "full_image_steps": 1,
        "depth": 1,
        "quality_scenes": 4,
        "checkpoint": "checkpoint.pt",
    },
    "12_train_a_probe": {"training_scenes": 80, "quality_scenes": 20},
}
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def lengths(cells):
    return [len(cell.source.splitlines()) for cell in cells]


def test_they_are_numbered():
    numbers = [int(path.stem[:2]) for path in NOTEBOOKS]
    assert len(numbers) >= 4 and len(set(numbers)) == len(numbers)


@every_notebook
def test_it_asks_one_question_and_ends_with_what_was_seen(path):
    cells = read(path).cells
    assert cells[0].source.splitlines()[0].endswith("?")
    assert "## What we saw" in cells[-2].source
    assert "text/markdown" in cells[-1].outputs[-1].data


@every_notebook
def test_its_cells_are_short(path):
    cells = code_cells(read(path))
    assert 10 <= len(cells) <= 30
    assert statistics.median(lengths(cells)) <= 8
    assert max(lengths(cells)) <= 20


@every_notebook
def test_it_imports_briefly_and_defines_little(path):
    first, *rest = [cell.source for cell in code_cells(read(path))]
    assert len([line for line in first.splitlines() if line]) <= 8
    assert not [cell for cell in rest if re.search(r"^(import|from) ", cell, flags=re.M)]
    for cell in rest:
        for body in re.findall(r"^def .*\n((?:[ ].*\n?|\n)*)", cell, flags=re.M):
            assert len(body.strip().splitlines()) <= 3, "longer than three lines: belongs in src"


@every_notebook
def test_most_of_its_cells_show_something(path):
    cells = [
        c for c in code_cells(read(path))[1:] if "parameters" not in c.metadata.get("tags", [])
    ]
    assert sum(bool(cell.outputs) for cell in cells) >= 0.75 * len(cells)


@every_notebook
def test_its_slides_have_a_section_for_each_heading(path):
    notebook = read(path)
    prose = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    headings = sum(cell.source.startswith("#") for cell in prose)
    kinds = [cell.metadata.get("slideshow", {}).get("slide_type") for cell in notebook.cells]
    assert kinds[0] == "slide" and kinds.count("slide") == headings > 2


@every_notebook
def test_its_parameters_are_one_cell(path):
    tagged = [c for c in code_cells(read(path)) if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1 and "output_folder = " in tagged[0].source
    needed = {"quality_scenes"} if path.stem in TRAINING else {"model_name", "image_path", "target"}
    if path.stem not in (*TRAINING, *OF_OWN_MODELS):
        needed |= {"checkpoint", "image_size", "labels"}
    assert needed <= set(re.findall(r"^(\w+) = ", tagged[0].source, flags=re.M))


@every_notebook
def test_it_takes_the_kernel_of_the_environment_without_a_question(path):
    assert read(path).metadata.kernelspec.name == "python3"


@every_notebook
def test_the_committed_copy_was_run_whole_and_without_errors(path):
    cells = code_cells(read(path))
    counts = [cell.execution_count for cell in cells]
    assert counts == list(range(1, len(cells) + 1)), "run it from top to bottom: make figures"
    outputs = [output for cell in cells for output in cell.outputs]
    assert sum(len(list(pictures(cell))) for cell in cells) > 0
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]


@every_notebook
def test_the_committed_copy_reads_well_without_a_kernel(path):
    notebook = read(path)
    assert path.stat().st_size <= 2_000_000
    assert "widgets" not in notebook.metadata
    kinds = {kind for c in code_cells(notebook) for o in c.outputs for kind in o.get("data", {})}
    assert not [kind for kind in kinds if "widget" in kind]
    assert not re.search(r"/(home|root|Users|tmp|work)/", "".join(all_texts(notebook)))


def all_texts(notebook):
    return [text for cell in code_cells(notebook) for text in texts(cell)]


@every_notebook
def test_the_committed_outputs_are_of_the_committed_code(path):
    notebook = read(path)
    assert STAMP in notebook.metadata, "it was never run by make figures"
    now = stamp(notebook)
    assert notebook.metadata[STAMP]["code"] == now["code"], "a cell was edited after the last run"


@pytest.mark.parametrize(("notebook", "model"), TRAINING.items())
def test_the_training_notebook_tells_of_the_shipped_weights(notebook, model):
    quality = json.loads((ROOT / "data" / "models" / f"{model}.json").read_text())["quality"]
    said = " ".join(all_texts(read(ROOT / "notebooks" / f"{notebook}.ipynb")))
    for row in quality.values():
        numbers = (row["peak_on_target"], row["map_average_precision"], row["target_share"])
        assert re.search(r"\s+".join(f"{n:.4f}".rstrip("0") + "0*" for n in numbers), said)


@pytest.fixture(scope="session")
def executed(tmp_path_factory):
    """Run a notebook by papermill, once per session: (executed notebook, folder of its files)."""
    done = {}

    def run(path):
        if path not in done:
            out = tmp_path_factory.mktemp(path.stem)
            own = dict(QUICK.get(path.stem, {}))
            if "checkpoint" in own:
                own["checkpoint"] = str(out / own["checkpoint"])
            with pytest.MonkeyPatch.context() as patch:
                patch.delenv("MPLBACKEND")  # the notebook shows its pictures itself
                patch.setenv("OMP_NUM_THREADS", "1")  # as make figures
                first, *_ = run_notebook(path, out, own)
            notebook = read(first)
            tidy(notebook)
            done[path] = notebook, out / path.stem
        return done[path]

    return run


@pytest.mark.slow
@every_notebook
def test_a_new_run_says_and_shows_what_is_committed(path, executed):
    committed = read(path)
    again, _ = executed(path)
    hint = f"changed since the committed run: {changed_since(committed)}; see make figures"
    for old, new in zip(code_cells(committed), code_cells(again), strict=True):
        cell = f"cell {old.execution_count}; {hint}"
        kinds = [[output.output_type for output in one.outputs] for one in (old, new)]
        assert kinds[0] == kinds[1], cell
        if path.stem in TRAINING:
            continue
        for one, two in zip(texts(old), texts(new), strict=True):
            assert same_text(one, two), f"{cell}\n{one}\nis now\n{two}"
        for one, two in zip(pictures(old), pictures(new), strict=True):
            assert same_picture(one, two), f"the picture of {cell} differs"


def changed_since(committed):
    then, now = committed.metadata[STAMP], stamp(committed)
    return ", ".join(name for name in now if now[name] != then[name]) or "nothing"


@pytest.mark.slow
@every_notebook
def test_a_new_run_writes_the_committed_figures(path, executed):
    _, folder = executed(path)
    assert list(folder.rglob("*.*")), "a notebook leaves pictures or tables in its output folder"
    for file in sorted((folder / "readme").glob("*.json")):
        committed, again = read_figure(ROOT / "figures" / file.name), read_figure(file)
        assert [panel["explain"] for panel in committed] == [panel["explain"] for panel in again]
        for old, new in zip(committed, again, strict=True):
            assert abs(old["map"] - new["map"]).max() < 2e-3 * old["map"].max(), file.name
    shown = (file for file in (folder / "readme").glob("*") if file.suffix != ".json")
    for file in shown:
        pairs = zip(frames(ROOT / "figures" / file.name), frames(file), strict=True)
        assert all(same_picture(*pair) for pair in pairs), file.name


WITH_EACH = {  # each model, and every notebook once, with one that was once too much for it
    "imagenet": ("05", "09"),
    "four classes": ("02", "04", "11"),
    "features": ("01", "03"),
    "crane": ("07",),
}


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    """Parameters of notebooks by the name of a model; all weights are random."""
    folder = tmp_path_factory.mktemp("subjects")
    four = redraw(timm.create_model("test_vit", num_classes=4, img_size=(160, 320)), std=0.1)
    features = redraw(timm.create_model("test_vit4", num_classes=0), std=0.1)  # with a register
    crane = redraw(timm.create_model("test_vit"), std=0.1)
    torch.nn.init.constant_(crane.head.bias[134:135], 50.0)  # class 517 is called "crane", too
    files = {}
    for name, network in {"four": four, "features": features, "crane": crane}.items():
        files[name] = str(folder / f"{name}.pt")
        torch.save(network.state_dict(), files[name])
    small = {"discard_ratios": [0.0, 0.9], "more_images": ["photo_coffee"], "scenes": 40}
    wide = {"model_name": "test_vit", "checkpoint": files["four"], "image_size": [160, 320]}
    return {
        "imagenet": {"model_name": IMAGENET, "image_path": "photo_cat", "target": "tabby"},
        "four classes": {**wide, **small},
        "features": {"model_name": "test_vit4", "checkpoint": files["features"], **small},
        "crane": {"model_name": "test_vit", "checkpoint": files["crane"], **small},
    }


IMAGENET = "test_vit3"  # 10 x 10 patches, 1000 classes with names, pooling by attention


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A Hugging Face cache with weights of the ImageNet model, random ones."""
    network = redraw(timm.create_model(IMAGENET), std=0.1)
    folder = tmp_path_factory.mktemp("hub")
    fill_cache(folder, f"timm/{IMAGENET}.r160_in1k", network)
    return folder


def test_every_notebook_meets_another_model():
    met = {number for numbers in WITH_EACH.values() for number in numbers}
    others = [path for path in NOTEBOOKS if path.stem not in (*TRAINING, *OF_OWN_MODELS)]
    assert met == {path.stem[:2] for path in others}


def pairs_of_model_and_notebook():
    """All of them; those that are not in WITH_EACH are for whoever asks for every one."""
    for subject, chosen in WITH_EACH.items():
        for number in sorted({number for numbers in WITH_EACH.values() for number in numbers}):
            marks = () if number in chosen else pytest.mark.repeats
            yield pytest.param(subject, number, marks=marks)


@pytest.mark.slow
@pytest.mark.parametrize(("subject", "number"), list(pairs_of_model_and_notebook()))
def test_it_takes_any_model(subject, number, subjects, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (path,) = (path for path in NOTEBOOKS if path.stem.startswith(number))
    known = papermill.inspect_notebook(path)
    parameters = {key: value for key, value in subjects[subject].items() if key in known}
    executed, *_ = run_notebook(path, tmp_path, parameters)
    seen = read(executed).cells[-1].outputs[-1].data["text/markdown"]
    assert not re.search(r"\bnan\b", seen, flags=re.I)
