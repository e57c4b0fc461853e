"""A score says what it depends on."""

import pytest

from dmlray.reporting.protocol_words import protocol_words
from tests.reporting.test_run_report import scores


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ("last", "No choice: the last epoch is scored"),
        ("validation", "held out"),
        ("best_on_test", "ON THE TEST CLASSES"),
        ("none", "Nothing was trained"),
        ("mixed", "by its own rule"),
    ],
)
def test_each_rule_of_selection_has_its_sentence(rule: str, sentence: str) -> None:
    assert sentence in protocol_words(scores(selection=rule))["Selection"]


def test_the_words_name_data_network_and_trainings() -> None:
    words = protocol_words(scores(n=3, tuned_by="the best of 6 trials", remarks=["of a mutant"]))
    assert words["Data set"] == "demo, fingerprint f."
    assert words["Test"].startswith("9 images of 3 classes never seen in training")
    assert words["Settings"] == "Chosen by the best of 6 trials."
    assert words["Network"] == "b, embeddings of 4 dimensions, method dreml."
    assert words["Trainings"] == "n = 3, seed 0."
    assert words["Remarks"] == "of a mutant"
    assert "Computed" not in words


def test_scores_without_test_classes_say_so() -> None:
    words = protocol_words(scores(test_classes=0, test_images=0))
    assert "never seen" not in words["Test"]
    assert words["Test"].startswith("No test classes")
