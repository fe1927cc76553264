"""What holds for every table: a prediction depends on its own row and on nothing else, and junk never breaks more than its row."""

from __future__ import annotations

import datetime
import decimal
import fractions
import io

import numpy as np
import pandas as pd
import pytest
from conftest import size
from hypothesis import example, given, settings
from hypothesis import strategies as st

from studperf import InputError, load_model, predict, simulate
from studperf.datasets import exam_schema

FEATURES = exam_schema().features()
NAMES = [column.name for column in FEATURES]
SERVED = ["linear", "random_forest", "knn", "mlp"]  # by lookup tables; by pipelines of trees, of distances, of products of matrices
PUBLISHED = {
    "race_ethnicity": "race/ethnicity", "parental_level_of_education": "parental level of education",
    "test_preparation_course": "test preparation course", "reading_score": "reading score", "writing_score": "writing score",
}  # fmt: skip
HEADERS = [lambda name: name, lambda name: PUBLISHED.get(name, name), str.upper, lambda name: f" {name.replace('_', ' ').title()} ",
           lambda name: {"race_ethnicity": "ethnicity", "gender": "sex"}.get(name, name)]  # fmt: skip


def cells(column) -> st.SearchStrategy:
    """Any value that the schema allows."""
    if column.kind == "category":
        return st.sampled_from(column.categories)
    numbers = st.floats(column.low, column.high) | st.integers(int(column.low), int(column.high))
    return numbers | st.sampled_from([-0.0, 5e-324, float(column.low), float(column.high)])


students = st.fixed_dictionaries({column.name: cells(column) for column in FEATURES})
classes = st.lists(students, min_size=1, max_size=12)


def scored(table: object, model: object) -> bytes:
    """The predictions to the last bit; finite and inside the target's range."""
    values = predict(table, model=model)["prediction"].to_numpy()
    assert values.dtype == np.float64 and np.isfinite(values).all() and (values >= 0).all() and (values <= 100).all()
    return values.tobytes()


@pytest.fixture(params=SERVED)
def model(request, bundles):
    """A loaded bundle of each kind."""
    return load_model(bundles(request.param))


def test_the_bundles_are_served_as_this_page_says(bundles):
    kinds = {family: load_model(bundles(family)).manifest["predictor"]["kind"] for family in SERVED}
    assert kinds == {"linear": "additive", "random_forest": "trees", "knn": "pipeline", "mlp": "pipeline"}


# A prediction depends on its own row ----------------------------------------------------------------------------------


@given(rows=classes, data=st.data())
def test_row_order_chunks_index_columns_and_headers_do_not_matter(model, rows, data):
    table = pd.DataFrame(rows)
    expected = scored(table, model)
    numbers = np.frombuffer(expected)

    order = data.draw(st.permutations(range(len(rows))), label="row order")
    assert scored(table.iloc[order], model) == numbers[order].tobytes()

    cut = data.draw(st.integers(0, len(rows)), label="cut")
    assert b"".join(scored(part, model) for part in (table[:cut], table[cut:]) if len(part)) == expected

    columns = data.draw(st.permutations(NAMES), label="column order")
    assert scored(table[columns], model) == expected
    assert scored([{name: row[name] for name in columns} for row in rows], model) == expected

    labels = data.draw(st.lists(st.text(max_size=3) | st.none() | st.integers(), min_size=len(rows), max_size=len(rows)), label="index")
    labelled = table.set_axis(pd.Index(labels, dtype=object), axis=0)
    assert scored(labelled, model) == expected
    assert predict(labelled, model=model).index is labelled.index

    spell = data.draw(st.sampled_from(HEADERS), label="headers")
    assert scored(table.rename(columns=spell), model) == expected


@settings(max_examples=size(20, 300))
@given(rows=classes)
def test_the_form_of_the_table_does_not_matter(model, rows, tmp_path):
    table = pd.DataFrame(rows)
    expected = scored(table, model)
    assert scored(rows, model) == expected
    assert b"".join(scored(row, model) for row in rows) == expected
    for same in (table.astype(object), table.astype({name: "category" for name in NAMES}), table.convert_dtypes(), table.assign(math_score=1)):
        assert scored(same, model) == expected
    assert scored(table.map(lambda cell: repr(cell) if isinstance(cell, (int, float)) else f" {cell} "), model) == expected
    table.to_csv(tmp_path / "class.csv", index=False)
    table.to_csv(tmp_path / "semicolons.csv", index=False, sep=";")
    table.to_parquet(tmp_path / "class.parquet")
    for name in ("class.csv", "semicolons.csv", "class.parquet"):
        assert scored(tmp_path / name, model) == expected


