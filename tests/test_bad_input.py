"""Bad input, through Python and the command line alike: one clear error, exit code 2, nothing lost and nothing on standard output."""

from __future__ import annotations

import io
import json
import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from studperf import InputError, predict, simulate, train

ROWS = [
    {"gender": "female", "race_ethnicity": "group B", "parental_level_of_education": "bachelor's degree", "lunch": "standard",
     "test_preparation_course": "none", "reading_score": 72, "writing_score": 74},
    {"gender": "male", "race_ethnicity": "group C", "parental_level_of_education": "some college", "lunch": "free/reduced",
     "test_preparation_course": "completed", "reading_score": 69, "writing_score": 88},
    {"gender": "female", "race_ethnicity": "group E", "parental_level_of_education": "high school", "lunch": "standard",
     "test_preparation_course": "none", "reading_score": 90, "writing_score": 95},
]  # fmt: skip
BAD_ROW = 2  # counted from 1


def roster(column: str, value: object) -> pd.DataFrame:
    """The three students with one cell changed, in columns that keep any value as it is."""
    table = pd.DataFrame(ROWS).astype({column: object})
    table.at[BAD_ROW - 1, column] = value
    return table


def csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False).encode()


def parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def records(table: pd.DataFrame) -> list[dict]:
    return [dict(zip(table.columns, values, strict=True)) for values in table.itertuples(index=False)]


def assert_refused(answer, says: tuple[str, ...]) -> None:
    """The command says what is wrong on standard error, and nothing else anywhere."""
    assert answer.code == 2, answer.err
    assert answer.out == ""
    assert "Traceback" not in answer.err
    assert len(answer.err.splitlines()) <= 20, answer.err
    missing = [part for part in says if part not in answer.err]
    assert not missing, answer.err


def assert_refused_as_json(answer, says: tuple[str, ...]) -> dict:
    """With --json the same comes as one object."""
    assert answer.code == 2, answer.err
    assert "Traceback" not in answer.err
    plain = answer.json
    assert set(plain) >= {"error", "n_problems", "problems"}
    told = plain["error"] + " ".join(problem["message"] for problem in plain["problems"])
    missing = [part for part in says if part not in told]
    assert not missing, told
    return plain


# One bad cell ---------------------------------------------------------------------------------------------------------

SCORE = "a number from 0 to 100"
CELLS = {
    "unknown category": ("lunch", "free", ("'free'", "one of 'free/reduced', 'standard'")),
    "category in capitals": ("gender", "MALE", ("'MALE'", "one of 'female', 'male'", "did you mean 'male'?")),
    "number for a category": ("race_ethnicity", 3, ("3", "'group A'")),
    "empty category": ("gender", None, ("missing", "'female'")),
    "blank category": ("gender", "  ", ("missing", "'female'")),
    "abc": ("reading_score", "abc", ("'abc'", SCORE)),
    "decimal comma": ("reading_score", "72,5", ("'72,5'", SCORE)),
    "a number with a unit": ("reading_score", "72 points", ("'72 points'", SCORE)),
    "empty number": ("reading_score", None, ("missing", SCORE)),
    "the word NaN": ("writing_score", "NaN", ("'NaN'", SCORE)),
    "the word inf": ("writing_score", "-inf", ("'-inf'", SCORE)),
    "NA": ("writing_score", "NA", ("'NA'", SCORE)),
    "5000": ("writing_score", 5000, ("5000", SCORE)),
    "-50": ("writing_score", -50, ("-50", SCORE)),
    "just above": ("writing_score", 100.00000000000001, ("100.0", SCORE)),
    "1e999": ("writing_score", "1e999", ("1e999", SCORE)),
    "a date": ("reading_score", "2024-01-01", ("'2024-01-01'", SCORE)),
    "a formula": ("reading_score", "=1+1", ("'=1+1'", SCORE)),
    "terminal escapes": ("lunch", "\x1b[31mstandard", (r"\x1b[31mstandard", "one of")),
}
NOT_IN_CSV = {"1e999": ("inf",)}  # in a column of numbers it is one, and an infinite one


