"""Files of students, scored in pieces: the same bits as everywhere, flat memory, and no way in for a bad file."""

from __future__ import annotations

import csv
import datetime
import decimal
import io
import itertools
import json
import subprocess
import sys
import tempfile
import time
from functools import cache

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import clean_environment, size
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_bad_input import FILES

from studperf import InputError, load_model, predict, simulate
from studperf.datasets import exam_schema
from studperf.service.parquet import score_parquet
from studperf.service.uploads import LONGEST_CELL, MOST_COLUMNS, TooLarge, features_json, file_kind, score_csv

RESULTS = ["prediction", "lower", "upper", "abstain", "abstain_reason", "problem", "prediction_id"]
NAMES = [column.name for column in exam_schema().features()]


def new_ids():
    """Ids that count on: the callable that the service gives."""
    count = itertools.count()
    return lambda n: [f"{next(count):032x}" for _ in range(n)]


def scored_csv(content: bytes, model, **options) -> bytes:
    return b"".join(score_csv(io.BytesIO(content), model, **{"rows_limit": 10**6, "new_ids": new_ids()} | options))


def scored_parquet(content: bytes, model, **options) -> pa.Table:
    answer = b"".join(score_parquet(io.BytesIO(content), model, **{"rows_limit": 10**6, "new_ids": new_ids()} | options))
    return pq.read_table(io.BytesIO(answer))


def as_csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False).encode()


def as_parquet(table: pd.DataFrame | pa.Table, **options) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table if isinstance(table, pa.Table) else pa.Table.from_pandas(table, preserve_index=False), buffer, **options)
    return buffer.getvalue()


