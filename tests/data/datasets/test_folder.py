"""A user's own images in class folders."""

import os
import re
import socket
from pathlib import Path

import numpy as np
import pytest
from pillow_heif import register_heif_opener

from dmlray.data.cache.formats import SUFFIXES
from dmlray.data.datasets import folder, registry
from dmlray.data.datasets.train_test import Split
from dmlray.data.datasets.verify import verify
from dmlray.errors import ConfigError, DataError
from tests.data.images import picture
from tests.data.rights import without_rights

LEGAL = ("a/1.png", "a/2.png", "b/1.png", "b/2.png")
register_heif_opener()  # to write HEIC
GIVEN = ("train/a/1.png", "train/a/2.png", "test/b/1.png", "test/b/2.png")


def save(root: Path, *names: str) -> None:
    """Save a different image under each name."""
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(8, 8, seed).save(path)


def test_lists_images_by_class_then_name(tmp_path: Path) -> None:
    save(tmp_path, "b/2.png", "b/10.JPG", "a/x.WebP", "a/1.png", "c/1.jpeg", "c/0.PNG")
    dataset = registry.load("folder", tmp_path)
    assert dataset.classes == ("a", "b", "c")
    assert dataset.files == ("a/1.png", "a/x.WebP", "b/10.JPG", "b/2.png", "c/0.PNG", "c/1.jpeg")
    np.testing.assert_array_equal(dataset.labels, [0, 0, 1, 1, 2, 2])
    assert dataset.labels.dtype == np.int64
    assert dataset.train_classes == 2  # half of three, rounded up
    assert dataset.remarks == ()


def test_numbered_classes_are_halved_by_number(tmp_path: Path) -> None:
    save(tmp_path, *(f"{number}/{image}.png" for number in (10, 2, 1, 9) for image in "ab"))
    dataset = registry.load("folder", tmp_path)
    assert dataset.classes == ("1", "2", "9", "10")
    assert dataset.train_classes == 2


def test_passes_over_hidden_and_foreign_files(tmp_path: Path) -> None:
    seen = ("a/1.png", "b/1.png", "b/2.png")
    save(tmp_path, *seen, "a/.2.png", ".hidden/1.png", "loose.png")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "a" / "folder.png").mkdir()
    (tmp_path / "empty").mkdir()
    dataset = registry.load("folder", tmp_path)
    assert dataset.files == seen
    assert dataset.remarks[0] == (
        "skipped: 1 file in no known image format (.txt 1), 2 hidden files,"
        " 1 image outside of class folders, 1 folder without images ('empty')"
    )


def test_fingerprint_follows_names_classes_and_sizes(tmp_path: Path) -> None:
    root = tmp_path / "here"
    save(root, "a/0.png", "a/1.png", "b/0.png", "b/1.png")

    def fingerprint() -> str:
        return registry.load("folder", root).fingerprint

    first = fingerprint()
    assert first == fingerprint()
    moved = root.rename(tmp_path / "elsewhere")
    assert registry.load("folder", moved).fingerprint == first
    moved.rename(root)
    (root / "a" / "0.png").rename(root / "a" / "9.png")
    renamed = fingerprint()
    with open(root / "b" / "0.png", "ab") as file:
        file.write(b"!")
    assert len({first, renamed, fingerprint()}) == 3


def test_file_that_vanished_is_named(tmp_path: Path) -> None:
    save(tmp_path, "a/0.png", "a/1.png", "b/0.png", "b/1.png")
    dataset = registry.load("folder", tmp_path)
    (tmp_path / "b" / "1.png").unlink()
    with pytest.raises(DataError, match=r"b/1\.png: cannot be read"):
        _ = dataset.fingerprint


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "0 sub-folders, 0 of them with"),
        (["a/1.png"], "1 sub-folders, 1 of them with"),
    ],
)
def test_fewer_than_two_classes_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    save(tmp_path, *names)
    with pytest.raises(DataError, match=f"^{re.escape(str(tmp_path))}: {message}"):
        registry.load("folder", tmp_path)


