"""A lesson: each step sets everything, and a file with a mistake is named."""

import pytest
from explorers import WIDE, problem

from rollout import explore
from rollout.explorer.lesson import lesson_names, read_lesson
from rollout.settings import METHODS, Settings


def panes(explorer):
    return explorer.body.children


def test_each_step_sets_everything(demo, tmp_path):
    made = explore(demo, lesson="five_questions", output_folder=tmp_path)
    pane, knobs, _ = panes(made)
    second = int((-made.session.logits).argsort()[1])
    expected = [
        ("attention_rollout", None, Settings()),
        ("gradient_rollout", second, Settings()),
        ("attention_rollout", None, Settings(discard_ratio=0.9)),
        ("attention_flow", None, Settings()),
        ("attention_rollout", None, Settings()),
    ]
    for number in (0, 4, 1, 3, 2, 1):  # in any order, and from any state
        made.controls.head_fusion.value = "max"
        pane.steps.value = (number + 1) % 5
        pane.steps.value = number
        method, rival, settings = expected[number]
        assert (made.view.method, made.view.rival, made.view.settings) == (method, rival, settings)
        assert made.view.image == ("scene_boat_fish" if number == 4 else "scene_cat_dog")
        assert pane.step.title in [words for words, _ in pane.steps.options][number]
        assert not problem(made)
    pane.steps.value = 4
    assert made.controls.cure.layout.display == ""  # the last caption speaks of this button
    assert knobs.layout.display == "none"
    pane.knobs.value = True
    assert knobs.layout.display == ""
    made.close()


def test_the_class_predicts_before_it_sees(demo, tmp_path):
    made = explore(demo, lesson="five_questions", output_folder=tmp_path)
    pane = panes(made)[0]
    words = pane._words
    pane.predict.value = True
    for number in (1, 2):
        pane.steps.value = number
        assert "rollout-covered" in made.tabs._dom_classes and "caption" not in words.value
        assert pane.step.question.split()[0] in words.value and pane.reveal.layout.display == ""
        pane.reveal.click()
        assert "rollout-covered" not in made.tabs._dom_classes and "equation" in words.value
    made.close()


@pytest.mark.parametrize("name", lesson_names())
def test_the_shipped_lessons_speak_of_what_there_is(name):
    lesson = read_lesson(name)
    assert all(step.question and step.caption and step.equation for step in lesson.steps)
    assert {step.view["method"] for step in lesson.steps} <= set(METHODS)
    assert all(step.caption.count(". ") == 1 or step.caption.count("? ") for step in lesson.steps)


def test_a_lesson_of_ones_own_has_labels_of_its_model(small, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('[[step]]\ntitle = "One"\nview = { target = "c", rival = 4, head = 1 }\n')
    made = explore(small, WIDE, lesson=file, output_folder=tmp_path)
    assert (made.view.target, made.view.rival, made.view.settings.head) == (2, 4, 1)
    made.close()
    file.write_text('[[step]]\ntitle = "One"\nview = { target = "zebra" }\n')
    made = explore(small, WIDE, lesson=file, output_folder=tmp_path)
    assert "zebra" in made.status.value and problem(made)
    made.close()


MISTAKES = {
    "title = ": "is not TOML",
    'title = "a"': r"has no \[\[step\]\]",
    '[[step]]\nview = {method = "attention_flow"}': "step 1 .* no title",
    '[[step]]\ntitle = "a"\n[[step]]\ntitle = "b"\nmethod = "x"': "step 2 .*unknown entry 'method'",
    "[[step]]\ntitle = 3": "title in step 1 .* a text in quotes, got 3",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_in_a_lesson_is_a_sentence(text, tmp_path):
    (tmp_path / "wrong.toml").write_text(text)
    with pytest.raises(ValueError, match=MISTAKES[text]):
        read_lesson(tmp_path / "wrong.toml")
    with pytest.raises(ValueError, match="no lesson 'six'.*five_questions"):
        read_lesson("six")
