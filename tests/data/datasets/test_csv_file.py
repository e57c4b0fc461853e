"""Images that a CSV file lists."""

import os
import socket
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from dmlray.data.datasets import csv_file, role_checks
from dmlray.data.datasets.train_test import Split
from dmlray.data.datasets.verify import verify
from dmlray.errors import ConfigError, DataError
from tests.data.images import picture
from tests.data.rights import without_rights

NAMES = ("a1.png", "a2.png", "b1.png", "b2.png", "sub/c, 1.png", "sub/ü2.png")
PLAIN = "path,label\na1.png,a\na2.png,a\nb1.png,b\nb2.png,b\n"
GIVEN = "path,label,split\na1.png,a,train\na2.png,a,train\nb1.png,b,test\nb2.png,b,test\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A CSV file yet to be written, beside six different images."""
    (tmp_path / "sub").mkdir()
    for seed, name in enumerate(NAMES):
        picture(8, 8, seed).save(tmp_path / name)
    return tmp_path / "images.csv"


def write(source: Path, text: str) -> Path:
    source.write_bytes(text.encode())
    return source


def refused(source: Path, split: Split = "classes") -> str:
    with pytest.raises(DataError) as caught:
        csv_file.load(source, split)
    message = str(caught.value)
    assert message.startswith(f"{source}: ")
    assert "\n" not in message
    return message.removeprefix(f"{source}: ")


def test_first_half_of_the_classes_trains(source: Path) -> None:
    dataset = csv_file.load(write(source, PLAIN))
    assert (dataset.name, dataset.root) == ("csv", source.parent)
    assert dataset.files == ("a1.png", "a2.png", "b1.png", "b2.png")
    assert dataset.classes == ("a", "b")
    assert dataset.train_classes == 1
    np.testing.assert_array_equal(dataset.labels, [0, 0, 1, 1])
    assert dataset.remarks == ()


def test_labels_are_text_in_the_order_of_their_numbers(source: Path) -> None:
    dataset = csv_file.load(
        write(source, "path,label\na1.png,10\na2.png,10\nb1.png,9\nb2.png,009\n").resolve(),
        "classes",
    )
    assert dataset.classes == ("009", "9", "10")


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.rstrip("\n"),
        "\n\n" + PLAIN.replace("\n", "\n\n") + " ,\n",
        PLAIN.replace(",", " , ").replace("a1", " a1"),
        'path,label\n "a1.png" , "a"\n"a2.png",a\nb1.png,"b"\n./sub/../b2.png, b \n',
        "note,label,more,path\n1,a,,a1.png\n2,a,,a2.png\n,b,,b1.png\n,b,,b2.png\n",
    ],
    ids=["BOM", "CRLF", "CR", "no end", "blank lines", "spaces", "quotes", "columns"],
)
def test_forms_of_csv_that_people_have_are_read_alike(source: Path, text: str) -> None:
    plain = csv_file.load(write(source, PLAIN))
    dataset = csv_file.load(write(source, text))
    assert (dataset.files, dataset.classes) == (plain.files, plain.classes)
    assert dataset.fingerprint == plain.fingerprint


def test_commas_unicode_and_absolute_paths(source: Path) -> None:
    listed = (
        f'path,label\n"sub/c, 1.png",雪\nsub/ü2.png,雪\n{source.parent}/a1.png,Ä""x\na2.png,Ä""x\n'
    )
    dataset = csv_file.load(write(source, listed))
    assert dataset.classes == ('Ä""x', "雪")
    assert dataset.files == (f"{source.parent}/a1.png", "a2.png", "sub/c, 1.png", "sub/ü2.png")
    assert all((dataset.root / file).is_file() for file in dataset.files)