def test_given_sides_are_kept(tmp_path: Path) -> None:
    save(tmp_path, "train/z/1.png", "train/y/1.png", "test/a/1.png", "test/a/2.png")
    dataset = folder.load(tmp_path, "given")
    assert dataset.files == ("train/y/1.png", "train/z/1.png", "test/a/1.png", "test/a/2.png")
    assert dataset.classes == ("y", "z", "a")
    assert dataset.train_classes == 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/a/1.png", "train/a/2.png"], "test: no such folder"),
        (["test/a/1.png", "test/a/2.png"], "train: no such folder"),
        (["train/a/1.png", "test/1.png"], "test: no sub-folder with"),
    ],
)
def test_given_needs_both_sides(tmp_path: Path, names: list[str], message: str) -> None:
    save(tmp_path, *names)
    with pytest.raises(DataError, match=f"^{re.escape(str(tmp_path))}/{message}.*Expected"):
        folder.load(tmp_path, "given")


def test_lone_test_image_and_copies_are_named_by_their_files(tmp_path: Path) -> None:
    save(tmp_path, "a/0.png", "a/1.png", "b/0.png")
    with pytest.raises(DataError, match=r"/b/0\.png: the only image of test class 'b'"):
        folder.load(tmp_path)
    (tmp_path / "b" / "1.png").write_bytes((tmp_path / "a" / "1.png").read_bytes())
    with pytest.raises(DataError, match=r"/a/1\.png and .*/b/1\.png: the same image"):
        folder.load(tmp_path)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        registry.load("folder", tmp_path / "nowhere")


def test_root_must_be_given() -> None:
    with pytest.raises(ConfigError, match=r"^data\.root: .*needs a folder"):
        registry.load("folder", None)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        registry.load("cup", None)
    assert caught.value.source == "data.name"
    assert str(caught.value).endswith(f"Allowed: {', '.join(registry.names())}.")


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_every_raster_format_is_listed_and_opens(tmp_path: Path, suffix: str) -> None:
    names = [
        f"{label}/{n}{end}" for label in "ab" for n, end in enumerate([suffix, suffix.upper()])
    ]
    save(tmp_path, *names)
    dataset = folder.load(tmp_path)
    assert dataset.files == tuple(names)
    assert not dataset.remarks
    assert verify("folder", tmp_path).is_sound


@pytest.mark.parametrize("ending", ["", " at 10.20.30", ".jpg?width=300", ". Smith 7"])
def test_an_image_without_a_suffix_is_known_by_its_content(tmp_path: Path, ending: str) -> None:
    save(tmp_path, *LEGAL)
    for name in LEGAL:
        (tmp_path / name).rename(tmp_path / f"{name[:-4]}{ending}")
    (tmp_path / "a" / "LICENSE").write_text("BM25: all rights reserved")
    dataset = folder.load(tmp_path)
    assert dataset.files == tuple(f"{name[:-4]}{ending}" for name in LEGAL)
    assert verify("folder", tmp_path).is_sound
    assert dataset.remarks == ("skipped: 1 file in no known image format (no suffix 1)",)


def test_folders_are_walked_down(tmp_path: Path) -> None:
    names = ("a/1.png", "a/x/1.png", "a/x/y/z/1.png", "b/2.png", "b/deep/er/2.png", "c/w/3.png")
    save(tmp_path, *names, "c/w/.hidden/1.png", "c/.w/1.png", "c/v/3.png", "@eaDir/c/1.png")
    save(tmp_path, "b/@eaDir/2.png/thumb.png", "__MACOSX/b/2.png")
    dataset = folder.load(tmp_path)
    assert dataset.files == (*names[:-1], "c/v/3.png", "c/w/3.png")
    assert dataset.classes == ("a", "b", "c")
    assert dataset.remarks == ("skipped: 2 hidden files",)


def test_links_are_followed_and_each_folder_is_walked_once(tmp_path: Path) -> None:
    root = tmp_path / "root"
    save(tmp_path, *(f"root/{name}" for name in LEGAL), "far/5.png", "far/more/6.png", "7.png")
    (root / "a" / "far").symlink_to(tmp_path / "far")
    (root / "a" / "again").symlink_to(tmp_path / "far" / "more")
    (root / "a" / "loop").symlink_to(root / "a")
    (tmp_path / "far" / "up").symlink_to(root)
    (root / "b" / "7.png").symlink_to(tmp_path / "7.png")
    dataset = folder.load(root)
    assert len(set(dataset.files)) == 7
    assert {os.path.realpath(root / file) for file in dataset.files} == {
        str(path) for path in tmp_path.glob("**/*.png") if not path.is_symlink()
    }
    assert not dataset.remarks


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("b/3.png", "nowhere.png"),
        ("b/3", "nowhere"),
        ("b/x/3.JPG", "../../nowhere/3.JPG"),
        ("b/3.png", "1.png/3.png"),
        ("b/3.png", "3.png"),
        ("c", "nowhere"),
    ],
    ids=["file", "no suffix", "below", "through a file", "circle", "class"],
)
def test_a_link_to_nothing_is_a_missing_image(tmp_path: Path, link: str, target: str) -> None:
    save(tmp_path, *LEGAL)
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(target)
    missing = f"1 of 5 listed images are missing, first {link} (a broken link)"
    with pytest.raises(DataError) as caught:
        folder.load(tmp_path)
    assert missing in str(caught.value)
    found = verify("folder", tmp_path)
    assert (*found.missing, *found.unreadable) == (link,)
    assert not found.is_sound