@given(rows=classes, bad=st.dictionaries(st.integers(0, 11), st.sampled_from(NAMES), min_size=1))
def test_bad_neighbours_do_not_matter(model, rows, bad):
    expected = np.frombuffer(scored(rows, model))
    spoilt = [row | {bad[i]: "abc"} if i in bad else row for i, row in enumerate(rows)]
    answers = predict(spoilt, model=model, on_error="report")
    good = np.array([i not in bad for i in range(len(rows))])
    assert answers["prediction"].to_numpy()[good].tobytes() == expected[good].tobytes()
    assert answers["prediction"].isna().tolist() == (~good).tolist()


def random_table(n: int = 20_000) -> pd.DataFrame:
    """Every combination is as likely as any other; half of the scores have all their digits."""
    rng = np.random.default_rng(7)
    table = {}
    for column in FEATURES:
        if column.kind == "category":
            table[column.name] = rng.choice(np.array(column.categories, object), n)
        else:
            values = rng.uniform(column.low, column.high, n)
            table[column.name] = np.where(rng.random(n) < 0.5, values, values.round())
    return pd.DataFrame(table)


@pytest.mark.parametrize("family", SERVED)
def test_all_surfaces_give_the_same_bits_on_twenty_thousand_rows(family, bundles, tmp_path, cli):
    folder, table = bundles(family), random_table()
    model, expected = load_model(folder), scored(table, folder)
    assert len(np.unique(np.frombuffer(expected))) > 1000
    rows = table.to_dict("records")
    assert scored(rows, model) == expected

    singly = size(5000 if family == "linear" else 250, len(rows))  # a pipeline takes 10 ms a call
    assert b"".join(scored(row, model) for row in rows[:singly]) == expected[: 8 * singly]

    table.to_csv(tmp_path / "class.csv", index=False)
    table.to_parquet(tmp_path / "class.parquet", index=False)
    assert scored(tmp_path / "class.csv", folder) == scored(tmp_path / "class.parquet", folder) == expected

    def back(values) -> bytes:
        return np.array([float(value) for value in values]).tobytes()

    answer = cli("predict", "class.csv", "--model", folder)
    assert back(pd.read_csv(io.StringIO(answer.out), dtype=str)["prediction"]) == expected, answer.err
    answer = cli("predict", "-", "--model", folder, "--json", stdin=(tmp_path / "class.parquet").read_bytes())
    assert back(answer.json["predictions"]) == expected
    assert cli("predict", "class.parquet", "--model", folder, "-o", "scored.parquet").code == 0
    scored_file = pd.read_parquet(tmp_path / "scored.parquet")
    assert scored_file["prediction"].to_numpy().tobytes() == expected
    known = predict(table, model=folder)
    assert scored_file[["lower", "upper"]].to_numpy().tobytes() == known[["lower", "upper"]].to_numpy().tobytes()
    pd.testing.assert_frame_equal(scored_file.drop(columns=list(known)), table, check_dtype=False)
    print(f"{family}: {len(rows):,} rows, {singly:,} of them singly, equal to the last bit on every surface")


# Junk -----------------------------------------------------------------------------------------------------------------

junk = st.one_of(
    st.none(), st.booleans(), st.text(max_size=20), st.binary(max_size=8), st.integers(), st.floats(), st.complex_numbers(),
    st.sampled_from([pd.NA, pd.NaT, 10**400, np.float32("nan"), np.int8(-1), np.bool_(True), np.longdouble("1e4000"), object(), int, "٣", "1_000",
                     "０", "0x10", "1e5", " 7 ", "−5", "nan", "Infinity", "None", "NULL", "\ud800", "male\u200b"]),
    st.decimals(), st.fractions(), st.dates(), st.datetimes(), st.timedeltas(), st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2), st.builds(np.array, st.lists(st.floats(), max_size=2)),
)  # fmt: skip


@st.composite
def spoilt_classes(draw) -> tuple[list[dict], set[int]]:
    """A class in which arbitrary cells hold arbitrary junk, and the rows that were touched."""
    rows = draw(st.lists(students, min_size=1, max_size=8))
    places = draw(st.lists(st.tuples(st.integers(0, len(rows) - 1), st.sampled_from(NAMES)), min_size=1, max_size=6))
    for row, name in places:
        rows[row] = rows[row] | {name: draw(junk)}
    return rows, {row for row, _ in places}


