"""Valid, malicious, damaged and partly unpacked archives."""

import io
import os
import random
import signal
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from dmlray.data.archives import archive_reader, extract
from dmlray.data.archives.extract import extract_or_copy, unpack
from dmlray.errors import DataError

Disk = namedtuple("Disk", "total used free")
CUB = {
    "CUB_200_2011/images.txt": b"1 001.Albatross/a.jpg\n",
    "CUB_200_2011/images/001.Albatross/a.jpg": random.Random(0).randbytes(300_000),
    "CUB_200_2011/images/002.Auklet/b.jpg": b"",
    "attributes.txt": b"1 has_bill_shape\n",
}
FORMATS = ("tar", "tar.gz", "tar.xz", "tar.bz2", "zip")


def pack(path: Path, files: dict[str, bytes], form: str) -> Path:
    """Write an archive with folder entries and unusual permissions."""
    if form == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
            zipped.mkdir("CUB_200_2011") if hasattr(zipped, "mkdir") else None
            for name, content in files.items():
                zipped.writestr(name, content)
        return path
    mode: Any = f"w:{form.partition('.')[2]}"
    with tarfile.open(path, mode) as tar:
        tar.addfile(member("CUB_200_2011", type=tarfile.DIRTYPE, mode=0o500))
        for name, content in files.items():
            tar.addfile(member(name, size=len(content), mode=0o4000), io.BytesIO(content))
    return path


