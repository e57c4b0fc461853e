"""Settings of text and paths are taken as they are written, on the command line and in files."""

import getpass
from pathlib import Path
from typing import Any

import pytest

from dmlray.errors import ConfigError
from dmlray.plans.config_sources import flatten, read_overrides
from dmlray.plans.ensemble import Ensemble, read_ensemble
from dmlray.plans.resolve import read_experiment, write_experiment
from dmlray.plans.search import read_search

DEMO = Path("experiments/proxy_anchor_demo.yaml")
SEARCH = Path("searches/proxy_anchor_demo.yaml")
NAMES = [
    "photos #2", "2024", "2024-01-01", "1e-3", "yes", "no", "on", "true", "~", "[1]", "{a: 1}",
    "[1", "a: b", "- a", "'quoted'", '"a b"', " a ", "!x", "&a", "*a", "@a", "`a`", "%a", "# a",
    "a\tb", "a\nb", "\x1b[2J", "a=b", ".inf", "0x10", "null ", "a\udcffb",
]  # fmt: skip


def value(key: str, *words: str, file: Path = DEMO) -> Any:
    return flatten(read_experiment(file, words).experiment.document())[key]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["data.root", "backbone.weights"])
def test_a_path_on_the_command_line_is_taken_literally(key: str, name: str) -> None:
    wanted = Path.home() if name == "~" else Path(name).absolute()
    assert value(key, f"{key}={name}") == str(wanted)


@pytest.mark.parametrize("name", [name for name in NAMES if name.isprintable()])
def test_a_path_survives_files_searches_and_ensembles(name: str, tmp_path: Path) -> None:
    word = f"data.root=./{name}"
    plan = read_experiment(DEMO, [word]).experiment
    assert str(plan.data.root) == str(Path(f"./{name}").absolute())
    write_experiment(tmp_path / "again.yaml", plan)
    assert read_experiment(tmp_path / "again.yaml").experiment == plan
    assert read_search(SEARCH, [word]).experiment.data.root == plan.data.root
    assert read_search(SEARCH, [f"set.{word}"]).experiment.data.root == plan.data.root
    assert read_search(SEARCH, [f"experiment.{word}"]).experiment.data.root == plan.data.root
    Ensemble(read_experiment(DEMO).experiment, 2, "seed").write(tmp_path / "ensemble.yaml")
    members = read_ensemble(tmp_path / "ensemble.yaml", [read_overrides([word])])
    assert members.experiment.data.root == plan.data.root


@pytest.mark.parametrize("written", ["2024", "2024-01-01", "1e-3", "yes", "0x10", "'2024'", "1:30"])
def test_a_number_or_a_date_in_a_file_is_text_where_text_is_taken(
    written: str, tmp_path: Path
) -> None:
    file = tmp_path / "x.yaml"
    text = f"method: {{name: pml}}\ndata: {{root: {written}}}\nprotocol:\n  tuned_by: {written}\n"
    file.write_text(text)
    name = written.strip("'")
    assert value("data.root", file=file) == str(Path(name).absolute())
    assert value("protocol.tuned_by", file=file) == name
    search = tmp_path / "search.yaml"
    search.write_text(f"experiment: {DEMO}\nset: {{data.root: {written}}}\n")
    assert read_search(search).experiment.data.root == Path(name).absolute()


