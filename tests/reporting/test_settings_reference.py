"""docs/settings.md says what the models say."""

from pathlib import Path

import pytest

from dmlray import methods
from dmlray.plans.experiment import Experiment
from dmlray.plans.fields import walk
from dmlray.plans.search_settings import SearchSettings
from dmlray.reporting.settings_reference import settings_reference

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
MODELS = [Experiment, SearchSettings, *(methods.load(name).Config for name in methods.names())]


def test_the_page_is_generated_anew_with_each_change() -> None:
    assert PAGE.read_text() == settings_reference(), "run `make docs`"


@pytest.mark.parametrize("model", MODELS)
def test_each_setting_has_a_meaning_and_a_line(model: type) -> None:
    page = settings_reference()
    for key, field in walk(model):
        assert field.description, key
        assert f"{key}` | `" in page