def test_paths_start_in_the_folder_of_the_file(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(source, PLAIN)
    monkeypatch.chdir(tmp_path / "sub")
    assert csv_file.load(Path("../images.csv")).files == csv_file.load(source).files


def test_given_split_is_kept(source: Path) -> None:
    dataset = csv_file.load(write(source, GIVEN.replace("a,train", "z,train")), "given")
    assert dataset.classes == ("z", "b")
    assert dataset.train_classes == 1
    assert dataset.remarks == ()


def test_split_column_that_is_not_used_is_remarked(source: Path) -> None:
    dataset = csv_file.load(write(source, GIVEN.replace("train", "whatever")))
    assert dataset.classes == ("a", "b")
    (remark,) = dataset.remarks
    assert remark.startswith("the file's column split is not used")
    assert "split=given" in remark


def test_closed_set_is_remarked(source: Path) -> None:
    dataset = csv_file.load(write(source, GIVEN.replace(",b,", ",a,")), "given")
    assert dataset.classes == ("a", "a")
    assert dataset.remarks == ("closed set: 1 of 1 test classes also train",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: 0 columns named 'path'. Expected a header of path, label"),
        ("a1.png,a\na2.png,a\n", "line 1: 0 columns named 'path'"),
        ("\npath;label\na1.png;a\n", "line 2: 0 columns named 'path', ';' separates it"),
        ("path\tlabel\na1.png\ta\n", "line 1: 0 columns named 'path', '\\t' separates it"),
        ("Path,path,PATH,label,Label,LABEL\n", "0 classes"),
        ("Path,PATH,label\n", "line 1: 2 columns named 'path'"),
        ("path,label,label\n", "line 1: 2 columns named 'label'"),
        ("path,label\n", "0 classes to train and 0 to test"),
        ("path,label\na1.png,a\na2.png,a\n", "1 classes to train and 0 to test"),
        ("path,label\na1.png,a\n\na2.png, \n", "line 4: label is empty"),
        ('path,label\na1.png,a\n"",a\n', "line 3: path is empty"),
        ("path,label\na1.png\n", "line 2: 1 values for 2 columns"),
        ("path,label\nsub/c, 1.png,c\n", "line 2: 3 values for 2 columns"),
        ('path,label\n"a1.png,a\na2.png,a\n', "line 2: a quote is open"),
        (f"path,label\na1.png,{'a' * 200_000}\n", "line 2: field larger than field limit"),
        (PLAIN + "./sub/../a2.png,b\n", "line 6: a2.png is on line 3 already"),
        (PLAIN + "x.png,b\ny.png,b\n", "line 6: there is no file"),
        (PLAIN + "sub,b\n", "line 6: there is no file"),
        (PLAIN + "a\0b,b\n", "line 6: "),
        (PLAIN + f"{'long' * 2000}.png,b\n", "line 6: there is no file"),
        ("path,label\na1.png,a\na2.png,a\nb1.png,b\n", "line 4 (b1.png): the only image of"),
    ],
)
def test_damage_is_told_with_its_line(source: Path, text: str, message: str) -> None:
    assert refused(write(source, text)).startswith(message)


def test_missing_images_are_counted_and_the_first_is_named(source: Path) -> None:
    message = refused(write(source, PLAIN + "x.png,b\ny.png,b\n"))
    assert f"{source.parent}/x.png; 2 of 6 are missing" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PLAIN, "line 1: 0 columns named 'split'. Expected a header of path, label, split"),
        (GIVEN.replace("test", "dev"), "line 4: split 'dev' is not allowed. Allowed: train, test"),
        (GIVEN.replace(",test", ","), "line 4: split is empty"),
        (GIVEN.replace("test", "train"), "2 classes to train and 0 to test"),
        (GIVEN.replace("train", "test"), "0 classes to train and 2 to test"),
        (GIVEN.replace("b2.png,b", "b2.png,c"), "line 4 (b1.png): the only image of"),
    ],
)
def test_impossible_given_splits_are_refused(source: Path, text: str, message: str) -> None:
    assert refused(write(source, text), "given").startswith(message)


def test_the_same_image_on_both_sides_is_told_with_both_lines(source: Path) -> None:
    (source.parent / "b2.png").write_bytes((source.parent / "a1.png").read_bytes())
    message = refused(write(source, GIVEN), "given")
    assert message.startswith(f"line 2 (a1.png) and {source}: line 5 (b2.png): the same image")


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_other_encodings_are_told(source: Path, encoding: str) -> None:
    source.write_bytes(PLAIN.replace("a2.png,a", "a2.png,ä").encode(encoding))
    line = {"utf-16": 1, "latin-1": 3}[encoding]
    assert refused(source).startswith(f"line {line}: not UTF-8")