def member(name: str, **values: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in values.items():
        setattr(info, key, value)
    return info


def tar_of(path: Path, *infos: tarfile.TarInfo) -> Path:
    """Write a tar of arbitrary headers, each with a little content."""
    with path.open("wb") as file:
        for info in (member("good.txt"), *infos):
            file.write(info.tobuf(tarfile.GNU_FORMAT))
            file.write(bytes(min(info.size, 512)))
        file.write(bytes(2 * 512))
    return path


def unpacked(root: Path) -> dict[str, bytes]:
    """All files below the folder except the marker."""
    files = [path for path in root.rglob("*") if path.is_file() or path.is_symlink()]
    found = {path.relative_to(root).as_posix(): path.read_bytes() for path in files}
    return {name: content for name, content in found.items() if not name.endswith(".unpacked")}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.mark.parametrize("form", FORMATS)
def test_unpacks_by_content_and_not_by_name(tmp_path: Path, root: Path, form: str) -> None:
    steps: list[tuple[int, int]] = []
    file = pack(tmp_path / "download", CUB, form)
    assert unpack(file, root, lambda done, count: steps.append((done, count))) == root
    assert unpacked(root) == CUB
    assert steps == [(done, len(CUB)) for done in range(len(CUB) + 1)]


def test_permissions_are_those_of_any_new_file(tmp_path: Path, root: Path) -> None:
    unpack(pack(tmp_path / "a", CUB, "tar"), root)
    (own := tmp_path / "own").touch()
    assert (root / "attributes.txt").stat().st_mode == own.stat().st_mode
    assert (root / "CUB_200_2011").stat().st_mode == tmp_path.joinpath("data").stat().st_mode


@pytest.mark.parametrize("form", ["tar.gz", "zip"])
def test_second_call_opens_no_archive(
    tmp_path: Path, root: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = pack(tmp_path / "a", CUB, form)
    unpack(file, root)

    def never(*args: object) -> None:
        raise AssertionError("opened again")

    monkeypatch.setattr(extract, "opened", never)
    unpack(file, root)


@pytest.mark.parametrize("form", ["tar.gz", "zip"])
def test_only_what_is_missing_or_cut_short_is_written_again(
    tmp_path: Path, root: Path, form: str
) -> None:
    file = pack(tmp_path / "a", CUB, form)
    unpack(file, root)
    (root / "attributes.txt").unlink()
    (root / "CUB_200_2011/images/001.Albatross/a.jpg").write_bytes(b"cut")
    before = (root / "CUB_200_2011/images.txt").stat().st_ino
    steps: list[tuple[int, int]] = []
    unpack(file, root, lambda done, count: steps.append((done, count)))
    assert unpacked(root) == CUB
    assert (root / "CUB_200_2011/images.txt").stat().st_ino == before
    assert steps == [(2, 4), (3, 4), (4, 4)]


def test_another_archive_of_the_same_name_is_unpacked_too(tmp_path: Path, root: Path) -> None:
    unpack(pack(tmp_path / "a", {"x": b"old"}, "tar"), root)
    unpack(pack(tmp_path / "a", {"x": b"newer", "y": b"y"}, "zip"), root)
    assert unpacked(root) == {"x": b"newer", "y": b"y"}


@pytest.mark.parametrize("marker", ["", "[]", "{}", '{"archive": 1, "files": 2}', "\0"])
def test_nonsense_in_the_marker_is_no_obstacle(tmp_path: Path, root: Path, marker: str) -> None:
    file = pack(tmp_path / "a", CUB, "zip")
    root.mkdir()
    (root / ".a.unpacked").write_text(marker)
    unpack(file, root)
    assert unpacked(root) == CUB


def test_killed_process_leaves_whole_files_and_is_resumed(tmp_path: Path, root: Path) -> None:
    files = {f"images/{number}.jpg": bytes([number]) * 5000 for number in range(40)}
    file = pack(tmp_path / "a", files, "tar.gz")
    code = (
        "import os, sys; from pathlib import Path\n"
        "from dmlray.data.archives.extract import unpack\n"
        "stop = lambda done, count: os.kill(os.getpid(), 9) if done == 17 else None\n"
        "unpack(Path(sys.argv[1]), Path(sys.argv[2]), stop)"
    )
    killed = subprocess.run([sys.executable, "-c", code, file, root])
    assert killed.returncode == -signal.SIGKILL
    half = unpacked(root)
    assert len(half) == 17
    assert half.items() <= files.items()
    steps: list[tuple[int, int]] = []
    unpack(file, root, lambda done, count: steps.append((done, count)))
    assert steps[0] == (17, 40)
    assert unpacked(root) == files


def test_mistake_of_the_display_is_not_taken_for_damage(tmp_path: Path, root: Path) -> None:
    def progress(done: int, count: int) -> None:
        raise ValueError("display")

    with pytest.raises(ValueError, match="display"):
        unpack(pack(tmp_path / "a", CUB, "tar"), root, progress)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", "C:/x", "C:x", "..\\x", "\\x", "."])
@pytest.mark.parametrize("form", ["tar", "zip"])
def test_names_outside_are_refused_before_anything_is_written(
    tmp_path: Path, root: Path, form: str, name: str
) -> None:
    file = pack(tmp_path / "a", {"good": b"good", name: b"evil"}, form)
    with pytest.raises(DataError, match="is not a path inside the archive"):
        unpack(file, root)
    assert not root.exists()
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, root: Path, kind: bytes) -> None:
    file = tar_of(tmp_path / "a", member("evil", type=kind, linkname="good.txt"))
    if kind == tarfile.GNUTYPE_SPARSE:  # written as a plain header; a sparse one has a map in it
        raw = bytearray(file.read_bytes())
        header = raw[512:1024]
        header[386:410] = b"00000000000\0" * 2
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        raw[512:1024] = header
        file.write_bytes(raw)
    with pytest.raises(DataError, match="'evil' is a link or a device"):
        unpack(file, root)
    assert not root.exists()


def test_links_and_secrets_in_a_zip_are_refused(tmp_path: Path, root: Path) -> None:
    info = zipfile.ZipInfo("evil")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link", "w") as zipped:
        zipped.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="'evil' is a link or a device"):
        unpack(tmp_path / "link", root)
    raw = bytearray(pack(tmp_path / "secret", {"x": b"x"}, "zip").read_bytes())
    raw[raw.rindex(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "secret").write_bytes(raw)
    with pytest.raises(DataError, match="'x' is encrypted"):
        unpack(tmp_path / "secret", root)
    assert not root.exists()


@pytest.mark.parametrize("form", ["tar.gz", "tar.xz", "zip"])
def test_bomb_is_not_unpacked(
    tmp_path: Path, root: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_reader, "SMALL", 10**6)
    file = pack(tmp_path / "a", {"x": bytes(3 * 10**6)}, form)
    with pytest.raises(DataError, match=r"unpacks to more than 0\.0 GB"):
        unpack(file, root)
    assert not root.exists()


def test_claimed_sizes_are_refused_from_the_header_alone(tmp_path: Path, root: Path) -> None:
    file = tar_of(tmp_path / "a", member("huge", size=10**15))
    with pytest.raises(DataError, match="unpacks to more than"):
        unpack(file, root)


def test_header_of_any_length_is_not_read_into_memory(tmp_path: Path, root: Path) -> None:
    file = tar_of(
        tmp_path / "a", member("long", type=tarfile.XHDTYPE, size=2 * archive_reader.MAX_READ)
    )
    with pytest.raises(DataError, match="a header of"):
        unpack(file, root)


def test_too_many_members_are_refused(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_reader, "MAX_MEMBERS", 3)
    with pytest.raises(DataError, match="more than 3 members"):
        unpack(pack(tmp_path / "a", CUB, "tar"), root)


def test_full_disk_is_seen_before_anything_is_written(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: Disk(10**6, 0, 10**5))
    with pytest.raises(DataError, match=r"unpacking needs 0\.00 GB .* Free disk space"):
        unpack(pack(tmp_path / "a", CUB, "zip"), root)
    assert unpacked(root) == {}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9, 0.999])