def test_links_to_nothing_that_are_no_images_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path, *LEGAL)
    (tmp_path / "a" / "notes.txt").symlink_to("nowhere")
    (remark,) = folder.load(tmp_path).remarks
    assert remark == "skipped: 1 file in no known image format (.txt 1)"


def test_one_remark_counts_all_that_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, *LEGAL, "loose.png", "other.jpg")
    others = (
        "a/1.svg",
        "a/1.jxl",
        "a/x/2.jxl",
        "b/3.JXL",
        "b/Thumbs.db",
        "README.md",
        "a/1.xml",
    )
    for name in (*others, "c/1.jxl", "d/1.jxl", "e/1.jxl", ".DS_Store", "a/._1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "f").mkdir()
    os.mkfifo(tmp_path / "a" / "pipe.png")
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as service:
        service.bind("b/socket.png")
    dataset = folder.load(tmp_path)
    assert dataset.files == LEGAL
    (remark,) = dataset.remarks
    assert remark.startswith(
        "skipped: 12 files in no known image format (.jxl 6, pipe or device 2, "
    )
    assert remark.endswith(
        "and 3 more), 2 hidden files, 2 images outside of class folders, 4 folders without images"
        " ('c', 'd', 'e' and 1 more)"
    )


@pytest.mark.parametrize("names", [("Train", "TEST"), ("TRAIN", "test"), ("train", "Test")])
def test_sides_may_have_capital_letters(tmp_path: Path, names: tuple[str, str]) -> None:
    train, test = names
    save(tmp_path, f"{train}/a/1.png", f"{train}/a/x/2.png", f"{test}/b/1.png", f"{test}/b/2.png")
    dataset = folder.load(tmp_path, "given")
    assert (dataset.classes, dataset.train_classes, len(dataset)) == (("a", "b"), 1, 4)
    with pytest.raises(DataError, match=r"named like parts of a split.*data\.split=given"):
        folder.load(tmp_path)


@pytest.mark.parametrize("name", ["val", "valid", "validation", "VAL", "extra"])
def test_what_a_given_split_leaves_out_is_remarked(tmp_path: Path, name: str) -> None:
    save(tmp_path, *GIVEN, *(f"{name}/{image}.png" for image in ("b/7", "c/8", "c/9")))
    dataset = folder.load(tmp_path, "given")
    assert dataset.files == GIVEN
    assert dataset.remarks == (f"{name}/: 3 images of 2 classes are not used",)


@pytest.mark.parametrize("name", ["val", "valid", "Validation"])
def test_without_a_test_side_validation_is_tested(tmp_path: Path, name: str) -> None:
    save(tmp_path, "train/a/1.png", "train/a/2.png", f"{name}/b/1.png", f"{name}/b/2.png")
    dataset = folder.load(tmp_path, "given")
    assert (dataset.classes, dataset.train_classes) == (("a", "b"), 1)
    assert dataset.remarks == (f"{name}/ is used as the test set, as there is no other",)


@pytest.mark.parametrize(
    "names",
    [
        GIVEN,
        ("train/a/1.png", "train/b/2.png", "val/a/1.png"),
        (*GIVEN, "val/c/1.png"),
        (*GIVEN, "extra/c/1.png", "masks/1.png"),
        ("train/1.png", "train/2.png", "test/1.png", "test/2.png"),
    ],
)
def test_sides_do_not_pass_for_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    save(tmp_path, *names)
    with pytest.raises(DataError, match=r"named like parts of a split.*data\.split=given"):
        folder.load(tmp_path)


@pytest.mark.parametrize("extra", [["val/1.png"], ["val/x/1.png"], ["train/1.png", "test/2.png"]])
def test_a_class_may_be_named_as_a_side(tmp_path: Path, extra: list[str]) -> None:
    names = sorted([*LEGAL, *extra, *(f"{name[:-4]}_.png" for name in extra)])
    save(tmp_path, *names)
    assert sorted(folder.load(tmp_path).files) == names


def test_a_root_one_level_too_high_is_named(tmp_path: Path) -> None:
    save(tmp_path, *(f"photos/{name}" for name in LEGAL))
    with pytest.raises(DataError, match=r"1 sub-folders.*, as .*/photos may have\.$"):
        folder.load(tmp_path)


def test_a_refusal_says_what_was_passed_over(tmp_path: Path) -> None:
    save(tmp_path, "1.png", "2.png")
    with pytest.raises(DataError, match=r"0 sub-folders.* 2 images outside of class folders"):
        folder.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "mode"),
    [("c", 0), ("c", 0o444), ("c", 0o111), ("c/x", 0), ("c/x", 0o444), ("a/README", 0)],
)
@pytest.mark.parametrize("split", ["classes", "given"])
def test_what_cannot_be_read_is_one_sentence(
    shared: Path, name: str, mode: int, split: Split
) -> None:
    save(shared, *LEGAL, "c/1.png", "c/2.png", "c/x/3.png")
    if split == "given":
        for side in ("train", "test"):
            (shared / side).mkdir()
        for label, side in zip("abc", ("test", "train", "test"), strict=True):
            (shared / label).rename(shared / side / label)
        name = f"test/{name}"
    path = shared / name
    if path.name == "README":
        path.write_text("text")
    path.chmod(mode)
    with without_rights(), pytest.raises(DataError) as caught:
        folder.load(shared, split)
    assert str(caught.value) == f"{path}: cannot be read: Permission denied."


