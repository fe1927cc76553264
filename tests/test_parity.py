"""One truth: a student gets the same bits from Python, the command line, and every way into the service."""

from __future__ import annotations

import asyncio
import io
import json

import httpx
import numpy as np
import pandas as pd
import pytest

import studperf
from studperf.prediction.rows import compile_row
from studperf.schema import Column, Schema
from studperf.service.desk import Desk, Served
from studperf.service.front import Front
from studperf.service.guard import Guard
from studperf.service.routes import make_app
from studperf.service.running import Service
from studperf.service.settings import read_settings

N = 20_000
NUMBERS = ["prediction", "lower", "upper"]


def random_students(n: int) -> pd.DataFrame:
    """Valid rows of every kind, drawn uniformly: most of them unlike any class, so that every path is taken."""
    rng, columns = np.random.default_rng(2026), {}
    for column in studperf.load_model().schema.features("full"):
        if column.kind == "category":
            columns[column.name] = rng.choice(column.categories, n)
        else:
            values = rng.uniform(column.low, column.high, n)
            columns[column.name] = np.where(rng.random(n) < 0.5, np.rint(values), values)
    usual = studperf.simulate(n // 2, seed=77)[list(columns)].astype({name: float for name, values in columns.items() if values.dtype.kind == "f"})
    return pd.concat([pd.DataFrame(columns).head(n - n // 2), usual], ignore_index=True)


@pytest.fixture(scope="module")
def students() -> pd.DataFrame:
    return random_students(N)


@pytest.fixture(scope="module")
def expected(students) -> pd.DataFrame:
    return studperf.predict(students)


@pytest.fixture
def service():
    """The whole application without a socket: the same code that answers over one."""
    service = Service(Desk(Served(studperf.load_model())), read_settings({}, rows=100_000, body_bytes=2**28))
    return Front(make_app(service), Guard(service))


def client(front: Front) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(front), base_url="http://localhost")


def bits(answers: list[dict]) -> np.ndarray:
    return np.array([[answer[name] for name in NUMBERS] for answer in answers]).view(np.int64)


def assert_equal(found: list[dict], expected: pd.DataFrame) -> None:
    assert np.array_equal(bits(found), expected[NUMBERS].to_numpy().view(np.int64))


def test_the_command_line(students, expected, cli, tmp_path):
    path = tmp_path / "students.csv"
    path.write_text(students.to_csv(index=False))
    answer = cli("predict", path, "--json").json
    found = [dict(zip(NUMBERS, row, strict=True)) for row in zip(answer["predictions"], answer["lower"], answer["upper"], strict=True)]
    assert_equal(found, expected)


def test_one_by_one(students, expected, service):
    async def ask() -> list[dict]:
        async with client(service) as asking:
            return [(await asking.post("/predict", json=row)).json() for row in students.to_dict("records")]

    found = asyncio.run(ask())
    assert_equal(found, expected)
    assert [answer["abstain_reason"] for answer in found] == expected["abstain_reason"].tolist()
    quick = sum(count for (route, _, _), count in service.service.desk.metrics.requests.items() if route == "/predict")
    assert quick == N and 0.2 < expected["abstain"].mean() < 0.8, "both the quick and the careful way must be taken"


def test_as_a_list_and_with_options(students, expected, service):
    async def ask(query: str) -> list[dict]:
        async with client(service) as asking:
            return (await asking.post(f"/predict{query}", json=students.to_dict("records"))).json()["predictions"]

    assert_equal(asyncio.run(ask("")), expected)
    options = {"level": 0.5, "threshold": 60}
    found = asyncio.run(ask("?level=0.5&threshold=60&explain=true"))
    assert_equal(found, studperf.predict(students, **options))
    assert [answer["p_below"] for answer in found] == studperf.predict(students, **options)["p_below"].tolist()
    assert max(abs(answer["base"] + sum(answer["contributions"].values()) - answer["prediction"]) for answer in found) < 1e-9


@pytest.mark.parametrize("address", ["/predictdata", "/predicted_data"])
def test_the_form(students, expected, service, address):
    few = students.iloc[:: 1 if address == "/predictdata" else 50]
    names = {column.name: column.form_name or column.name for column in studperf.load_model().schema.features("full")}

    async def ask() -> list[dict]:
        async with client(service) as asking:
            rows = [{names[name]: str(value) for name, value in row.items()} for row in few.to_dict("records")]
            return [(await asking.post(address, data=row)).json() for row in rows]

    found = asyncio.run(ask())
    assert_equal(found, expected.loc[few.index])
    assert set(found[0]) == {"prediction", "confidence", "lower", "upper"} and {answer["confidence"] for answer in found} == {0.9}
    assert list(names.values()) == ["gender", "ethnicity", "parental_level_of_education", "lunch", "test_preparation_course", "reading_score",
                                    "writing_score"]  # fmt: skip


@pytest.mark.parametrize("kind", ["text/csv", "application/vnd.apache.parquet"])
def test_a_file(students, expected, service, kind):
    content = students.to_csv(index=False).encode() if kind == "text/csv" else students.to_parquet(index=False)

    async def ask() -> bytes:
        async with client(service) as asking:
            answer = await asking.post("/predict/batch", content=content, headers={"content-type": kind})
            assert answer.status_code == 200, answer.text
            return answer.content

    found = asyncio.run(ask())
    table = pd.read_csv(io.BytesIO(found), float_precision="round_trip") if kind == "text/csv" else pd.read_parquet(io.BytesIO(found))
    assert_equal(table.to_dict("records"), expected)
    assert table["prediction_id"].nunique() == N


def uneven_class(n: int) -> pd.DataFrame:
    """Students whose scores scatter more the less they study, in a table with gaps and an open category."""
    rng = np.random.default_rng(12)
    hours, club = rng.uniform(0, 10, n), rng.choice(["chess", "go", "none"], n)
    marks = np.clip(40 + 4 * hours + 5 * (club == "go") + rng.normal(0, 1, n) * (12 - hours), 0, 100)
    return pd.DataFrame({"hours": np.where(rng.random(n) < 0.1, np.nan, hours.round(2)), "club": club, "mark": marks.round()})


@pytest.mark.parametrize("by", [None, "club"], ids=["one calibration", "by group"])
def test_the_quick_row_where_widths_vary_and_groups_differ(by, tmp_path):
    schema = Schema((
        Column("hours", low=0, high=10, missing="impute"),
        Column("club", kind="category", categories=("chess", "go", "none"), unknown="ignore", missing="impute"),
        Column("mark", kind="target", low=0, high=100),
    ))  # fmt: skip
    trained = studperf.train(uneven_class(600), schema=schema, families=["linear"], out=tmp_path, intervals_by=by)
    model = studperf.load_model(trained.bundle.path)
    assert by or model.uncertainty.arms is not None, "this class was made so that widths vary"
    new, columns = uneven_class(700).drop(columns="mark").iloc[100:], model.schema.features("full")
    new.loc[new.index[:20], "club"] = "tennis"
    for options in ({}, {"level": 0.7, "threshold": 60.0}):
        general, quick = studperf.predict(new, model=model, **options), compile_row(model, **options)
        names = [*NUMBERS, "p_below"][: 3 + bool(options)]
        rows = [(None if hours != hours else hours, club) for hours, club in new[["hours", "club"]].itertuples(index=False)]
        found = [quick(row) for row in rows]
        told = [i for i, answer in enumerate(found) if answer is not None]
        assert len(told) > 400 and not general["abstain"].iloc[told].any()
        assert [list(found[i][: len(names)]) for i in told] == general[names].iloc[told].to_numpy().tolist()
    assert [column.name for column in columns] == ["hours", "club"]


def test_explanations_are_those_of_the_library(students, service):
    few = students.head(200)

    async def ask() -> dict:
        async with client(service) as asking:
            return (await asking.post("/explain", json=few.to_dict("records"))).json()

    found, expected = asyncio.run(ask()), studperf.explain(few)
    names = [name for name in expected if name not in ("base", "prediction")]
    assert [answer["contributions"] for answer in found["explanations"]] == expected[names].to_dict("records")
    assert json.dumps(found["explanations"][0]["base"]) == json.dumps(expected["base"].iloc[0])
