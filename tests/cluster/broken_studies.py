"""Ways to damage a study, each with its error message; RIGHT: the scores are still right."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

RIGHT = "RIGHT"


def sql(*commands: str) -> Callable[[Path], None]:
    def mutate(path: Path) -> None:
        with closing(sqlite3.connect(path)) as file, file:
            for command in commands:
                file.execute(command)

    return mutate


def flip(seed: int) -> Callable[[Path], None]:
    """Change one to eight bytes, at positions and to values drawn from the seed."""

    def mutate(path: Path) -> None:
        dice, data = random.Random(seed), bytearray(path.read_bytes())
        used = [at for at, byte in enumerate(data) if byte]  # most of a small database is 0
        for _ in range(dice.choice((1, 2, 8))):
            data[dice.choice(used)] ^= dice.randrange(1, 256)
        path.write_bytes(data)

    return mutate


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.db")


def foreign(path: Path) -> None:
    path.unlink()
    sql("CREATE TABLE bookmarks (url TEXT)", "INSERT INTO bookmarks VALUES ('here')")(path)


def another_study(path: Path) -> None:
    """A study of Optuna that is not one of dmlray."""
    import optuna

    path.unlink()
    study = optuna.create_study(storage=f"sqlite:///{path}", study_name="other")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)


VALUE = "UPDATE trial_values SET value"
PARAM = "UPDATE trial_params SET"
SCHEMA = "UPDATE alembic_version SET version_num"
NOTE = "UPDATE trial_user_attributes SET value_json"
CURVE = "UPDATE trial_intermediate_values SET"
MARGIN, DIM = (f"param_name = 'method.{name}'" for name in ("margin", "dim"))
NUMBER = "UPDATE trials SET number"
STATE = "UPDATE trials SET state"
MUTATIONS: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("no study\n" * 900), "is damaged"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:20000]), "is damaged"),
    "cut in a page": (lambda path: path.write_bytes(path.read_bytes()[:-999]), "damaged"),
    "no header": (lambda path: path.write_bytes(bytes(100) + path.read_bytes()[100:]), ""),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "missing": (Path.unlink, "study.db: is missing, trials/0000 is not"),
    "a folder": (a_folder, "is not a file"),
    "a link to nothing": (dangling, "is not a file"),
    "of another program": (foreign, "is damaged (OperationalError"),
    "another study": (another_study, "holds 'other' and none named 'dmlray'"),
    "renamed": (sql("UPDATE studies SET study_name = 'x'"), "holds 'x' and none named 'dmlray'"),
    "no study": (sql("DELETE FROM studies"), "holds no study"),
    "no plan": (sql("DELETE FROM study_user_attributes"), "does not have the plan of its search"),
    "a list as plan": (sql("UPDATE study_user_attributes SET value_json = '[]'"), "does not have"),
    "half a plan": (sql("UPDATE study_user_attributes SET value_json = '{'"), "is damaged"),
    "another plan": (sql("UPDATE study_user_attributes SET value_json = '{}'"), "contradicts"),
    "direction": (sql("UPDATE study_directions SET direction = 'MINIMIZE'"), "its directions"),
    "two directions": (
        sql("INSERT INTO study_directions VALUES (9, 'MAXIMIZE', 1, 1)"),
        "its directions",
    ),
    "no directions": (sql("DELETE FROM study_directions"), "its directions"),
    "schema": (sql(f"{SCHEMA} = 'v3.0.0.a'"), "made by another Optuna"),
    "future schema": (sql(f"{SCHEMA} = 'v9'"), "by another Optuna"),
    "two schemas": (sql("INSERT INTO alembic_version VALUES ('v9')"), "is damaged"),
    "no schema": (sql("DELETE FROM alembic_version"), "is damaged"),
    "no version": (sql("DELETE FROM version_info"), "is damaged"),
    "no table": (sql("DROP TABLE trial_values"), "is damaged"),
    "no column": (sql("ALTER TABLE trial_params DROP COLUMN distribution_json"), "is damaged"),
    "all trials gone": (sql("DELETE FROM trials"), "knows 0 trials, but trials/ holds 00"),
    "last trials gone": (sql("DELETE FROM trials WHERE number > 4"), "knows 5 trials, but trials/"),
    "a trial gone": (sql("DELETE FROM trials WHERE number = 3"), "are not numbered from 0"),
    "all numbered 0": (sql(f"{NUMBER} = 0"), "are not numbered from 0"),
    "a number twice": (sql(f"{NUMBER} = 2 WHERE number = 3"), "are not numbered"),
    "no number": (sql(f"{NUMBER} = NULL WHERE number = 3"), "are not numbered"),
    "swapped": (
        sql(f"{NUMBER} = -number WHERE number = 1", f"{NUMBER} = 1 WHERE number = 0"),
        "are not numbered",
    ),
    "infinite": (sql("UPDATE trial_values SET value = NULL, value_type = 'INF_POS'"), "not finite"),
    "minus infinity": (
        sql("UPDATE trial_values SET value = NULL, value_type = 'INF_NEG'"),
        "not finite",
    ),
    "huge": (sql(f"{VALUE} = 7.5"), "are not fractions"),
    "negative": (sql(f"{VALUE} = -0.5"), "are not fractions"),
    "another score": (sql(f"{VALUE} = 0.99"), "is not that of its last epoch"),
    "words": (sql(f"{VALUE} = 'well'"), "is damaged"),
    "no value": (sql("DELETE FROM trial_values"), "values should be set"),
    "two values": (
        sql(
            "INSERT INTO trial_values SELECT 900 + trial_id, trial_id, 1, value, value_type "
            "FROM trial_values"
        ),
        "values for 1 metrics",
    ),
    "objective": (sql("UPDATE trial_values SET objective = 5"), "is damaged"),
    "kind of value": (sql("UPDATE trial_values SET value_type = 'X'"), "is damaged"),
    "epochs infinite": (
        sql(f"{CURVE} intermediate_value = NULL, intermediate_value_type = 'INF_POS'"),
        "finite",
    ),
    "epochs nan": (
        sql(f"{CURVE} intermediate_value = NULL, intermediate_value_type = 'NAN'"),
        "not finite",
    ),
    "epochs gone": (sql("DELETE FROM trial_intermediate_values"), RIGHT),
    "an epoch gone": (sql("DELETE FROM trial_intermediate_values WHERE step = 1"), RIGHT),
    "epoch 0": (sql(f"{CURVE} step = 0 WHERE step = 1"), "epochs are"),
    "epoch 99": (sql(f"{CURVE} step = 99 WHERE step = 2"), "epochs are"),
    "another curve": (
        sql(f"{CURVE} intermediate_value = 0.9 WHERE step = 1"),
        "in its metrics.jsonl",
    ),
    "param beyond": (sql(f"{PARAM} param_value = 3 WHERE {MARGIN}"), "contained"),
    "choice beyond": (sql(f"{PARAM} param_value = 7 WHERE {DIM}"), "is damaged"),
    "param infinite": (sql(f"{PARAM} param_value = 9e999"), ""),
    "param null": (sql(f"{PARAM} param_value = NULL"), ""),
    "another param": (
        sql(f"{PARAM} param_value = 0.4 - param_value WHERE {MARGIN}"),
        "trial 0: its values are not the experiment's own",
    ),
    "another param later": (
        sql(f"{PARAM} param_value = 0.3 WHERE {MARGIN} AND trial_id = 3"),
        "trial 2: its values are not those that were suggested",
    ),
    "off the grid": (
        sql(f"{PARAM} param_value = 0.17 WHERE {MARGIN}"),
        "contained",
    ),
    "param gone": (sql(f"DELETE FROM trial_params WHERE {DIM}"), "not a point of"),
    "params gone": (sql("DELETE FROM trial_params"), "not a point of the space"),
    "param renamed": (
        sql(f"{PARAM} param_name = 'method.x' WHERE {DIM}"),
        "not a point of",
    ),
    "range": (
        sql(f"{PARAM} distribution_json = replace(distribution_json, '0.4', '0.5')"),
        "not a point of",
    ),
    "choices swapped": (
        sql(f"{PARAM} distribution_json = replace(distribution_json, '[128, 64]', '[64, 128]')"),
        "not a point of",
    ),
    "no range": (sql(f"{PARAM} distribution_json = '{{}}'"), "is damaged"),
    "state": (sql(f"{STATE} = 'X'"), "is damaged"),
    "all complete": (sql(f"{STATE} = 'COMPLETE'"), ""),
    "all failed": (sql(f"{STATE} = 'FAIL'"), "for a failed trial"),
    "all pruned": (sql(f"{STATE} = 'PRUNED'"), "is PRUNED after 2 of 2 epochs"),
    "all running": (sql(f"{STATE} = 'RUNNING'"), "for an unfinished trial"),
    "waiting": (sql(f"{STATE} = 'WAITING' WHERE state = 'RUNNING'"), "is WAITING"),
    "no start": (sql("UPDATE trials SET datetime_start = NULL"), "datetime_start"),
    "no end": (sql("UPDATE trials SET datetime_complete = NULL"), "datetime_complete"),
    "a date": (sql("UPDATE trials SET datetime_start = 'noon'"), "is damaged"),
    "notes": (sql(f"{NOTE} = '['"), "is damaged"),
    "notes gone": (sql("DELETE FROM trial_user_attributes WHERE key = 'point'"), RIGHT),
    "same as a later one": (
        sql(f"{NOTE} = '99' WHERE key = 'same_as'"),
        "which is not an earlier one",
    ),
    "same as another": (
        sql(f"{NOTE} = '1' WHERE key = 'same_as'"),
        "repeats",
    ),
    "same as a word": (
        sql(f"{NOTE} = '\"x\"' WHERE key = 'same_as'"),
        "repeats",
    ),
    "reason": (
        sql(f"{NOTE} = '[1]' WHERE key = 'reason'"),
        "not text",
    ),
    "a sampler's pickle": (
        sql("UPDATE trial_system_attributes SET key = 'cma:optimizer:0', value_json = '\"80\"'"),
        RIGHT,
    ),
    "a sampler's notes": (sql("DELETE FROM trial_system_attributes"), RIGHT),
}