def test_null_is_null(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("method: {name: pml, miner: MultiSimilarityMiner}\ndata: {root: x}\n")
    assert value("data.root", "data.root=null", file=file) is None
    assert value("data.root", "data.root=", file=file) is None
    assert value("method.miner", "method.miner=null", file=file) is None
    for none in ("", "~", "null"):
        file.write_text(f"method: {{name: pml}}\ndata:\n  root: {none}\n")
        assert value("data.root", file=file) is None
    with pytest.raises(ConfigError, match=r"backbone.weights: None is not allowed"):
        value("backbone.weights", "backbone.weights=null")


def test_words_among_which_to_choose_are_text_as_well() -> None:
    assert value("backbone.weights", "backbone.weights=none") == "none"
    for name in ("3", "[1]", "yes", "{a: 1}"):
        with pytest.raises(ConfigError, match=r"optimizer.name: .* is not allowed. Allowed: one"):
            value("optimizer.name", f"optimizer.name={name}")
        with pytest.raises(ConfigError, match="unknown method"):
            value("method.name", f"method.name={name}")


def test_what_is_no_text_is_still_yaml() -> None:
    assert value("protocol.recall_at", "protocol.recall_at=[1, 2]") == [1, 2]
    assert value("optimizer.clip_norm", "optimizer.clip_norm=1e-3") == 1e-3
    assert value("protocol.nmi", "protocol.nmi=yes") is True
    pml = Path("experiments/pml_demo.yaml")
    words = ["method.loss=TripletMarginLoss", "method.loss_arguments={margin: 1e-1}"]
    assert value("method.loss_arguments.margin", *words, file=pml) == 0.1


def test_a_group_on_the_command_line_takes_the_place_of_the_group() -> None:
    plan = read_experiment(DEMO, ["method={name: dreml}", "data={root: 2024}"]).experiment
    assert (plan.method.name, plan.data.root) == ("dreml", Path("2024").absolute())
    assert plan.data.batch_size == 64  # the default, not the file's


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["data=1"], "data: 1 is not allowed. Allowed: a group of keys"),
        (["data=1", "data.name=demo"], "data.name: unknown key: data is 1, no group of keys"),
        (["method=x"], "method.name: is missing"),
        (["method=null"], "method.name: is missing"),
        (["data.name=[1]"], "command line  data.name: unknown data set '[1]'. Allowed: cars"),
        (["data.name={a: 1}"], "data.name: unknown data set '{a: 1}'"),
        (["method.name.x=1"], "method.name.x: unknown key: method.name is"),
        (["seed.x=1"], "seed.x: unknown key: seed is 0, no group"),
        (["optimizer.lr=[1"], "optimizer.lr: '[1' is not allowed. Allowed: a number"),
        (["optimizer.lr=0.1 # or more"], "optimizer.lr: '0.1 # or more' is not allowed"),
        ([f"optimizer.lr={'x' * 10**6}"], "optimizer.lr: 'xxx"),
    ],
)
def test_nonsense_of_keys_and_values_is_one_sentence(words: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_experiment(DEMO, ["seed=0", *words])
    assert complaint in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("key", ["data.root", "backbone.weights"])
def test_a_home_is_expanded_and_an_unknown_user_is_told(key: str) -> None:
    home = Path(f"~{getpass.getuser()}").expanduser()
    assert value(key, f"{key}=~/x") == str(Path.home() / "x")
    assert value(key, f"{key}=~{getpass.getuser()}/x") == str(home / "x")
    assert value(key, f"{key}=./~x") == str(Path.cwd() / "~x")
    with pytest.raises(ConfigError, match="~no-such-user is not a user here"):
        value(key, f"{key}=~no-such-user/x")


@pytest.mark.parametrize(
    "address", ["s3://b/x", "gs://b", "http://h/x", "hdfs://h:1/x", "file:///x"]
)
@pytest.mark.parametrize("key", ["data.root", "backbone.weights"])
def test_an_address_is_no_path(key: str, address: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is an address, not a path"):
        value(key, f"{key}={address}")
    section, name = key.split(".")
    file = tmp_path / "x.yaml"
    file.write_text(f"method: {{name: pml}}\n{section}: {{{name}: '{address}'}}\n")
    with pytest.raises(ConfigError, match=r"line 2  .* is an address, not a path"):
        read_experiment(file)


def test_a_search_takes_its_experiment_from_the_command_line(tmp_path: Path) -> None:
    other = tmp_path / "2024"
    other.write_text("method: {name: proxy_anchor, dim: 7}\n")
    words = [f"experiment={other}", "use_method_space=false", "space={seed: {choices: [0, 1]}}"]
    search = tmp_path / "search.yaml"
    search.write_text(f"experiment: {DEMO}\nspace: {{optimizer.gamma: {{low: 0.1, high: 0.9}}}}\n")
    assert read_search(search, [*words[:1]]).experiment.method.config.dim == 7  # type: ignore[attr-defined]
    assert set(read_search(search, ["use_method_space=false"]).ranges.space) == {"optimizer.gamma"}
    changed = read_search(search, ["set={budget.epochs: 2}", "experiment.budget.warmup_epochs=1"])
    assert (changed.experiment.budget.epochs, changed.experiment.budget.warmup_epochs) == (2, 1)
    for section in ("set", "space"):
        with pytest.raises(ConfigError, match=f"{section}: 3 is not allowed. Allowed: a group"):
            read_search(search, [f"{section}=3"])