def test_archive_cut_short_is_one_sentence_and_writes_nothing(
    tmp_path: Path, root: Path, form: str, kept: float
) -> None:
    file = pack(tmp_path / "a", CUB, form)
    # A tar is padded to 10 KiB: without the padding nothing is missing.
    size = file.stat().st_size - (10_240 if form == "tar" else 0)
    os.truncate(file, int(size * kept))
    with pytest.raises(DataError, match=r"is damaged or truncated, after \d files.*again") as e:
        unpack(file, root)
    assert "\n" not in str(e.value)
    assert not root.exists()


def test_plain_tar_cut_between_two_members_is_seen(tmp_path: Path, root: Path) -> None:
    file = tar_of(tmp_path / "a", member("x", size=512), member("y", size=512))
    os.truncate(file, 3 * 512)  # where the header of y would begin: `tarfile` reports no error
    with pytest.raises(DataError, match=r"after 2 files \(no end mark\)"):
        unpack(file, root)


@pytest.mark.parametrize("form", FORMATS)
def test_any_damage_is_a_data_error_or_none(tmp_path: Path, form: str) -> None:
    whole = pack(tmp_path / "a", CUB | {"x": b"y" * 3000}, form).read_bytes()
    dice = random.Random(form)
    for trial in range(40):
        raw = bytearray(whole)
        for _ in range(dice.choice([1, 3, 30])):
            raw[dice.choice([dice.randrange(len(raw)), dice.randrange(600)])] = dice.randrange(256)
        (tmp_path / "a").write_bytes(raw)
        root = tmp_path / str(trial)
        problem = ""
        try:
            unpack(tmp_path / "a", root)
        except DataError as error:
            problem = str(error)
        assert "\n" not in problem
        left = [path for path in root.rglob(".*") if not path.name.endswith(".unpacked")]
        assert not left  # no temporary file


