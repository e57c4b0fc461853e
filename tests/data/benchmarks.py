"""The benchmarks in every layout of data.md: six classes each, two images a class, hard links."""

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.io import savemat

from tests.data.images import picture

Build = Callable[[Path], None]

BIRDS = {n: f"{n:03d}.Bird_{chr(201 - n)}" for n in (1, 2, 10, 100, 101, 200)}
CARS = {  # as in the real annotations, whose order within a make is not alphabetical
    1: "AM General Hummer SUV 2000",
    2: "Acura RL Sedan 2012",
    6: "Acura Integra Type R 2001",
    98: "Eagle Talon Hatchback 1998",
    174: "Ram C/V Cargo Van Minivan 2012",
    196: "smart fortwo Convertible 2012",
}
PRODUCTS = {
    1: "bicycle",
    2: "bicycle",
    10: "chair",
    11318: "toaster",
    11319: "bicycle",
    22634: "toaster",
}


def place(folder: Path, files: Iterable[str]) -> None:
    """Put a small JPEG at each of `files` below `folder`."""
    source = folder / ".picture.jpg"
    source.parent.mkdir(parents=True, exist_ok=True)
    picture(12, 10).save(source)
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        os.link(source, folder / file)
    source.unlink()


def write(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def bird_files(birds: Mapping[int, str] = BIRDS) -> list[tuple[int, str]]:
    return [(n, f"{name}/{name[4:]}_{i}.jpg") for n, name in birds.items() for i in range(2)]


def cub_lists(folder: Path) -> None:
    files = bird_files()
    write(folder / "images.txt", (f"{i} {file}" for i, (_, file) in enumerate(files, 1)))
    write(folder / "image_class_labels.txt", (f"{i} {n}" for i, (n, _) in enumerate(files, 1)))
    cub_folders(folder)


def cub_folders(folder: Path, birds: Mapping[int, str] = BIRDS) -> None:
    place(folder, (f"images/{file}" for _, file in bird_files(birds)))


def sides(folder: Path, train: Iterable[str], test: Iterable[str], images: int = 2) -> None:
    """{train,test}/class/, as DRML's code reads CUB and Cars."""
    classes = [("train", name) for name in train] + [("test", name) for name in test]
    place(folder, (f"{side}/{name}/{i}.jpg" for side, name in classes for i in range(images)))


def cars_annotated(folder: Path, cars: Mapping[int, str] = CARS) -> None:
    write_annotations(folder, cars)
    place(folder, (f"car_ims/{n:03d}{i}.jpg" for n in cars for i in range(2)))


def write_annotations(folder: Path, cars: Mapping[int, str] = CARS) -> None:
    """cars_annos.mat, with the fields and shapes of the real one."""
    fields = ["relative_im_path", *(f"bbox_{c}" for c in ("x1", "y1", "x2", "y2")), "class", "test"]
    rows = [(f"car_ims/{n:03d}{i}.jpg", 1, 1, 9, 9, n, i) for n in cars for i in range(2)]
    annotations = np.array([rows], dtype=[(field, object) for field in fields])
    names = np.array([[cars.get(n, f"Unused {n}") for n in range(1, 197)]], dtype=object)
    folder.mkdir(parents=True, exist_ok=True)
    savemat(folder / "cars_annos.mat", {"annotations": annotations, "class_names": names})


def cars_folders(folder: Path, cars: Mapping[int, str] = CARS) -> None:
    names = [name.replace("/", "-") for name in cars.values()]
    place(folder, (f"images/{name}/{i}.jpg" for name in names for i in range(2)))


def cars_kit(folder: Path, kit: str = "devkit", nested: bool = False) -> None:
    """The halves of a classifier with their annotations, as torchvision and Kaggle have them."""
    for half, labels in (
        ("cars_train", f"{kit}/cars_train_annos.mat"),
        ("cars_test", "cars_test_annos_withlabels.mat"),
    ):
        files = {f"{i:05d}.jpg": n for i, n in enumerate(sorted(CARS, key=str), 1)}
        fields = [(field, object) for field in ("bbox_x1", "class", "fname")]
        rows = np.array([[(1, n, name) for name, n in files.items()]], dtype=fields)
        (folder / labels).parent.mkdir(parents=True, exist_ok=True)
        savemat(folder / labels, {"annotations": rows})
        place(folder / half / (half if nested else "."), files)
    names = np.array([[CARS.get(n, f"Unused {n}") for n in range(1, 197)]], dtype=object)
    savemat(folder / kit / "cars_meta.mat", {"class_names": names})


def classifier(folder: Path, names: Iterable[str]) -> None:
    """{train,test}/CLASS/ with all classes in both."""
    names = list(names)
    sides(folder, names, names, images=1)


def product_rows(numbers: Iterable[int]) -> list[str]:
    return [
        f"{2 * n + i} {n} 1 {PRODUCTS[n]}_final/{n:05d}_{i}.JPG" for n in numbers for i in (0, 1)
    ]


HEADER = "image_id class_id super_class_id path"


def sop(folder: Path, lists: str = ".", images: str = ".") -> None:
    for name, train in (("train", True), ("test", False)):
        rows = product_rows(n for n in PRODUCTS if (n <= 11318) == train)
        write(folder / lists / f"Ebay_{name}.txt", [HEADER, *rows])
    place(folder / images, (row.split()[3] for row in product_rows(PRODUCTS)))


def sop_by_kind(folder: Path) -> None:
    for kind in sorted(set(PRODUCTS.values())):
        rows = product_rows(n for n in PRODUCTS if PRODUCTS[n] == kind)
        write(folder / "Info_Files" / f"{kind}.txt", rows)
    place(folder / "images", (row.split()[3] for row in product_rows(PRODUCTS)))


CLOTHES = (1, 2, 10, 7982, 9, 100)  # the last two are searched for


def clothes_rows() -> list[str]:
    rows = []
    for place, number in enumerate(CLOTHES):
        roles = ("train", "train") if place < 4 else ("query", "gallery")
        item = f"id_{number:08d}"
        files = (f"img/{('WOMEN', 'MEN')[number % 2]}/Tees/{item}/0{i}_1_front.jpg" for i in (1, 2))
        rows += [f"{file} {item} {role}" for file, role in zip(files, roles, strict=True)]
    return rows


def inshop(folder: Path, lists: str = "Eval", images: str = "Img", counted: bool = True) -> None:
    rows = clothes_rows()
    heads = [str(len(rows))] * counted + ["image_name item_id evaluation_status"]
    write(folder / lists / "list_eval_partition.txt", [*heads, *rows])
    place(folder / images, (row.split()[0] for row in rows))


class Row(NamedTuple):
    """One layout: its authors, data set, folder and how it is made."""

    author: str
    name: str
    folder: str
    build: Build


_SIDES = partial(
    sides, train=("class1", "class2", "class10", "class98"), test=("class99", "class100")
)

LAYOUTS = (
    Row("official", "cub", "CUB_200_2011", cub_lists),
    Row("IDML", "cub", "CUB_200_2011", cub_folders),
    Row("RCDML", "cub", "data/CUB_200_2011", cub_lists),
    Row("DREML", "cub", "data/cub", cub_lists),
    Row("DCML", "cub", "cub200", cub_folders),
    Row("DRML", "cub", "cub200", _SIDES),
    Row("official", "cars", ".", cars_annotated),
    Row("IDML", "cars", "cars196", cars_annotated),
    Row("RCDML", "cars", "data/cars196", cars_annotated),
    Row("DREML", "cars", "data/car", cars_annotated),
    Row("DCML", "cars", "cars196", cars_folders),
    Row("DRML", "cars", "cars196", _SIDES),
    Row("official", "sop", "Stanford_Online_Products", sop),
    Row("IDML", "sop", "Standford_Online_Products", sop),
    Row("RCDML", "sop", "data/Stanford_Online_Products", sop),
    Row("DREML", "sop", "data/sop", sop),
    Row("DCML", "sop", "online_products", sop_by_kind),
    Row("DCML", "sop", "online_products", partial(sop, images="images")),
    Row("DRML", "sop", ".", partial(sop, lists="Info_Files", images="images")),
    Row("official", "inshop", "DeepFashion/In-shop Clothes Retrieval Benchmark", inshop),
    Row("RCDML", "inshop", "data/Inshop_Clothes", inshop),
    Row("inside", "inshop", "inshop", partial(inshop, lists=".", images=".", counted=False)),
    Row("beside", "inshop", ".", partial(inshop, images=".")),
    Row("unpacked twice", "inshop", ".", partial(inshop, lists="Anno", images="Img/img")),
    Row("in its own folder", "inshop", ".", partial(inshop, images="img")),
)