@pytest.mark.parametrize("split", ["classes", "given"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nothing", "cannot be read: No such file"),
        ("folder", "cannot be read: Is a directory"),
        ("pipe", "cannot be read: Is a pipe or a device"),
        ("socket", "cannot be read: "),
        ("device", "cannot be read: Is a pipe or a device"),
        ("huge", "cannot be read: has 1,048,576 MiB. Allowed: 256 MiB"),
        ("circle", "cannot be read: Too many levels of symbolic links"),
    ],
)
def test_what_is_no_csv_file_is_not_read(
    source: Path, monkeypatch: pytest.MonkeyPatch, kind: str, message: str, split: Split
) -> None:
    monkeypatch.chdir(source.parent)  # the path of a socket is short
    if kind == "folder":
        source.mkdir()
    elif kind == "pipe":
        os.mkfifo(source)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as service:
            service.bind(source.name)
    elif kind in ("device", "circle"):
        source.symlink_to("/dev/zero" if kind == "device" else source.name)
    elif kind == "huge":
        source.touch()
        os.truncate(source, 1 << 40)
    problem = refused(source, split)
    assert problem.startswith(message)
    assert problem.endswith("Expected a CSV file.")


@pytest.mark.parametrize(
    ("kind", "reason", "gone"),
    [
        ("nothing", ";", True),
        ("link", " (a broken link);", True),
        ("folder", " (a folder);", False),
        ("pipe", " (a pipe or a device);", False),
        ("device", " (a pipe or a device);", False),
        ("circle", " (Too many levels of symbolic links);", False),
    ],
)
def test_what_is_no_image_file_is_counted_and_never_opened(
    source: Path, kind: str, reason: str, gone: bool
) -> None:
    path = source.parent / "x.png"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind != "nothing":
        targets = {"link": "nowhere.png", "device": "/dev/zero", "circle": "x.png"}
        path.symlink_to(targets[kind])
    problem = refused(write(source, PLAIN + "x.png,b\n"))
    assert problem.startswith(f"line 6: there is no file {path}{reason} 1 of 5 are missing.")
    found = verify("csv", source)
    assert not found.is_sound
    assert not found.unreadable
    assert found.missing == (("x.png",) if gone else ())
    assert gone or problem in " ".join(found.problems)


@pytest.mark.parametrize("mode", [0, 0o444])
def test_what_cannot_be_read_is_named(shared: Path, mode: int) -> None:
    for seed, name in enumerate(NAMES[:4]):
        picture(8, 8, seed).save(shared / name)
    (shared / "sub").mkdir()
    picture(8, 8, 9).save(shared / "sub" / "x.png")
    source = write(shared / "images.csv", PLAIN + "sub/x.png,b\n")
    (shared / "sub").chmod(mode)
    with without_rights():
        message = refused(source)
    assert message.startswith(f"line 6: there is no file {shared}/sub/x.png (Permission denied);")
    source.chmod(0)
    with without_rights():
        assert refused(source) == "cannot be read: Permission denied. Expected a CSV file."


def test_a_path_on_a_drive_of_windows_is_named(source: Path) -> None:
    problem = refused(write(source, PLAIN + "C:\\photos\\1.png,b\n"))
    assert "(a path on a Windows drive); 1 of 5 are missing" in problem


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Ärger/é1.png") for form in ("NFC", "NFD"))
MIXED = COMPOSED.partition("/")[0] + "/" + DECOMPOSED.partition("/")[2]


@pytest.mark.parametrize("written", [COMPOSED, DECOMPOSED, MIXED])
@pytest.mark.parametrize("stored", [COMPOSED, DECOMPOSED, MIXED])
@pytest.mark.parametrize("absolute", [False, True])
def test_paths_in_another_unicode_form_find_their_files(
    source: Path, written: str, stored: str, absolute: bool
) -> None:
    (source.parent / stored).parent.mkdir()
    picture(9, 9, 7).save(source.parent / stored)
    start = f"{source.parent}/" if absolute else ""
    dataset = csv_file.load(write(source, f"{PLAIN}{start}{written},b\n"))
    assert f"{start}{stored}" in dataset.files