@pytest.mark.parametrize("what", CELLS)
def test_a_bad_cell_is_refused_by_python(what, linear, tmp_path):
    column, value, says = CELLS[what]
    table = roster(column, value)
    (tmp_path / "class.csv").write_bytes(csv(table))
    for given in (table, records(table), table.set_index(pd.Index(["a", "a", "b"])), tmp_path / "class.csv"):
        with pytest.raises(InputError) as caught:
            predict(given, model=linear)
        expected = NOT_IN_CSV.get(what, says) if given is not table and not isinstance(given, (list, pd.DataFrame)) else says
        for part in (f"row {BAD_ROW}", column, *expected):
            assert part in str(caught.value)
        (problem,) = caught.value.problems
        assert (problem.row, problem.column) == (BAD_ROW, column)


@pytest.mark.parametrize("what", CELLS)
def test_a_bad_cell_is_refused_by_the_command_line(what, linear, tmp_path, cli):
    column, value, says = CELLS[what]
    (tmp_path / "class.csv").write_bytes(csv(roster(column, value)))
    assert_refused(cli("predict", "class.csv", "--model", linear), (f"row {BAD_ROW}, {column}", *NOT_IN_CSV.get(what, says)))


def test_all_bad_cells_at_once_as_json(linear, tmp_path, command):
    tables = [roster(column, value).iloc[[BAD_ROW - 1]] for column, value, _ in CELLS.values()]
    (tmp_path / "class.csv").write_bytes(csv(pd.concat([pd.DataFrame(ROWS), *tables])))
    plain = assert_refused_as_json(command("predict", "class.csv", "--model", linear, "--json"), ())
    assert plain["n_problems"] == len(CELLS)
    for row, ((column, _, says), problem) in enumerate(zip(CELLS.values(), plain["problems"], strict=True), len(ROWS) + 1):
        assert (problem["row"], problem["column"]) == (row, column)
        assert all(part in problem["message"] for part in says)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 5000.0, -50.0], ids=str)
def test_a_bad_number_in_parquet_is_refused(value, linear, tmp_path, cli):
    table = pd.DataFrame(ROWS).astype({"reading_score": float})
    table.at[BAD_ROW - 1, "reading_score"] = value
    (tmp_path / "class.parquet").write_bytes(parquet(table))
    says = (f"row {BAD_ROW}, reading_score", "missing" if np.isnan(value) else str(value), SCORE)
    with pytest.raises(InputError) as caught:
        predict(table, model=linear)
    assert all(part in str(caught.value) for part in says)
    assert_refused(cli("predict", "class.parquet", "--model", linear), says)


PYTHON_ONLY = {
    "True": True, "bytes": b"72", "a list": [72], "a dict": {"score": 72}, "a complex number": 72 + 0j, "a timestamp": pd.Timestamp(0),
    "NA": pd.NA, "NaT": pd.NaT, "a huge integer": 10**400, "an integer too long to print": 10**5000, "an array": np.array([1, 2]),
    "a lone surrogate": "\ud800", "a zero byte": "7\0", "an object": object(),
}  # fmt: skip


@pytest.mark.parametrize("column", ["reading_score", "gender"])
@pytest.mark.parametrize("what", PYTHON_ONLY)
def test_a_python_object_in_a_cell_is_refused(what, column, linear):
    changed = [dict(row) for row in ROWS]
    changed[BAD_ROW - 1][column] = PYTHON_ONLY[what]
    frame = pd.DataFrame({name: pd.Series([row[name] for row in changed], dtype=object) for name in ROWS[0]})
    for table in (changed, frame):
        with pytest.raises(InputError) as caught:
            predict(table, model=linear)
        assert f"row {BAD_ROW}, {column}" in str(caught.value)
        assert len(str(caught.value)) < 500
        json.dumps(caught.value.to_dict(), allow_nan=False)
        reported = predict(table, model=linear, on_error="report")
        assert reported["prediction"].isna().tolist() == [False, True, False]


# The whole table ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class File:
    """A file that cannot be used, and what the message must say."""

    content: bytes
    says: tuple[str, ...]