def test_damage_inside_a_zip_names_the_member_and_keeps_the_rest(
    tmp_path: Path, root: Path
) -> None:
    raw = bytearray(pack(tmp_path / "a", CUB, "zip").read_bytes())
    raw[150_000] ^= 1
    (tmp_path / "a").write_bytes(raw)
    with pytest.raises(DataError, match=r"truncated, in 'CUB_200_2011/images/001.Albatross/a.jpg'"):
        unpack(tmp_path / "a", root)
    assert unpacked(root) == {"CUB_200_2011/images.txt": CUB["CUB_200_2011/images.txt"]}


def test_what_is_no_archive_says_so(tmp_path: Path, root: Path) -> None:
    (tmp_path / "CUB_200_2011.tgz").write_bytes(bytes(10_240))
    with pytest.raises(DataError, match=r"2011\.tgz: is neither tar nor zip: it begins with b'"):
        unpack(tmp_path / "CUB_200_2011.tgz", root)


def test_missing_archive_says_so(tmp_path: Path, root: Path) -> None:
    with pytest.raises(DataError, match=r"a\.tgz: no such file"):
        unpack(tmp_path / "a.tgz", root)


def test_file_in_the_way_is_named(tmp_path: Path, root: Path) -> None:
    root.mkdir()
    (root / "CUB_200_2011").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot be unpacked into .*CUB_200_2011"):
        unpack(pack(tmp_path / "a", CUB, "tar"), root)


def test_the_later_of_two_members_of_one_name_wins(tmp_path: Path, root: Path) -> None:
    with tarfile.open(tmp_path / "a", "w:gz") as tar:
        for content in (b"first", b"the later"):
            tar.addfile(member("x", size=len(content)), io.BytesIO(content))
    unpack(tmp_path / "a", root)
    assert unpacked(root) == {"x": b"the later"}


def test_annotations_beside_an_archive_are_copied(tmp_path: Path, root: Path) -> None:
    (tmp_path / "cars_annos.mat").write_bytes(b"MATLAB")
    extract_or_copy(pack(tmp_path / "car_ims.tgz", {"car_ims/000001.jpg": b"car"}, "tar.gz"), root)
    extract_or_copy(tmp_path / "cars_annos.mat", root)
    extract_or_copy(root / "cars_annos.mat", root)  # already there
    assert unpacked(root) == {"car_ims/000001.jpg": b"car", "cars_annos.mat": b"MATLAB"}
    with pytest.raises(DataError, match=r"nowhere\.mat: no such file"):
        extract_or_copy(tmp_path / "nowhere.mat", root)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"Rar!\x1a\x07\x01\x00", "is a RAR archive"),
        (b"7z\xbc\xaf\x27\x1c\x00\x04", "is a 7z archive"),
        (b"\x28\xb5\x2f\xfd", "is compressed by Zstandard"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>", "is a web page"),
        (b"", "is empty"),
    ],
)
def test_other_files_are_named_as_what_they_are(tmp_path: Path, head: bytes, kind: str) -> None:
    (tmp_path / "x.zip").write_bytes(head)
    with pytest.raises(DataError, match=f"{kind}.* Expected a tar .* or a zip"):
        unpack(tmp_path / "x.zip", tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_zips_with_backslashes_unpack_into_folders(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as zipped:
        for name, content in {"CUB\\images\\": b"", **CUB}.items():
            info = zipfile.ZipInfo("x")
            info.filename = name.replace("/", "\\")  # ZipInfo's own check is the reader's, too
            zipped.writestr(info, content)
    unpack(tmp_path / "x.zip", tmp_path / "root")
    for name, content in CUB.items():
        assert (tmp_path / "root" / name).read_bytes() == content
    assert not list((tmp_path / "root").glob("*\\*"))


@pytest.mark.parametrize("name", ["..\\out.txt", "\\out.txt", "C:\\out.txt", "a\\..\\..\\out"])
def test_backslashes_do_not_lead_out_of_the_root(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as zipped:
        info = zipfile.ZipInfo("x")
        info.filename = name
        zipped.writestr(info, b"x")
    with pytest.raises(DataError, match="is not a path inside the archive"):
        unpack(tmp_path / "x.zip", tmp_path / "root")