def test_the_unicode_form_that_is_written_comes_first(source: Path) -> None:
    names = [unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD")]
    for seed, name in enumerate(names):
        picture(9, 9, 7 + seed).save(source.parent / name)
    dataset = csv_file.load(write(source, PLAIN + "".join(f"{name},b\n" for name in names)))
    assert set(names) < set(dataset.files)
    both = "é" + unicodedata.normalize("NFD", "é")
    for form in ("NFC", "NFD"):
        picture(9, 9, 3).save(source.parent / f"{unicodedata.normalize(form, both)}.png")
    problem = refused(write(source, f"{PLAIN}{both}.png,b\n"))
    assert problem.startswith(f"line 6: {both}.png may be 2 files: ")


def test_backslashes_separate_folders_unless_a_name_has_them(source: Path) -> None:
    listed = PLAIN + 'sub\\..\\sub\\ü2.png,b\n".\\sub\\c, 1.png",b\n'
    dataset = csv_file.load(write(source, listed))
    assert dataset.files[2:] == ("b1.png", "b2.png", "sub/c, 1.png", "sub/ü2.png")
    picture(9, 9, 7).save(source.parent / "sub\\x.png")
    picture(9, 9, 8).save(source.parent / "sub" / "x.png")
    dataset = csv_file.load(write(source, PLAIN + "sub\\x.png,b\nsub/x.png,b\n"))
    assert dataset.files[2:] == ("b1.png", "b2.png", "sub/x.png", "sub\\x.png")


def test_one_file_in_two_spellings_is_one_file(source: Path) -> None:
    problem = refused(write(source, PLAIN + "sub/ü2.png,b\nsub\\ü2.png,b\n"))
    assert problem.startswith("line 7: sub/ü2.png is on line 6 already")


@pytest.mark.parametrize(
    ("train", "test"), [("Train", "TEST"), ("TRAIN", "Test"), (" train ", " Test ")]
)
def test_split_values_may_have_capital_letters(source: Path, train: str, test: str) -> None:
    text = GIVEN.replace("train", train).replace("test", test)
    dataset = csv_file.load(write(source, text), "given")
    assert (dataset.classes, dataset.train_classes, dataset.remarks) == (("a", "b"), 1, ())


@pytest.mark.parametrize(
    "header", ["Path,Label,Split", "PATH,LABEL,SPLIT", ' "Path" , Label ,split ']
)
def test_columns_may_have_capital_letters(source: Path, header: str) -> None:
    text = GIVEN.replace("path,label,split", header)
    assert csv_file.load(write(source, text), "given").train_classes == 1
    (remark,) = csv_file.load(source).remarks
    assert remark.startswith("the file's column split is not used")


def test_a_column_as_written_comes_before_one_in_capital_letters(source: Path) -> None:
    text = "Path,path,label\nx,a1.png,a\nx,a2.png,a\nx,b1.png,b\nx,b2.png,b\n"
    assert csv_file.load(write(source, text)).files == ("a1.png", "a2.png", "b1.png", "b2.png")


@pytest.mark.parametrize("value", ["val", "valid", "validation", "Validation"])
def test_validation_images_are_named_or_tested(source: Path, value: str) -> None:
    more = f"sub/ü2.png,c,{value}\n"
    dataset = csv_file.load(write(source, GIVEN + more), "given")
    assert dataset.classes == ("a", "b")
    assert dataset.remarks == (f"split {value!r}: 1 images of 1 classes are not used",)
    dataset = csv_file.load(write(source, GIVEN.replace("test", value)), "given")
    assert (dataset.classes, dataset.train_classes) == (("a", "b"), 1)
    assert dataset.remarks == (f"split {value!r} is used as the test set, as there is no other",)


@pytest.mark.parametrize("split", ["classes", "given"])
@pytest.mark.parametrize("columns", [["is_query"], ["is_gallery"], ["Is_Query", "is_gallery"]])
def test_columns_of_other_libraries_are_remarked(
    source: Path, split: Split, columns: list[str]
) -> None:
    lines = [f"{line},{','.join('1' for _ in columns)}" for line in GIVEN.splitlines()[1:]]
    text = "\n".join([f"path,label,split,{','.join(columns)}", *lines])
    remarks = csv_file.load(write(source, text), split).remarks
    (remark,) = [remark for remark in remarks if "a column role is" in remark]
    assert remark.startswith(f"the file's columns {', '.join(columns)} are not used")


def test_root_must_be_given() -> None:
    with pytest.raises(ConfigError, match=r"^data\.root: .*needs a CSV file"):
        csv_file.load(None)


def test_all_classes_train_whatever_the_split_says(source: Path) -> None:
    text = "path,label,split\na1.png,b,test\na2.png,a,train\nb1.png,a,test\nb2.png,b,other\n"
    dataset = csv_file.load(write(source, text), "all")
    assert dataset.classes == ("a", "b")
    assert dataset.files == ("a2.png", "b1.png", "a1.png", "b2.png")
    assert dataset.train_classes == 2
    assert dataset.remarks == ()


def test_all_classes_train_with_their_roles(source: Path) -> None:
    text = "path,label,role\na1.png,a,query\na2.png,a,gallery\nb1.png,b,both\nb2.png,b,both\n"
    dataset = csv_file.load(write(source, text), "all")
    assert dataset.roles is not None
    assert dataset.roles.queries.tolist() == [True, False, True, True]
    assert role_checks.remarks(dataset) == []