def _many_bad_rows() -> bytes:
    table = simulate(10_000, seed=3).astype(object)
    table["reading_score"] = "abc"
    table.loc[::2, "gender"] = "unheard of"
    return csv(table)


def _duplicate_parquet() -> bytes:
    table = pa.Table.from_pandas(pd.DataFrame(ROWS))
    buffer = io.BytesIO()
    pq.write_table(table.append_column("gender", table["gender"]), buffer)
    return buffer.getvalue()


GOOD_CSV, GOOD_PARQUET = csv(pd.DataFrame(ROWS)), parquet(pd.DataFrame(ROWS))
HEADER = GOOD_CSV.splitlines()[0]
FILES = {
    "missing.csv": File(csv(pd.DataFrame(ROWS).drop(columns="lunch")), ("lunch: no such column", "a column named 'lunch'", "it has 'gender'")),
    "two-missing.csv": File(csv(pd.DataFrame(ROWS).drop(columns=["lunch", "gender"])), ("lunch: no such column", "gender: no such column")),
    "header-only.csv": File(HEADER + b"\n", ("no rows",)),
    "no-rows.parquet": File(parquet(pd.DataFrame(ROWS).head(0)), ("no rows",)),
    "empty.csv": File(b"", ("empty.csv is empty",)),
    "empty.parquet": File(b"", ("empty.parquet is empty",)),
    "blank-lines.csv": File(b"\n\n\n", ("blank-lines.csv is empty",)),
    "twice.csv": File(b"gender,gender\nmale,male\n", ("duplicate columns", "gender: stands 2 times")),
    "twice.parquet": File(_duplicate_parquet(), ("twice.parquet", "uplicate")),
    "two-aliases.csv": File(csv(pd.DataFrame(ROWS).assign(ethnicity="group A")), ("race_ethnicity: 2 columns", "'ethnicity'", "one such column")),
    "two-spellings.csv": File(csv(pd.DataFrame(ROWS).assign(**{"Reading Score": 1})), ("reading_score: 2 columns", "'Reading Score'")),
    "latin-1.csv": File(GOOD_CSV + "séance,group A,high school,standard,none,1,2\n".encode("latin-1"), ("not UTF-8", "line 5", "0xe9", "CSV UTF-8")),
    "utf-16.csv": File(GOOD_CSV.decode().encode("utf-16"), ("not UTF-8", "line 1")),
    "mid-row.csv": File(GOOD_CSV[: GOOD_CSV.rindex(b",95")], ("row 3: 6 cells", "expected 7 cells", "line 4")),
    "mid-first-row.csv": File(GOOD_CSV[: len(HEADER) + 12], ("row 1: 2 cells", "expected 7 cells")),
    "one-cell-more.csv": File(GOOD_CSV.replace(b",74\n", b",74,99\n"), ("row 1: 8 cells", "expected 7 cells")),
    "open-quote.csv": File(GOOD_CSV.replace(b"some college", b'"some college'), ("breaks off", "line 4")),
    "text-after-quote.csv": File(GOOD_CSV.replace(b"some college", b'"some" college'), ("damaged", "line 3")),
    "zero-byte.csv": File(GOOD_CSV.replace(b"some college", b"some\0college"), ("zero byte", "line 3")),
    "cut.parquet": File(GOOD_PARQUET[: len(GOOD_PARQUET) // 2], ("cut.parquet is not a readable Parquet file",)),
    "no-footer.parquet": File(GOOD_PARQUET[:-1], ("no-footer.parquet is not a readable Parquet file",)),
    "magic-only.parquet": File(b"PAR1", ("magic-only.parquet is not a readable Parquet file",)),
    "junk.parquet": File(bytes(range(256)) * 8, ("junk.parquet",)),
    "json.csv": File(json.dumps(ROWS).encode(), ("json.csv",)),
    "zip.csv": File(b"PK\x03\x04" + bytes(100), ("zip.csv",)),
    "ten-thousand.csv": File(
        _many_bad_rows(), ("10,000 of 10,000 rows", "row 1, gender: 'unheard of'", "'abc'", "and 14,990 more", "in reading_score")
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_bad_file_is_refused_by_python(name, linear, tmp_path):
    (tmp_path / name).write_bytes(FILES[name].content)
    for path in (name, tmp_path / name):
        with pytest.raises(InputError) as caught:
            predict(path, model=linear)
        assert len(str(caught.value).splitlines()) <= 20
        missing = [part for part in FILES[name].says if part not in str(caught.value)]
        assert not missing, str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_bad_file_is_refused_by_the_command_line(name, linear, tmp_path, cli, command):
    (tmp_path / name).write_bytes(FILES[name].content)
    assert_refused(cli("predict", name, "--model", linear), FILES[name].says)
    plain = assert_refused_as_json(command("predict", name, "--model", linear, "--json"), ())
    assert plain["n_problems"] >= len(plain["problems"]) <= 1000


@pytest.mark.parametrize("name", ["missing.csv", "empty.csv", "latin-1.csv", "open-quote.csv", "cut.parquet"])
def test_standard_input_is_refused_alike(name, linear, cli):
    says = tuple(part.replace(name, "standard input") for part in FILES[name].says)
    assert_refused(cli("predict", "-", "--model", linear, stdin=FILES[name].content), says)


@pytest.mark.parametrize("name", ["missing.csv", "empty.csv", "two-aliases.csv", "cut.parquet"])
def test_a_table_without_usable_columns_is_refused_even_when_reporting(name, linear, tmp_path, cli):
    (tmp_path / name).write_bytes(FILES[name].content)
    with pytest.raises(InputError):
        predict(name, model=linear, on_error="report")
    assert_refused(cli("predict", name, "--model", linear, "--on-error", "report"), FILES[name].says)


def test_the_ten_thousand_problems_are_all_there_for_programs(linear, tmp_path, cli):
    (tmp_path / "many.csv").write_bytes(FILES["ten-thousand.csv"].content)
    with pytest.raises(InputError) as caught:
        predict("many.csv", model=linear)
    assert len(caught.value.problems) == 15_000
    plain = cli("predict", "many.csv", "--model", linear, "--json").json
    assert (plain["n_problems"], len(plain["problems"])) == (15_000, 1000)


NOT_TABLES = {
    "a number": 5, "none": None, "a list of numbers": [1, 2, 3], "a list of lists": [["female", "group A"]], "a list with a hole": [ROWS[0], None],
    "bytes": GOOD_CSV, "a set": {"gender"}, "a series": pd.DataFrame(ROWS).iloc[0], "an array": np.zeros((3, 7)), "a tuple": (1, 2),
    "an empty list": [], "an empty dict": {}, "an empty frame": pd.DataFrame(), "a list of nothing": [{}], "a generator": (row for row in ROWS),
    "a dict of lists": {name: [row[name] for row in ROWS] for name in ROWS[0]}, "the text of a table": GOOD_CSV.decode(),
    "an empty path": "", "a folder": ".", "no such file": "nowhere.csv", "a path with a zero byte": "class\0.csv", "a very long path": "x" * 5000,
    "JSON": json.dumps(ROWS),
}  # fmt: skip


@pytest.mark.parametrize("what", NOT_TABLES)
def test_what_is_not_a_table_is_refused(what, linear):
    for on_error in ("raise", "report"):
        try:
            answers = predict(NOT_TABLES[what], model=linear, on_error=on_error)
        except InputError as error:
            assert len(str(error).splitlines()) <= 20
        else:
            assert what == "a dict of lists" and on_error == "report"
            assert answers["prediction"].isna().all()


def test_a_wrong_option_is_refused(linear, command, tmp_path):
    (tmp_path / "class.csv").write_bytes(GOOD_CSV)
    with pytest.raises(InputError, match="'raise' or 'report'"):
        predict(ROWS, model=linear, on_error="ignore")
    assert_refused(command("predict", "class.csv", "--model", linear, "--on-error", "ignore"), ("raise", "report"))


@pytest.mark.parametrize("model", ["nowhere", "class.csv", "x" * 5000, "a\0b"])
def test_a_model_that_is_not_there_is_refused(model, command, tmp_path):
    (tmp_path / "class.csv").write_bytes(GOOD_CSV)
    with pytest.raises(InputError):
        predict(ROWS, model=model)
    if "\0" not in model:
        assert_refused(command("predict", "class.csv", "--model", model), ())


# What is right in a bad table -----------------------------------------------------------------------------------------


def test_report_scores_the_good_rows_and_returns_the_bad_ones(linear, tmp_path, cli):
    table = simulate(300, seed=4, dirt=0.3).drop(columns="math_score")
    dirty = table.attrs["dirty_rows"]
    good = [row for row in range(300) if row not in dirty]
    table.index = [f"student {i}" for i in range(300)]
    reported = predict(table, model=linear, on_error="report")
    alone = predict(table.iloc[good], model=linear)
    assert reported.index.equals(table.index)
    assert reported["prediction"].iloc[good].tolist() == alone["prediction"].tolist()
    assert reported["prediction"].iloc[dirty].isna().all()
    assert [i for i, why in enumerate(reported["problem"]) if why] == dirty
    for row in dirty:
        assert "expected" in reported["problem"].iloc[row]

    (tmp_path / "class.csv").write_bytes(csv(table))
    answer = cli("predict", "class.csv", "--model", linear, "--on-error", "report")
    assert answer.code == 0, answer.err
    back = pd.read_csv(io.StringIO(answer.out), keep_default_na=False, dtype=str)
    assert [float(x) for x in back["prediction"].iloc[good]] == alone["prediction"].tolist()
    assert (back["prediction"].iloc[dirty] == "").all()
    assert [i for i, why in enumerate(back["problem"]) if why] == dirty
    assert f"{len(good)} rows were scored" in answer.err

    plain = cli("predict", "class.csv", "--model", linear, "--on-error", "report", "--json").json
    assert plain["rows"] == 300
    assert [plain["predictions"][i] for i in good] == alone["prediction"].tolist()
    assert [problem["row"] - 1 for problem in plain["problems"]] == dirty


def test_report_of_a_table_without_a_good_row(linear, tmp_path, cli):
    (tmp_path / "many.csv").write_bytes(FILES["ten-thousand.csv"].content)
    reported = predict("many.csv", model=linear, on_error="report")
    assert len(reported) == 10_000 and reported["prediction"].isna().all() and reported["problem"].all()
    answer = cli("predict", "many.csv", "--model", linear, "--on-error", "report", "-o", "scored.csv")
    assert (answer.code, answer.out) == (0, ""), answer.err
    assert len(pd.read_csv(tmp_path / "scored.csv")) == 10_000


def test_extra_columns_are_ignored_and_said(linear, tmp_path, cli, caplog):
    table = pd.DataFrame(ROWS).assign(shoe_size=[38, 43, 37], name="É")
    with caplog.at_level(logging.WARNING, logger="studperf"):
        answers = predict(table, model=linear)
    assert answers["prediction"].tolist() == predict(ROWS, model=linear)["prediction"].tolist()
    assert answers.attrs["ignored"] == ["shoe_size", "name"]
    assert "ignored 'shoe_size', 'name'" in caplog.text
    (tmp_path / "class.csv").write_bytes(csv(table))
    answer = cli("predict", "class.csv", "--model", linear)
    assert answer.code == 0 and "ignored 'shoe_size', 'name'" in answer.err
    assert pd.read_csv(io.StringIO(answer.out)).columns.tolist() == [*table.columns, "prediction", "lower", "upper", "abstain", "abstain_reason"]
    assert cli("predict", "class.csv", "--model", linear, "--json").json["ignored"] == ["shoe_size", "name"]


def test_an_output_that_cannot_be_written_is_refused(linear, tmp_path, cli):
    (tmp_path / "class.csv").write_bytes(GOOD_CSV)
    (tmp_path / "file").write_text("")
    for output in ("scored.docx", "file/scored.csv"):
        assert_refused(cli("predict", "class.csv", "--model", linear, "-o", output), ())
        assert not (tmp_path / output).exists()
    (tmp_path / "again.csv").write_bytes(csv(pd.DataFrame(ROWS).assign(prediction=1)))
    assert_refused(cli("predict", "again.csv", "--model", linear), ("prediction",))


# Training -------------------------------------------------------------------------------------------------------------

TRAININGS = {
    "unknown target": (["--target", "happiness"], ("happiness",)),
    "a category as target": (["--target", "gender"], ("gender",)),
    "unknown family": (["--families", "linear,oracle"], ("oracle", "random_forest")),
    "no family": (["--families", ","], ("families",)),
    "a negative seed": (["--seed", "-1"], ("seed", "-1")),
    "a seed that is no number": (["--seed", "seven"], ("seed", "seven")),
    "an unknown feature set": (["--feature-set", "everything"], ("everything",)),
    "no such file": (["--data", "nowhere.csv"], ("nowhere.csv",)),
    "a very long name": (["--data", "x" * 5000], ()),
    "no address": (["--data", "http://[half"], ()),
    "another table without a target": (["--data", "other.csv"], ("name the target", "'a'")),
    "a table that is too small": (["--data", "small.csv"], ("too little", "20 rows", "at least 50")),
    "a constant target": (["--data", "constant.csv"], ("too little", "1 values")),
    "bad rows": (["--data", "dirty.csv"], ("rows cannot be used",)),
    "a header without rows": (["--data", "header.csv"], ("no rows",)),
    "no such schema": (["--schema", "nowhere.yaml"], ("nowhere.yaml",)),
    "a file that is no schema": (["--schema", "other.csv"], ("not a schema", "a mapping")),
    "a schema without columns": (["--schema", "no.yaml"], ("schema",)),
    "an output folder that is a file": (["--families", "linear", "--out", "small.csv"], ("small.csv",)),
}


@pytest.fixture
def tables(tmp_path):
    """Files for bad trainings."""
    table = simulate(200, seed=5)
    (tmp_path / "small.csv").write_bytes(csv(table.head(20)))
    (tmp_path / "constant.csv").write_bytes(csv(table.assign(math_score=7)))
    (tmp_path / "dirty.csv").write_bytes(csv(simulate(200, seed=5, dirt=0.1)))
    (tmp_path / "header.csv").write_bytes(csv(table.head(0)))
    (tmp_path / "other.csv").write_text("a,b\n1,2\n3,4\n5,7\n")
    (tmp_path / "no.yaml").write_text("title: nothing\n")
    return tmp_path


@pytest.mark.parametrize("what", TRAININGS)
def test_a_training_that_cannot_be_is_refused(what, tables, cli, command):
    arguments, says = TRAININGS[what]
    before = sorted(path.name for path in tables.iterdir())
    run = cli if what in ("unknown target", "unknown family", "a seed that is no number", "a table that is too small") else command
    assert_refused(run("train", *arguments), says)
    assert sorted(path.name for path in tables.iterdir()) == before, "a refused training leaves no run folder"
    assert_refused_as_json(command("train", *arguments, "--json"), says)


@pytest.mark.parametrize(
    "options",
    [{"seed": True}, {"seed": 1.5}, {"seed": "1"}, {"seed": 2**32}, {"families": []}, {"families": ["Linear"]}, {"feature_set": None},
     {"target": "happiness"}, {"on_error": "ignore"}, {"data": 5}, {"data": [1, 2]}, {"data": "x" * 5000}, {"data": "a\0b"}, {"data": "http://[half"},
     {"schema": 5}, {"schema": {}}, {"families": "linear,oracle"}, {"target": 5}],
    ids=lambda options: str(options)[:40],
)  # fmt: skip
def test_a_wrong_argument_of_train_is_refused(options, tmp_path):
    with pytest.raises(InputError):
        train(**({"data": "exams", "families": ["linear"], "out": tmp_path / "out"} | options))
    assert not (tmp_path / "out").exists()


def test_training_with_report_leaves_bad_rows_out_and_lists_them(tables, cli):
    answer = cli("train", "--data", "dirty.csv", "--families", "linear", "--on-error", "report", "--json")
    assert answer.code == 0, answer.err
    plain = answer.json
    split = pd.read_csv(tables / plain["run"] / "split.csv", keep_default_na=False)
    refused = split[split["part"] == "refused"]
    assert len(split) == 200 and len(refused) == plain["data"]["refused"] > 0
    assert refused["problem"].str.contains("expected").all()
