"""A model folder gives the vectors of its run; what is damaged or foreign is one sentence."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import dmlray
from dmlray import methods
from dmlray.backbones import Trunk
from dmlray.backbones import trunk as trunks
from dmlray.config_model import ConfigModel
from dmlray.data.batches.augment import Transform
from dmlray.errors import DmlrayError
from dmlray.inference import onnx_export
from dmlray.inference.config import ModelConfig, branch_of
from dmlray.inference.export import export
from dmlray.inference.model import Model
from dmlray.inference.network import Network
from dmlray.inference.onnx_export import write_onnx
from dmlray.input_statistics import InputStatistics
from tests.inference.test_model import files_of


@pytest.fixture(scope="module")
def exported(runs: Path) -> Path:
    export(runs / "a", runs / "model_a")
    return runs / "model_a"


@pytest.mark.parametrize("run", ["a", "three", "pca"])
def test_a_model_folder_gives_the_vectors_of_its_run(runs: Path, tmp_path: Path, run: str) -> None:
    export(runs / run, tmp_path / "model")
    ours, theirs = dmlray.load_model(tmp_path / "model"), dmlray.load_model(runs / run)
    files = files_of(runs, "a")
    assert np.array_equal(ours.embed(files, device="cpu"), theirs.embed(files, device="cpu"))
    assert ours.config == theirs.config
    assert ours.fingerprint == theirs.fingerprint
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "modules.json",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_holds_no_loss_and_no_path_of_this_machine(runs: Path, exported: Path) -> None:
    names = load_file(exported / "model.safetensors").keys()
    assert all(name.startswith(("branches.0.trunk.", "branches.0.head.")) for name in names)
    text = (exported / "config.json").read_text() + (exported / "README.md").read_text()
    assert str(runs) not in text
    assert str(Path.home()) not in text


def test_the_card_has_scores_protocol_and_settings(runs: Path, exported: Path) -> None:
    card, scores = (exported / "README.md").read_text(), dmlray.load_model(exported).scores
    assert scores is not None
    for said in (
        f"| MAP@R | {100 * scores.metrics['map_at_r']:.1f} |",
        "n = 1 (no interval)",
        scores.dataset_fingerprint,
        scores.split_fingerprint,
        dmlray.load_model(exported).protocol,
        "  proxy_lr_factor: 30",
        'dmlray.query(model, "vectors", "one.jpg", k=10)',
    ):
        assert said in card


def test_half_precision_halves_the_file_and_says_what_it_costs(
    runs: Path, tmp_path: Path, exported: Path
) -> None:
    made = export(runs / "a", tmp_path / "half", half=True)
    whole, small = (
        (folder / "model.safetensors").stat().st_size for folder in (exported, tmp_path / "half")
    )
    assert small < 0.6 * whole
    assert made.half_difference is not None
    assert 0 < made.half_difference < 1e-2
    files = files_of(runs, "a")[: made.images]
    rows = dmlray.load_model(tmp_path / "half").embed(files, device="cpu")
    assert np.array_equal(rows, made.model.embed(files, device="cpu"))
    assert "float16" in (tmp_path / "half" / "README.md").read_text()


@pytest.mark.parametrize("run", ["three", "pca"])
def test_onnx_gives_the_vectors_of_torch_for_any_batch(
    runs: Path, tmp_path: Path, run: str
) -> None:
    """Run by ONNX Runtime alone: an ensemble and a projected merge are one graph each."""
    import onnxruntime

    made = export(runs / run, tmp_path / "model", onnx=True, images=runs / "images")
    assert made.onnx_difference is not None
    assert made.onnx_difference < 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "model" / "embed.onnx")
    model = dmlray.load_model(tmp_path / "model")
    files = files_of(runs, "a")
    for count in (1, 3, 17):
        crops = [model.preprocess(file) for file in files[:count]]
        feed = {name: np.stack([crop[name].numpy() for crop in crops]) for name in crops[0]}
        (rows,) = session.run(["embeddings"], feed)
        np.testing.assert_allclose(rows, model.embed(files[:count], device="cpu"), atol=1e-5)
    assert "opset 20, differs from torch by at most" in (tmp_path / "model/README.md").read_text()


MODES: dict[str, list[dict[str, Any]]] = {
    "dcml": [{}, {"mode": "paper"}, {"mode": "diva", "composites": 8}],
    "dreml": [{}, {"embedding": "pooled"}],
    "drml": [{"dim": 16}, {"dim": 16, "branch_input": "full", "edge_norm": "linear"}],
}


@pytest.mark.slow  # half a minute for all
@pytest.mark.parametrize(
    ("name", "settings"),
    [(name, settings) for name in methods.names() for settings in MODES.get(name, [{}])],
)
def test_every_method_goes_through_onnx(
    runs: Path, tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    """On a trunk of one layer: a real one takes seconds to export."""
    statistics = InputStatistics((0.5,) * 3, (0.5,) * 3)
    trunk = Trunk(trunks.Network(nn.Conv2d(3, 24, 4, stride=4), 24, statistics))
    module = methods.load(name)
    config: ConfigModel = module.Config(**settings)
    learner = module.Learner(config, trunk, trunk.width, 20)
    size = learner.eval().embed(torch.rand(1, 3, 32, 32)).shape[1]
    head = module.embedding_head(config, size)
    transform = Transform(size=32, eval_resize=32)
    described = ModelConfig(
        dmlray="test",
        dimension=size,
        branches=[branch_of(trunk, "timm/test_resnet", transform, head)],
        max_pixels=10**6,
    )
    model = Model(described, Network(described, [trunk]))
    assert write_onnx(model, tmp_path / "embed.onnx", files_of(runs, "a")[:5]) < 1e-5


def test_a_graph_that_differs_is_refused_and_nothing_is_left(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "MOST_DIFFERENCE", -1.0)
    with pytest.raises(DmlrayError, match=r"embed\.onnx: differs from torch by"):
        export(runs / "a", tmp_path / "model", onnx=True, images=runs / "images")
    assert not list(tmp_path.iterdir())


def test_export_where_it_cannot_is_one_sentence(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "a", tmp_path / "run")
    plan = tmp_path / "run" / "experiment.yaml"
    plan.write_text(plan.read_text().replace(str(runs / "images"), "/nowhere"))
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("")
    for out, options, said in (
        ("there", {}, "there: exists. Allowed: a new folder"),
        ("file/model", {}, "cannot be made"),
        ("model", {"onnx": True}, "must be checked on real images, but .*Allowed: a folder of"),
        ("model", {"onnx": True, "images": tmp_path / "there"}, "there: no images"),
    ):
        with pytest.raises(DmlrayError, match=said) as caught:
            export(tmp_path / "run", tmp_path / out, **options)
        assert caught.value.exit_status == 2
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "run", "there"]
    export(tmp_path / "run", tmp_path / "model")  # needs no images


def replaced(**changes: Any) -> Any:
    def damage(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        for key, value in changes.items():
            *above, last = key.split("__")
            part = config
            for name in above:
                part = part[int(name) if name.isdigit() else name]
            part[last] = value
        (folder / "config.json").write_text(json.dumps(config))

    return damage


def cut_tensors(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def pickled_tensors(folder: Path) -> None:
    torch.save({"x": torch.zeros(1)}, folder / "model.safetensors")


def huge_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((1 << 62).to_bytes(8, "little") + b"{}")


def huge_tensor(folder: Path) -> None:
    """Names more memory than there is; the file has nothing of it."""
    header = b'{"x":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    content = len(header).to_bytes(8, "little") + header
    (folder / "model.safetensors").write_bytes(content)


def one_tensor_more(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "branches.0.x": torch.zeros(1)}, folder / "model.safetensors")


def not_finite(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["branches.0.head.head.bias"][0] = torch.nan
    save_file(tensors, folder / "model.safetensors")


def no_config(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


def no_tensors(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def a_pipe(folder: Path) -> None:
    import os

    no_tensors(folder)
    os.mkfifo(folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut_tensors, "is no safetensors file or is damaged"),
        (pickled_tensors, "is no safetensors file or is damaged"),
        (huge_header, "is no safetensors file or is damaged"),
        (huge_tensor, "is no safetensors file or is damaged"),
        (one_tensor_more, r"branches\.0\.x is no tensor of its network"),
        (not_finite, "holds NaN or infinite"),
        (no_config, "is no description of a model"),
        (no_tensors, "No such file"),
        (a_pipe, "Is a pipe or a device"),
        (replaced(format=2), "format"),
        (replaced(unknown=2), "unknown"),
        (replaced(dimension=9), "dimension: 9 is not allowed. Allowed: 8"),
        (replaced(branches=[]), "branches"),
        (replaced(branches__0__backbone="os.system"), "unknown backbone 'os.system'"),
        (replaced(branches__0__backbone="timm/vit_giant_patch14_dinov2"), "missing|no tensor"),
        (replaced(branches__0__head={"kind": "exec"}), "kind|head"),
        (replaced(branches__0__head__dim=65_536), r"has shape \(8"),
        (replaced(branches__0__head__dim=10**9), "less than or equal to 65536"),
        (replaced(branches__0__std=[0, 1, 1]), "greater than 0"),
        (replaced(branches__0__crop__size=10**6), "less than or equal to 2048"),
        (replaced(projection=4), r"projection\.(mean|directions) is missing"),
        (replaced(scores={}), "scores"),
    ],
)
def test_a_damaged_or_malicious_model_is_one_sentence(
    tmp_path: Path, exported: Path, damage: Any, said: str
) -> None:
    shutil.copytree(exported, tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(DmlrayError, match=said) as caught:
        dmlray.load_model(tmp_path / "model")
    assert caught.value.exit_status == 2
    assert "\n" not in str(caught.value)


def test_a_model_needs_no_method_and_no_loss(runs: Path, tmp_path: Path, exported: Path) -> None:
    image = files_of(runs, "a")[0]
    shutil.copytree(exported, tmp_path / "elsewhere")
    program = (
        "import sys\n"
        "for name in ('ray', 'optuna', 'faiss', 'dmlray.methods.proxy_anchor', 'scipy',\n"
        "             'pytorch_metric_learning', 'onnx'):\n"
        "    sys.modules[name] = None\n"
        "import dmlray\n"
        f"print(dmlray.load_model({str(tmp_path / 'elsewhere')!r}).embed([{str(image)!r}])[0, 0])\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    expected = np.load(runs / "a" / "embeddings.npy")[0, 0]
    assert float(answer.stdout) == pytest.approx(float(expected), abs=1e-6)
