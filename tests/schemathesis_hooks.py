"""What Schemathesis cannot know of this service: files of students, and what must become of each."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import schemathesis
from hypothesis import strategies as st

import studperf
from studperf.schema import Column

COLUMNS = studperf.load_model().schema.features("full")
FATES: dict[bytes, tuple[str, int]] = {}  # files, and what they were made for: "scored", with their number of rows, or "refused"
Table = dict[str, list]


# Tables ---------------------------------------------------------------------------------------------------------------


def good_cells(column: Column) -> st.SearchStrategy:
    return st.sampled_from(column.categories) if column.kind == "category" else st.integers(0, 100) | st.floats(column.low, column.high)


def any_cells(column: Column) -> st.SearchStrategy:
    bad = st.text(max_size=5) if column.kind == "category" else st.integers(-999, 999) | st.floats(allow_nan=False)
    return good_cells(column) | bad | st.none()


@st.composite
def tables(draw) -> Table:
    """A few students, clean or with bad cells, perhaps with columns that the model does not know, in any order; never without a column."""
    n, cells = draw(st.integers(1, 5)), draw(st.sampled_from([good_cells, any_cells]))
    known = {column.name: draw(st.lists(cells(column), min_size=n, max_size=n)) for column in COLUMNS}
    more = {name: draw(st.lists(st.text(max_size=8), min_size=n, max_size=n)) for name in draw(st.sets(st.sampled_from(["name", "class", "note"])))}
    return dict(draw(st.permutations(sorted((known | more).items()))))


@st.composite
def tables_with_a_gap(draw) -> Table:
    """The same, without one of the columns that the model needs."""
    table = draw(tables())
    del table[draw(st.sampled_from(COLUMNS)).name]
    return table


# Files ----------------------------------------------------------------------------------------------------------------


def as_csv(table: Table) -> bytes:
    out = io.StringIO(newline="")
    rows = csv.writer(out, quoting=csv.QUOTE_ALL)
    rows.writerow(table)
    rows.writerows(zip(*table.values(), strict=True))
    return out.getvalue().replace("\0", "0").encode("utf-8", "replace")


def as_parquet(table: Table) -> bytes:
    numbers = {column.name for column in COLUMNS if column.is_number}
    columns = {name: pa.array(cells, pa.float64()) if name in numbers else pa.array(cells, pa.string()) for name, cells in table.items()}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def files(write: Callable[[Table], bytes]) -> st.SearchStrategy[bytes]:
    """Files of one format: half of them can be scored, the others lack a column, break off, or are nonsense."""

    def made_for(fate: str) -> Callable[[Table], bytes]:
        def make(table: Table) -> bytes:
            content = write(table)
            FATES[content] = fate, len(next(iter(table.values())))
            return content

        return make

    scored, refused = tables().map(made_for("scored")), tables_with_a_gap().map(made_for("refused"))
    return st.one_of(scored, scored, scored, refused, tables().map(lambda table: write(table)[:-9]), st.binary(max_size=200))


schemathesis.openapi.media_type("text/csv", files(as_csv))
schemathesis.openapi.media_type("application/vnd.apache.parquet", files(as_parquet))


# Checks ---------------------------------------------------------------------------------------------------------------


def _file_of(body: object) -> bytes | None:
    found = body.get("file") if isinstance(body, dict) else body
    return found if isinstance(found, bytes) else None


def _rows(content: bytes, kind: str) -> int:
    if kind.startswith("text/csv"):
        return len(list(csv.reader(io.StringIO(content.decode(), newline="")))) - 1
    return pq.read_table(io.BytesIO(content)).num_rows


@schemathesis.check
def a_file_meets_its_fate(ctx, response, case) -> None:
    """A file that was made to be scored comes back with all its rows, one that lacks a column is refused."""
    fate, rows = FATES.get(_file_of(case.body) or b"", ("", 0)) if case.operation.path == "/predict/batch" else ("", 0)
    if fate and response.status_code not in (401, 405, 415):  # a request that was spoilt in another way
        assert fate == "scored" or response.status_code == 422, "a file without a column was taken"
        assert fate == "refused" or case.query or response.status_code == 200, "a good file was refused"
        kind = response.headers["content-type"][0]
        assert response.status_code != 200 or _rows(response.content, kind) == rows, "rows were lost or made"


@schemathesis.check
def a_refusal_tells_nothing_of_the_inside(ctx, response, case) -> None:
    """Every refusal is a problem document under its own status, without a word of the machinery."""
    if response.status_code >= 400 and response.headers["content-type"][0] != "text/html; charset=utf-8":
        document = json.loads(response.content)
        assert document["status"] == response.status_code and document["detail"]
        assert not any(word in document["detail"] for word in ("Traceback", ".py", "Error(", "msgspec", "pydantic"))
