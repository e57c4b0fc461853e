"""`dmlray init` on small folders and CSV files."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from dmlray.cli import main
from dmlray.plans.resolve import read_experiment
from dmlray.plans.search import read_search
from tests.data.images import picture
from tests.data.rights import without_rights

SIZE = 70  # pixels


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr("dmlray.api.starting.images_per_second", lambda *args: 100.0)


def draw(root: Path, classes: int, each: int = 3) -> Path:
    for label in range(classes):
        (root / f"c{label}").mkdir(parents=True)
        for image in range(each):
            file = root / f"c{label}" / f"{image}.png"
            picture(SIZE, SIZE + 20, 100 * label + image).save(file)
    return root


def run(*words: str | Path) -> str:
    result = CliRunner().invoke(main, ["init", *map(str, words)])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def refused(*words: str | Path) -> str:
    before = set(Path().rglob("*"))
    result = CliRunner().invoke(main, ["init", *map(str, words)])
    assert result.exit_code == 2, (result.output, result.exception)
    assert set(Path().rglob("*")) == before, "something was written"
    problem = [line for line in result.output.splitlines() if not line.startswith("decoding")]
    assert len(problem) == 1, problem
    return problem[0]


def test_a_folder_gets_an_experiment_and_a_search_that_are_legal(tmp_path: Path) -> None:
    output = run(draw(tmp_path / "my photos", classes=12))
    assert "36 of 12 classes, 3 to 3 each" in output
    assert "6 classes train, 6 test" in output
    assert "folds:    2 to 3" in output
    assert f"shorter side {SIZE} to {SIZE}" in output
    plan = read_experiment(Path("my_photos.yaml")).experiment
    assert (plan.data.name, plan.data.root) == ("folder", tmp_path / "my photos")
    assert plan.data.transform.size == 64
    assert plan.protocol.selection == "validation"
    search = read_search(Path("my_photos_search.yaml"))
    assert search.experiment.data == plan.data
    assert search.base_point()
    assert search.settings.time_budget == 3600
    assert search.experiment.protocol.folds == 3
    for line in Path("my_photos.yaml").read_text().splitlines()[3:]:
        key, _, value = line.partition("#")[0].partition(":")
        assert "#" in line or not value.strip() or key.strip() in ("name", "root", "warmup_steps")


def test_nothing_is_overwritten_and_out_names_another_folder(tmp_path: Path) -> None:
    images = draw(tmp_path / "photos", classes=8)
    Path("photos_search.yaml").write_text("mine")
    assert "photos_search.yaml: exists. Allowed: another folder (--out)" in refused(images)
    run(images, "--out", "new/place")
    assert read_experiment(Path("new/place/photos.yaml")).experiment.data.name == "folder"
    assert Path("photos_search.yaml").read_text() == "mine"


def test_broken_and_equal_images_are_named_and_left_out(tmp_path: Path) -> None:
    images = draw(tmp_path / "photos", classes=8, each=4)
    for label in ("c1", "c3"):  # equal files in two classes, but no images
        (images / label / "0.png").write_bytes(b"no image")
    (images / "c2" / "1.png").write_bytes((images / "c2" / "0.png").read_bytes())
    output = run(images)
    assert "broken:   c1/0.png: " in output
    assert "note:     " in output
    assert "30 of 8 classes" in output
    assert read_experiment(Path("photos.yaml")).experiment.data.skip_broken


def test_a_csv_file_with_a_split_is_followed(tmp_path: Path) -> None:
    images = draw(tmp_path / "photos", classes=8)
    rows = [
        f"photos/c{label}/{image}.png,c{label},{'train' if label < 6 else 'test'}"
        for label in range(8)
        for image in range(3)
    ]
    table = tmp_path / "list.csv"
    table.write_text("\n".join(["path,label,split", *rows]))
    assert "6 classes train, 2 test and are never seen (as given)" in run(table)
    plan = read_experiment(Path("list.yaml")).experiment
    assert (plan.data.name, plan.data.root, plan.data.split) == ("csv", table, "given")
    assert len(list(images.iterdir())) == 8


def test_too_few_classes_for_folds_get_no_search(tmp_path: Path) -> None:
    assert "folds:    none" in run(draw(tmp_path / "few", classes=4))
    assert not Path("few_search.yaml").exists()
    assert read_experiment(Path("few.yaml")).experiment.protocol.selection == "last"


def test_what_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "0 sub-folders, 0 of them with images. Expected at least 2" in refused(empty)
    assert "no such folder" in refused(tmp_path / "nothing")
    assert "1 of them with images. Expected at least 2" in refused(draw(tmp_path / "one", 1))
    assert "the training side has 1 class" in refused(draw(tmp_path / "two", 2))
    broken = draw(tmp_path / "broken", 6)
    for file in broken.rglob("*.png"):
        file.write_bytes(b"no image")  # equal files, too: the same error page for each
    assert "no image of 18 can be read, first c0/0.png: " in refused(broken)
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    assert "0 columns named 'path'" in refused(tmp_path / "bad.csv")


def test_an_image_in_two_classes_is_refused(tmp_path: Path) -> None:
    images = draw(tmp_path / "photos", classes=8)
    (images / "c1" / "0.png").write_bytes((images / "c0" / "0.png").read_bytes())
    assert "the same image, in class 'c0' and in class 'c1'" in refused(images)


def test_a_folder_that_cannot_be_written_is_said_before_images_are_decoded(tmp_path: Path) -> None:
    images = draw(tmp_path / "photos", classes=8)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == tmp_path.owner() and folder != Path("/tmp"):
            os.chmod(folder, folder.stat().st_mode | 0o055)
    with without_rights():
        assert "cannot be made or written (Permission denied)" in refused(images)