@given(spoilt=spoilt_classes())
def test_junk_breaks_only_its_row(model, spoilt):
    rows, touched = spoilt
    frame = pd.DataFrame({name: pd.Series([row[name] for row in rows], dtype=object) for name in NAMES})
    reported = predict(rows, model=model, on_error="report")
    assert len(reported) == len(rows)
    bad = {i for i, why in enumerate(reported["problem"]) if why}
    assert bad <= touched, "only what was spoilt is refused"
    assert set(np.flatnonzero(reported["prediction"].isna())) == bad
    good = [row for i, row in enumerate(rows) if i not in bad]
    assert reported["prediction"].dropna().to_numpy().tobytes() == (scored(good, model) if good else b"")
    pd.testing.assert_frame_equal(predict(frame, model=model, on_error="report"), reported, check_exact=True)
    for table in (rows, frame):
        try:
            answers = predict(table, model=model)
        except InputError as error:
            assert {problem.row - 1 for problem in error.problems} == bad
            assert len(str(error).splitlines()) <= 20
            error.to_dict()
        else:
            assert not bad and answers["prediction"].notna().all()


@given(cell=junk)
def test_only_what_reads_as_an_allowed_number_is_taken_for_one(cell, linear):
    row = simulate(1, seed=2).drop(columns="math_score").to_dict("records")[0]
    accepted = predict([row | {"reading_score": cell}], model=linear, on_error="report")["problem"].iloc[0] == ""
    if accepted:
        assert not isinstance(cell, (bool, np.bool_, bytes, complex, decimal.Decimal, datetime.date, datetime.timedelta, list, dict, np.ndarray))
        number = float(cell.strip()) if isinstance(cell, str) else float(cell)
        assert 0 <= number <= 100
        assert scored([row | {"reading_score": cell}], linear) == scored([row | {"reading_score": number}], linear)
    elif isinstance(cell, (int, float, fractions.Fraction)) and not isinstance(cell, bool):
        assert not 0 <= cell <= 100


@given(headers=st.lists(st.sampled_from([*NAMES, *PUBLISHED.values(), "sex", "ethnicity", "math_score", "", "x"]) | st.text(max_size=4), max_size=12))
def test_any_headers_are_matched_or_refused(headers, linear):
    row = simulate(1, seed=2).to_dict("records")[0]
    known = {name: row[name] for name in NAMES} | {PUBLISHED[name]: row[name] for name in PUBLISHED}
    known |= {"sex": row["gender"], "ethnicity": row["race_ethnicity"]}
    table = pd.DataFrame([[known.get(header, 1) for header in headers]], columns=pd.Index(headers, dtype=object))
    try:
        answers = predict(table, model=linear)
    except InputError as error:
        assert len(str(error).splitlines()) <= 20
    else:
        assert answers["prediction"].tolist() == predict([row], model=linear)["prediction"].tolist()


# Files ----------------------------------------------------------------------------------------------------------------


def read_or_refused(path, linear) -> bool:
    """Was the file read? It may be, or it may be refused, and nothing else."""
    try:
        answers = predict(path, model=linear, on_error="report")
    except InputError as error:
        assert len(str(error).splitlines()) <= 20
        return False
    assert (answers["prediction"].isna() == (answers["problem"] != "")).all()
    return True


@settings(max_examples=size(200, 5000))
@given(content=st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_table_or_are_refused(content, linear, tmp_path):
    (tmp_path / "junk.csv").write_bytes(content)
    read_or_refused(tmp_path / "junk.csv", linear)


@settings(max_examples=size(200, 5000))
@given(content=st.binary(max_size=40), place=st.floats(0, 1), cut=st.integers(0, 40))
@example(content=b"\0\0\0", place=0.5, cut=3)  # in a Parquet file: inside the names of columns and what pandas wrote about them
@example(content=b"\0\0\x80", place=0.5, cut=3)
@example(content=b"\x80", place=0.046875, cut=1)  # inside a text, which is then no UTF-8
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_damaged_file_is_a_table_or_is_refused(form, content, place, cut, linear, tmp_path):
    table, path = simulate(20, seed=6).drop(columns="math_score"), tmp_path / f"class.{form}"
    whole = table.to_csv(index=False).encode() if form == "csv" else table.to_parquet(index=False)
    start = int(place * len(whole))
    path.write_bytes(whole[:start] + content + whole[start + cut :])
    read_or_refused(path, linear)


@settings(max_examples=size(100, 2000))
@given(length=st.floats(0, 1))
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_truncated_file_never_invents_a_student(form, length, linear, tmp_path):
    table, path = simulate(20, seed=6).drop(columns="math_score"), tmp_path / f"class.{form}"
    whole = table.to_csv(index=False).encode() if form == "csv" else table.to_parquet(index=False)
    kept = whole[: int(length * len(whole))]
    path.write_bytes(kept)
    if read_or_refused(path, linear):
        assert form == "csv" or kept == whole, "half a Parquet file is not a table"
        answers = predict(path, model=linear, on_error="report")
        complete = kept.count(b"\n") - 1 if form == "csv" else len(table)
        assert len(answers) in (complete, complete + 1)  # a last line without its line end may be whole, or be cut inside its last cell
        assert answers["prediction"].iloc[:complete].tolist() == predict(table, model=linear)["prediction"].iloc[:complete].tolist()