@pytest.mark.parametrize("mode", [0, 0o444])
def test_a_root_that_cannot_be_entered_is_named(shared: Path, mode: int) -> None:
    shared.chmod(mode)
    with without_rights(), pytest.raises(DataError, match="cannot be listed: Permission denied"):
        folder.load(shared)


def test_a_root_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").touch()
    with pytest.raises(DataError, match=r"photos\.zip: cannot be listed: Not a directory"):
        folder.load(tmp_path / "photos.zip")


def test_verify_names_one_of_each_fault_in_one_run(tmp_path: Path) -> None:
    save(tmp_path, *LEGAL, "c/1.png", "d/1.png", "d/2.png")
    (tmp_path / "d" / "copy.png").write_bytes((tmp_path / "a" / "1.png").read_bytes())
    (tmp_path / "d" / "gone.png").symlink_to("nowhere")
    (tmp_path / "d" / "damaged.png").write_text("no image")
    (tmp_path / "d" / "notes.txt").write_text("no image")
    found = verify("folder", tmp_path)
    assert (found.missing, found.unreadable) == (("d/gone.png",), ("d/damaged.png",))
    assert found.notes == ("skipped: 1 file in no known image format (.txt 1)",)
    problems = " ".join(found.problems)
    for wanted in ("the only image of test class 'c'", "d/copy.png: the same image"):
        assert wanted in problems


def test_all_classes_train_also_with_one_image_each(tmp_path: Path) -> None:
    save(tmp_path, *LEGAL, "c/1.png")
    dataset = registry.load("folder", tmp_path, "all")
    assert (dataset.classes, dataset.train_classes) == (("a", "b", "c"), 3)
    assert dataset.remarks == ("1 of 3 training classes have one image, never a query",)
    assert dataset.files == (*LEGAL, "c/1.png")


def test_all_classes_train_from_both_sides_of_a_split(tmp_path: Path) -> None:
    save(tmp_path, *GIVEN, "test/a/3.png", "test/a/4.png", "train/c/1.png", "train/c/2.png")
    dataset = registry.load("folder", tmp_path, "all")
    assert (dataset.classes, dataset.train_classes) == (("a", "b", "c"), 3)
    rows = [dataset.classes[label] for label in dataset.labels]
    assert rows == [file.split("/")[1] for file in dataset.files]
    assert dataset.files[:4] == ("test/a/3.png", "test/a/4.png", "train/a/1.png", "train/a/2.png")
    assert len(dataset) == 8