def rows_of(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


def without_ids(content: bytes) -> list[str]:
    return [line.rpartition(",")[0] for line in content.decode().splitlines()]


@cache
def dirty(n: int = 20_000) -> pd.DataFrame:
    """A school of whom one in a hundred has an impossible cell."""
    return simulate(n, seed=17, dirt=0.01)


@pytest.fixture(scope="module")
def model(linear):
    return load_model(linear)


# The same bits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [None, 60.0])
def test_a_csv_comes_back_as_the_command_line_writes_it(threshold, model, linear, command, tmp_path):
    content = as_csv(dirty())
    (tmp_path / "class.csv").write_bytes(content)
    options = () if threshold is None else ("--threshold", threshold)
    answer = command("predict", "class.csv", "--model", linear, "--on-error", "report", "-o", "out.csv", *options)
    assert answer.code == 0, answer.err
    ours = scored_csv(content, model, threshold=threshold)
    assert without_ids(ours) == (tmp_path / "out.csv").read_text().splitlines()

    expected = predict(dirty(), model=model, threshold=threshold, on_error="report")
    back = rows_of(ours)
    for name in [name for name in expected if expected[name].dtype.kind == "f"]:
        assert np.array_equal([float(row[name] or "nan") for row in back], expected[name].to_numpy(), equal_nan=True)
    bad = len(dirty().attrs["dirty_rows"])
    assert 150 < bad < 250 and sum(bool(row["problem"]) for row in back) == bad
    ids = [row["prediction_id"] for row in back if row["prediction_id"]]
    assert len(set(ids)) == len(ids) == len(back) - bad


def test_a_parquet_comes_back_as_the_command_line_writes_it(model, linear, command, tmp_path):
    texts = as_parquet(dirty().astype(str).replace({"nan": None, "None": None}))
    numbers = simulate(20_000, seed=18).astype({"reading_score": float})
    numbers.loc[::100, "reading_score"], numbers.loc[1::100, "reading_score"] = 5000.0, np.nan
    for content in (texts, as_parquet(numbers, row_group_size=7_000)):
        (tmp_path / "class.parquet").write_bytes(content)
        answer = command("predict", "class.parquet", "--model", linear, "--on-error", "report", "-o", "out.parquet")
        assert answer.code == 0, answer.err
        ours, theirs = scored_parquet(content, model), pq.read_table(tmp_path / "out.parquet").replace_schema_metadata()
        assert ours.column_names == [*theirs.column_names, "prediction_id"]
        for name in theirs.column_names:
            assert ours[name].cast(theirs[name].type).equals(theirs[name]), name
        assert ours.select(numbers.columns.tolist()).equals(pq.read_table(io.BytesIO(content)).replace_schema_metadata())
        assert ours["problem"].to_pylist().count("") == 20_000 - (pa.compute.sum(pa.compute.not_equal(theirs["problem"], "")).as_py())


def test_another_family_answers_alike(bundles):
    model, table = load_model(bundles("random_forest")), simulate(100, seed=19, dirt=0.05)
    expected = predict(table, model=model, on_error="report")["prediction"].to_numpy()
    back = rows_of(scored_csv(as_csv(table), model, chunk=37))
    assert np.array_equal([float(row["prediction"] or "nan") for row in back], expected, equal_nan=True)
    clean = simulate(100, seed=20)
    back = scored_parquet(as_parquet(clean), model, chunk=37)
    assert back["prediction"].to_numpy().tobytes() == predict(clean, model=model)["prediction"].to_numpy().tobytes()


NUMERIC = {
    "whole": ["72", " 101", "+5"], "a gap": ["72", "", "5000"], "fractions": ["72.5", "1e999", "-0"], "labels": ["007", "5000", "71"],
    "long": ["1" * 17, "70", "-3"], "text": ["72", "abc", "5000"], "nothing": ["", " ", ""],
}  # fmt: skip


@pytest.mark.parametrize("what", NUMERIC)
@pytest.mark.parametrize("chunk", [1, 3])
def test_messages_show_a_value_as_the_type_of_its_column_has_it(what, chunk, model, tmp_path):
    table = simulate(3, seed=1).astype(str).assign(reading_score=NUMERIC[what])
    (tmp_path / "class.csv").write_bytes(as_csv(table))
    expected = predict(tmp_path / "class.csv", model=model, on_error="report")["problem"].tolist()
    assert [row["problem"] for row in rows_of(scored_csv(as_csv(table), model, chunk=chunk))] == expected


# Nothing lost ---------------------------------------------------------------------------------------------------------

anything = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@example(cells=["a\rb", "c\nd", '"', "=1+1", ";", "\ufeff"], separator=";", chunk=1)
@given(cells=st.lists(anything, min_size=1, max_size=6), separator=st.sampled_from(",;\t"), chunk=st.integers(1, 4))
def test_the_callers_cells_come_back_as_they_were(cells, separator, chunk, model):
    table = simulate(len(cells), seed=2)[NAMES]
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=separator, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows(
        [["note", *NAMES], *zip(cells, *map(table.get, NAMES), strict=True)]
    )
    back = rows_of(scored_csv(out.getvalue().encode(), model, chunk=chunk))
    assert [row["note"] for row in back] == cells
    assert [float(row["prediction"]) for row in back] == predict(table, model=model)["prediction"].tolist()


LINES = as_csv(simulate(12, seed=3, dirt=0.3)).decode().splitlines()
odd_lines = st.sampled_from(LINES[1:]) | st.sampled_from(["x", ",,,,,,,", LINES[1] + ",9", "", '"a\nb",c', LINES[2].replace("male", '"male"')])


@given(lines=st.lists(odd_lines, min_size=1, max_size=12).filter(any), chunk=st.integers(1, 13), end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_where_the_pieces_end_does_not_matter(lines, chunk, end, model):
    content = end.join([LINES[0], *lines]).encode()
    whole = scored_csv(content, model, chunk=1000)
    assert scored_csv(content, model, chunk=chunk) == whole
    assert len(rows_of(whole)) == sum(bool(line) for line in lines)


def test_rows_with_too_many_or_too_few_cells_are_bad_rows(model):
    content = "\n".join([LINES[0], LINES[1], "female,group A", LINES[2] + ",99", LINES[3]]).encode()
    told = []
    back = rows_of(scored_csv(content, model, on_scored=lambda checked, answers, ids: told.append((checked, ids))))
    assert [row["problem"] for row in back][1:3] == [
        f"{found} cells; expected 8 cells, as in the header (line {line} of the file)" for found, line in ((2, 3), (9, 4))
    ]
    assert back[1]["race_ethnicity"] == "group A" and back[1]["lunch"] == "" and None not in back[2]
    ((checked, ids),) = told
    assert [problem.row for problem in checked.problems if problem.column is None] == [2, 3]
    assert [bool(one) for one in ids] == checked.good.tolist()


def test_what_was_scored_is_told_before_it_is_sent(model):
    table, told = simulate(50, seed=4, dirt=0.2), []
    for score, content in ((score_csv, as_csv(table)), (score_parquet, as_parquet(table.astype(str)))):
        told.clear()
        sent = score(io.BytesIO(content), model, rows_limit=50, new_ids=new_ids(), chunk=10, on_scored=lambda *scored: told.append(scored))
        assert not told
        for _ in sent:
            pass
        assert len(told) == 5
        features = [json.loads(text) for checked, _, _ in told for text in features_json(checked)]
        answers = [float(value) for checked, answers, _ in told for value in answers["prediction"][checked.good]]
        assert answers == predict(features, model=model)["prediction"].tolist()
        assert len({one for _, _, ids in told for one in ids if one}) == len(features) < 50


def test_no_text_of_ours_is_a_formula(model):
    table = simulate(200, seed=5, dirt=0.5).assign(note="=1+1")
    for row in rows_of(scored_csv(as_csv(table), model)):
        assert row["note"] == "=1+1"
        assert not any(row[name].startswith(("=", "+", "-", "@")) for name in RESULTS)


def test_a_spooled_file_stays_open_on_disk_and_in_memory(model):
    content = as_csv(simulate(100, seed=6))
    for most in (10, 10**6):
        with tempfile.SpooledTemporaryFile(max_size=most) as file:
            file.write(content)
            assert file_kind(file) == "csv"
            assert len(list(score_csv(file, model, rows_limit=100, new_ids=new_ids(), chunk=40))) == 4
            assert not file.closed
        with tempfile.SpooledTemporaryFile(max_size=most) as file:
            file.write(as_parquet(simulate(100, seed=6)))
            assert file_kind(file) == "parquet"
            assert list(score_parquet(file, model, rows_limit=100, new_ids=new_ids(), chunk=40))
            assert not file.closed


# What is refused ------------------------------------------------------------------------------------------------------

BAD_ROWS_HERE = ("mid-row.csv", "mid-first-row.csv", "one-cell-more.csv", "ten-thousand.csv")  # there the whole file is refused
ADVICE = ("zip.csv",)  # here told what to do


@pytest.mark.parametrize("name", [name for name in FILES if name not in BAD_ROWS_HERE])
def test_a_bad_file_is_refused_as_everywhere(name, model, tmp_path):
    (tmp_path / name).write_bytes(FILES[name].content)
    with pytest.raises(InputError) as theirs:
        predict(name, model=model)
    file = io.BytesIO(FILES[name].content)
    with pytest.raises(InputError) as ours:
        score = score_parquet if file_kind(file) == "parquet" else score_csv
        score(file, model, rows_limit=10**6, new_ids=new_ids())
    if name not in ADVICE:
        assert str(ours.value) == str(theirs.value).replace(name, "The file")


@pytest.mark.parametrize("name", BAD_ROWS_HERE)
def test_a_file_of_bad_rows_is_answered(name, model):
    back = rows_of(scored_csv(FILES[name].content, model))
    assert any(row["problem"] for row in back) and all(bool(row["problem"]) != bool(row["prediction"]) for row in back)


def test_limits(model):
    table = simulate(30, seed=7)
    wide = pd.concat([table, pd.DataFrame({f"c{i}": [1] * 30 for i in range(MOST_COLUMNS)})], axis=1)
    for content, says in (
        (as_csv(table), "more than 29 rows"),
        (as_csv(wide), "508 columns"),
        (as_csv(table.head(20).assign(note="x" * (LONGEST_CELL + 1))), "a cell of more than 32,767 characters at line 2"),
        (LINES[0].encode() + b"\n" + 2_000_000 * b"x", "a row of more than"),
        (LINES[0].encode() + b"\n" + 2_000_000 * b"x\n", "more than 29 rows"),
        (LINES[0].encode() + b"\n" + 300_000 * b'"a\n",', "perhaps a quotation"),
    ):
        with pytest.raises(TooLarge, match=says):
            score_csv(io.BytesIO(content), model, rows_limit=29, new_ids=new_ids())
    for content, says in (
        (as_parquet(table), "more than 29 rows"),
        (as_parquet(wide.head(20)), "508 columns"),
        (as_parquet(table.head(20).assign(note="x" * (LONGEST_CELL + 1))), "holds too much: 32,767 bytes in a cell"),
    ):
        with pytest.raises(TooLarge, match=says):
            score_parquet(io.BytesIO(content), model, rows_limit=29, new_ids=new_ids())
    for options in ({"level": 90}, {"threshold": float("nan")}):
        with pytest.raises(InputError):
            score_csv(io.BytesIO(as_csv(table)), model, rows_limit=30, new_ids=new_ids(), **options)


@pytest.mark.parametrize("name", ["prediction", "abstain_reason", "problem", "prediction_id"])
def test_a_result_never_overwrites_a_column(name, model):
    table = simulate(3, seed=8).assign(**{name: 1})
    for score, content in ((score_csv, as_csv(table)), (score_parquet, as_parquet(table))):
        with pytest.raises(InputError, match="stands in the input already"):
            score(io.BytesIO(content), model, rows_limit=3, new_ids=new_ids())


def refused_or_answered(content: bytes, model) -> None:
    """Nothing but an InputError, and that before the first byte."""
    file = io.BytesIO(content)
    try:
        score = score_parquet if file_kind(file) == "parquet" else score_csv
        sent = score(file, model, rows_limit=1000, new_ids=new_ids(), chunk=3)
    except InputError as error:
        assert len(str(error)) < 10_000 and len(str(error).splitlines()) < 20
    else:
        assert b"".join(sent)


@settings(max_examples=size(200, 20_000))
@given(content=st.binary(max_size=200))
def test_any_bytes_are_refused_or_answered(content, model):
    refused_or_answered(content, model)
    refused_or_answered(LINES[0].encode() + b"\n" + content, model)
    refused_or_answered(b"PAR1" + content, model)
    refused_or_answered(b"PAR1" + content + len(content).to_bytes(4, "little") + b"PAR1", model)


@settings(max_examples=size(200, 20_000))
@given(text=st.text(st.sampled_from("a1\",;\t\n\r'é\x0b\u2028=\ufeff"), max_size=60))
def test_any_text_is_refused_or_answered(text, model):
    refused_or_answered(text.encode(), model)
    refused_or_answered("\n".join([*LINES[:3], text]).encode(), model)


WRITTEN = [
    as_parquet(simulate(40, seed=9), **options)
    for options in ({}, {"compression": "zstd", "use_dictionary": False}, {"compression": "none", "data_page_version": "2.0", "row_group_size": 11},
                    {"write_page_checksum": True, "data_page_size": 100}, {"compression": "gzip", "write_statistics": False, "version": "1.0"},
                    {"column_encoding": {"reading_score": "DELTA_BINARY_PACKED", "writing_score": "BYTE_STREAM_SPLIT"}, "use_dictionary": False})
]  # fmt: skip


@pytest.mark.parametrize("content", WRITTEN)
def test_ways_of_writing_do_not_matter(content, model):
    expected = predict(simulate(40, seed=9), model=model)["prediction"].to_numpy()
    assert scored_parquet(content, model)["prediction"].to_numpy().tobytes() == expected.tobytes()


@settings(max_examples=size(200, 20_000))
@given(content=st.sampled_from(WRITTEN), data=st.data())
def test_a_damaged_parquet_is_refused_or_answered(content, data, model):
    spoilt = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        spoilt[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.just(0) | st.integers(0, len(content)))
    refused_or_answered(bytes(spoilt[: len(spoilt) - cut]), model)


# Types of Parquet -----------------------------------------------------------------------------------------------------

CARRIED = {
    "text": pa.array(["é", None, ""]), "large text": pa.array(["a", None, "b"], pa.large_string()), "bytes": pa.array([b"\xff", None, b""]),
    "whole": pa.array([1, None, -(2**63)]), "unsigned": pa.array([2**64 - 1, 0, 1], pa.uint64()), "truth": pa.array([True, None, False]),
    "half": pa.array([1.5, 2, None], pa.float16()), "float": pa.array([1.1, 2, None], pa.float32()), "nothing": pa.nulls(3),
    "date": pa.array([datetime.date(2024, 2, 29), None, datetime.date(1, 1, 1)]), "time": pa.array([1, 2, None], pa.time64("us")),
    "moment": pa.array([1, None, 3], pa.timestamp("ns")), "zone": pa.array([1, None, 3], pa.timestamp("us", tz="Europe/Paris")),
    "span": pa.array([1, 2, None], pa.duration("ms")), "decimal": pa.array([decimal.Decimal("72.50"), None, decimal.Decimal("-1.00")]),
    "fixed": pa.array([b"ab", None, b"cd"], pa.binary(2)), "uuid": pa.array([b"a" * 16, None, b"b" * 16], pa.uuid()),
}  # fmt: skip


@pytest.mark.parametrize("what", CARRIED)
def test_a_column_of_any_plain_type_is_carried(what, model):
    table = pa.Table.from_pandas(simulate(3, seed=10)[NAMES], preserve_index=False).append_column("own", CARRIED[what])
    back = scored_parquet(as_parquet(table), model, chunk=2)
    assert back["own"].combine_chunks().equals(pq.read_table(io.BytesIO(as_parquet(table)))["own"].combine_chunks())


def test_a_view_comes_back_as_what_it_is_a_view_of(model):
    table = pa.Table.from_pandas(simulate(3, seed=10), preserve_index=False).cast(
        pa.schema(
            [(name, pa.string_view()) for name in ["gender", "race_ethnicity"]]
            + [(name, pa.string()) for name in NAMES[2:]]
            + [("math_score", "int64")]
        )
    )
    back = scored_parquet(as_parquet(table.append_column("own", pa.array([b"\xff", None, b""], pa.binary_view()))), model)
    assert [str(back.schema.field(name).type) for name in ("gender", "own")] == ["string", "binary"]
    assert back["prediction"].to_pylist() == predict(simulate(3, seed=10), model=model)["prediction"].tolist()


@pytest.mark.parametrize("encoded", [["x", "y", None], [5, 6, 5], [b"a", b"b", None]], ids=str)
def test_a_dictionary_comes_back_as_what_it_is_a_dictionary_of(encoded, model):
    table = pa.Table.from_pandas(simulate(3, seed=10)[NAMES], preserve_index=False).append_column("own", pa.array(encoded).dictionary_encode())
    assert scored_parquet(as_parquet(table), model)["own"].to_pylist() == encoded


NEEDED = {"text": ["72", "abc", None], "whole": [72, 5000, None], "small": pa.array([72, 5000, 1], pa.int16()),
          "unsigned": pa.array([2**64 - 1, 0, 1], pa.uint64()),
          "half": pa.array([72.5, None, 1e4], pa.float16()), "float": pa.array([72.1, -1, np.nan], pa.float32()), "truth": [True, False, None],
          "decimal": [decimal.Decimal("72.50")] * 3, "nothing": pa.nulls(3), "dictionary": pa.array([72, 5000, 72]).dictionary_encode(),
          "large text": pa.array(["72", " 5 ", "x"], pa.large_string())}  # fmt: skip


@pytest.mark.parametrize("column", ["reading_score", "lunch"])
@pytest.mark.parametrize("what", NEEDED)
def test_a_needed_column_of_any_type_is_judged_as_everywhere(what, column, model, tmp_path):
    table = pa.Table.from_pandas(simulate(3, seed=10)[NAMES], preserve_index=False)
    table = table.set_column(NAMES.index(column), column, pa.chunked_array([pa.array(NEEDED[what])]))
    (tmp_path / "class.parquet").write_bytes(as_parquet(table))
    theirs = predict("class.parquet", model=model, on_error="report")
    ours = scored_parquet(as_parquet(table), model, chunk=2)
    assert np.array_equal(ours["prediction"].to_numpy(), theirs["prediction"].to_numpy(), equal_nan=True)
    assert ours["problem"].to_pylist() == theirs["problem"].tolist()


@pytest.mark.parametrize("what", ["date", "moment", "time", "span", "bytes", "fixed", "uuid"])
def test_a_needed_column_that_cannot_be_used_is_refused(what, model):
    table = pa.Table.from_pandas(simulate(3, seed=10)[NAMES], preserve_index=False).set_column(0, NAMES[0], CARRIED[what])
    with pytest.raises(InputError, match=f"{NAMES[0]}: a column of type .*; expected numbers or text"):
        scored_parquet(as_parquet(table), model)


# A process of its own -------------------------------------------------------------------------------------------------

CHILD = """
import io, itertools, json, sys, tempfile, time
from studperf.prediction import load_model
from studperf.service.uploads import score_csv
from studperf.schema import InputError
peak = lambda: next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
model, kind, megabytes = load_model(sys.argv[1]), sys.argv[2], int(sys.argv[3])
ids = lambda n: ["0" * 32] * n
"""
CSV_CHILD = (
    CHILD
    + """
header = "gender,race_ethnicity,parental_level_of_education,lunch,test_preparation_course,reading_score,writing_score,name\\n"
def write(file, size):
    for i in itertools.count():
        if file.tell() >= size: return i * 1000
        lines = (f"female,group B,bachelor's degree,standard,none,{j % 101},{j % 101},{'pupil ' * 40}{i} {j}\\n" for j in range(1000))
        file.write("".join(lines).encode())
with tempfile.TemporaryFile() as file:
    file.write(header.encode()); write(file, 500_000)
    list(score_csv(file, model, rows_limit=10**9, new_ids=ids))
    base = peak()
    file.seek(0); file.truncate(); file.write(header.encode())
    rows = write(file, megabytes * 2**20)
    begin = time.process_time()
    sent = sum(map(len, score_csv(file, model, rows_limit=10**9, new_ids=ids)))
    spent = time.process_time() - begin
heavy = [name for name in ("pandas", "sklearn", "pyarrow", "scipy", "mlflow", "shap") if name in sys.modules]
print(json.dumps({"rows": rows, "sent": sent, "base": base, "peak": peak(), "us": spent / rows * 1e6, "heavy": heavy}))
"""
)


def child(code: str, *args: object) -> dict:
    done = subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, env=clean_environment(), timeout=900)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_memory_does_not_grow_with_the_file_and_nothing_heavy_is_imported(linear):
    found = child(CSV_CHILD, linear, "csv", size(20, 200))
    print(f"CSV: {found['rows']:,} rows, {found['us']:.1f} us of CPU a row, {found['base']:.0f} MB before, {found['peak']:.0f} MB at most")
    assert found["heavy"] == []
    assert found["peak"] < found["base"] + 40


PARQUET_CHILD = (
    CHILD
    + """
from studperf.service.parquet import score_parquet
with open(sys.argv[4], "rb") as file, open(sys.argv[5], "rb") as small:
    list(score_parquet(small, model, rows_limit=10**7, new_ids=ids))
    base, said, begin = peak(), "", time.process_time()
    try:
        said = sum(map(len, score_parquet(file, model, rows_limit=1_000_000, new_ids=ids)))
    except InputError as error:
        said = str(error)
print(json.dumps({"said": said, "base": base, "peak": peak(), "seconds": time.process_time() - begin, "pandas": "pandas" in sys.modules}))
"""
)


def parquet_child(linear, tmp_path, content: bytes) -> dict:
    (tmp_path / "one.parquet").write_bytes(content)
    (tmp_path / "small.parquet").write_bytes(as_parquet(simulate(3000, seed=1)))
    return child(PARQUET_CHILD, linear, "parquet", 0, tmp_path / "one.parquet", tmp_path / "small.parquet")


def test_memory_does_not_grow_with_a_parquet_either(linear, tmp_path):
    table = pa.Table.from_pandas(simulate(100_000, seed=2), preserve_index=False)
    table = pa.concat_tables([table] * size(2, 10)).append_column("name", pa.array([f"pupil {i}" for i in range(size(2, 10) * 100_000)]))
    found = parquet_child(linear, tmp_path, as_parquet(table))
    cost, memory = found["seconds"] / len(table) * 1e6, f"{found['base']:.0f} MB before, {found['peak']:.0f} MB at most"
    print(f"Parquet: {len(table):,} rows, {cost:.1f} us of CPU a row, {memory}")
    assert isinstance(found["said"], int) and not found["pandas"]
    assert found["peak"] < found["base"] + 64


def _bomb(name: str) -> bytes:
    n = 100_000
    table = pa.Table.from_pandas(simulate(n, seed=3)[NAMES], preserve_index=False)
    if name == "a page of a hundred megabytes":
        note = pa.chunked_array([pa.array(["x" * 2_000_000] * 50, pa.large_string()), pa.array([""] * (n - 50), pa.large_string())])
        return as_parquet(table.append_column("note", note), use_dictionary=False, compression="zstd", data_page_size=1 << 30, row_group_size=n)
    if name == "one long text in every row":
        note = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array(["x" * 30_000]))
        return as_parquet(table.append_column("note", note))
    if name == "delta byte arrays":
        note = pa.array(["x" * 30_000] * 3000)
        return as_parquet(table.slice(0, 3000).append_column("note", note), use_dictionary=False, column_encoding={"note": "DELTA_BYTE_ARRAY"})
    if name == "a row group for each row":
        return as_parquet(table.slice(0, 8_000), row_group_size=1)
    return as_parquet(pa.table({"x": pa.nulls(30_000_000, pa.int8())}))


BOMBS = ["a page of a hundred megabytes", "one long text in every row", "delta byte arrays", "a row group for each row", "thirty million nothings"]


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_does_not_go_off(name, linear, tmp_path):
    content = _bomb(name)
    found = parquet_child(linear, tmp_path, content)
    memory = f"{found['base']:.0f} MB before, {found['peak']:.0f} MB at most"
    print(f"{name}: {len(content) / 1e6:.2f} MB; {memory}, {found['seconds']:.2f} s: {found['said']}")
    assert isinstance(found["said"], str)
    assert found["peak"] < found["base"] + 100
    assert found["seconds"] < 10


def test_what_a_row_costs(model):
    content, begin = as_csv(simulate(20_000, seed=13)), time.process_time()
    scored_csv(content, model)
    spent = (time.process_time() - begin) / 20_000 * 1e6
    print(f"{spent:.1f} us of CPU a row")
    assert spent < 100
