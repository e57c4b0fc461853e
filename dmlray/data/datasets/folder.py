"""Your own images: one sub-folder per class."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dmlray.data.dataset import Dataset
from dmlray.data.datasets import listing, train_test
from dmlray.data.datasets.dataset_listing import DatasetListing, complete
from dmlray.data.datasets.listing import Tree
from dmlray.data.datasets.spec import DatasetSpec
from dmlray.data.datasets.train_test import Images, Keep, Split
from dmlray.data.roles import BOTH, GALLERY, QUERY, roles_of
from dmlray.errors import ConfigError, DataError


def load(
    root: Path | None, split: Split = "classes", keep: Keep = train_test.everything
) -> Dataset:
    """List the data set `folder`: `root/<class>/`, or as given `root/{train,test}/<class>/`.

    All classes may lie in either way. For test/ there may be query/ and gallery/.

    Raises:
        ConfigError: If there is no root.
        DataError: If images are missing or contradict each other, or a test class has one image.
    """
    return complete(find(root, split, keep))


def find(
    root: Path | None, split: Split = "classes", keep: Keep = train_test.everything
) -> DatasetListing:
    """List the data set `folder`; `problems` has what forbids its use."""
    if root is None:
        problem = "data set 'folder' needs a folder with one sub-folder per class. Set data.root."
        raise ConfigError("data.root", [problem])
    found = _read_given(root) if split == "given" else _read("folder", root, split)
    kept = keep(train_test.all_train(found.dataset) if split == "all" else found.dataset)
    dataset, problems = train_test.examine(kept, lambda row: str(kept.root / kept.files[row]))
    return replace(found, dataset=dataset, problems=(*found.problems, *problems))


def read(name: str, root: Path) -> Dataset:
    """List the images in the sub-folders of `root`, recursively, without comparing their content.

    Raises:
        DataError: If images are missing or cannot be reached.
    """
    return complete(_read(name, root))


def _read(name: str, root: Path, split: Split = "classes") -> DatasetListing:
    root = listing.real_path(root)
    tree = listing.read(root)
    if _are_sides(tree.classes):
        if split == "all":
            return _read_given(root)
        raise DataError(
            f"{root}: the sub-folders {', '.join(tree.classes)} are named like parts of a split,"
            f" not classes. For train/<class>/ and test/<class>/ set {train_test.GIVEN}."
        )
    if len(tree.classes) < 2:
        below = next((name for name in tree.classes if _is_deep(tree.classes, name)), None)
        _refuse(
            f"{root}: {len(tree.images)} sub-folders, {len(tree.classes)} of them with images."
            " Expected at least 2, one per class"
            f"{f', as {root / below} may have' if below else ''}.",
            tree,
        )
    return _found(name, root, *train_test.halves(tree.classes), [], [tree])


def _read_given(root: Path) -> DatasetListing:
    root = listing.real_path(root)
    top, trees = listing.read_sides(root)
    by_role = _role_folders(root, list(trees))
    parts: dict[str, Images] = {name: tree.classes for name, tree in trees.items()}
    if by_role:
        parts["test"] = train_test.merged(parts.pop(name) for name in by_role.values())
    train, test, remarks = train_test.assign(parts, "{}/")
    for side, images in (("train", train), ("test", test)):
        if not images:
            _refuse_side(root, side, parts, by_role, trees)
    found = _found("folder", root, train, test, remarks, [top, *trees.values()])
    return _with_roles(found, by_role) if by_role else found


def _refuse_side(
    root: Path,
    side: str,
    parts: Iterable[str],
    by_role: Mapping[str, str],
    trees: Mapping[str, Tree],
) -> None:
    """Raise a DataError for a side without images."""
    if not any(train_test.side(name) == side for name in parts):
        raise DataError(f"{root / side}: no such folder. Expected one sub-folder per class.")
    folder = by_role.get(QUERY, side) if side == "test" else side
    _refuse(
        f"{root / folder}: no sub-folder with images. Expected at least 1, one per class.",
        *trees.values(),
    )


def _with_roles(found: DatasetListing, by_role: Mapping[str, str]) -> DatasetListing:
    role_of = {name: role for role, name in by_role.items()}
    roles = [role_of.get(file.partition("/")[0], BOTH) for file in found.dataset.files]
    return replace(found, dataset=replace(found.dataset, roles=roles_of(roles)))


def _role_folders(root: Path, names: Sequence[str]) -> dict[str, str]:
    """Role -> its folder, if there are query/ and gallery/ in place of test/."""
    found = {name.lower(): name for name in names if name.lower() in (QUERY, GALLERY)}
    if any(train_test.side(name) == "test" for name in names):
        return {}
    for role in (QUERY, GALLERY) if found else ():
        if role not in found:
            (other,) = found.values()
            raise DataError(f"{root / role}: no such folder. Expected it beside {other}/.")
    return found


def _found(
    name: str, root: Path, train: Images, test: Images, remarks: list[str], trees: list[Tree]
) -> DatasetListing:
    dataset = train_test.join(name, root, train, test)
    listed = tuple(filter(None, [*remarks, listing.skipped(*trees)]))
    return DatasetListing(
        "class folders", "as listed", replace(dataset, remarks=listed), listing.unreadable(*trees)
    )


def _are_sides(images: Images) -> bool:
    """Whether folders are named train, test, val, query or gallery and hold class folders.

    Or whether all are so named.
    """
    named = [name for name in images if train_test.side(name) or name.lower() in (QUERY, GALLERY)]
    deep = all(_is_deep(images, name) for name in named)
    return len(named) > 1 and (deep or len(named) == len(images))


def _is_deep(images: Images, name: str) -> bool:
    """Whether all images of a folder lie in its sub-folders."""
    return all(file.count("/") > 1 for file in images[name])


def _refuse(problem: str, *trees: Tree) -> None:
    """Raise a DataError that also lists skipped and unreadable files."""
    remark = listing.skipped(*trees)
    raise DataError(
        " ".join([problem, *listing.unreadable(*trees), *([f"{remark}."] if remark else [])])
    )


SPEC = DatasetSpec(
    "folder", "Your own images: one sub-folder per class.", load, find, own_images=True
)
