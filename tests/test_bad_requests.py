"""Bad requests, sent by hand to a real service: each is refused with its own status and words, and nothing of it is told to anyone else."""

from __future__ import annotations

import base64
import http.client
import io
import json
import re
import socket
import sys
import zlib
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import httpx
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import REPO
from serving import Server, served

import studperf
from studperf.service.errors import KINDS
from studperf.service.keys import new_key
from studperf.service.routes import ACCESS

WORD, NUMBER = "zarquon", "90417"  # stand in the bad requests, and must not be heard of again
KEY, DIGEST = new_key()
SERVERS = {
    "open": {"STUDPERF_MAX_ROWS": 20, "STUDPERF_MAX_BYTES": 20_000, "STUDPERF_MAX_UPLOAD_BYTES": 50_000, "STUDPERF_MAX_UPLOAD_ROWS": 200,
             "STUDPERF_ACCESS_LOG": 1, "STUDPERF_LOG_LEVEL": "debug"},
    "closed": {"STUDPERF_API_KEYS": DIGEST, "STUDPERF_DATABASE": "off", "STUDPERF_ACCESS_LOG": 1, "STUDPERF_LOG_LEVEL": "debug"},
    "limited": {"STUDPERF_RATE": 0.02, "STUDPERF_DATABASE": "off", "STUDPERF_ACCESS_LOG": 1, "STUDPERF_LOG_LEVEL": "debug"},
}  # fmt: skip
STUDENT = {"gender": "female", "race_ethnicity": "group B", "parental_level_of_education": "bachelor's degree", "lunch": "standard",
           "test_preparation_course": "none", "reading_score": 72, "writing_score": 74}  # fmt: skip
FORM = {"ethnicity" if name == "race_ethnicity" else name: str(value) for name, value in STUDENT.items()}
PARQUET, FORM_TYPE = "application/vnd.apache.parquet", "application/x-www-form-urlencoded"
HTML = "text/html,application/xhtml+xml,*/*;q=0.8"


# Writing requests -----------------------------------------------------------------------------------------------------


def http_request(method: str, path: str, body: bytes | str = b"", *, length: object = None, **headers: str) -> bytes:
    """A request as it goes over the wire; `content_type="..."` is a header, and None leaves one out."""
    body = body.encode() if isinstance(body, str) else body
    fields = {"host": "localhost", "connection": "close", "content_length": len(body) if length is None else length} | headers
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items() if value is not None]
    return f"{method} {path} HTTP/1.1\r\n".encode() + "".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n" + body


def post(path: str, body: bytes | str, content_type: str | None = "application/json", **headers: str) -> bytes:
    return http_request("POST", path, body, content_type=content_type, **headers)


def predict(body: object, path: str = "/predict", **headers: str) -> bytes:
    return post(path, body if isinstance(body, (bytes, str)) else json.dumps(body), **headers)


def raw(value: str, column: str = "reading_score") -> str:
    """A student whose one value stands in the JSON exactly as given."""
    return json.dumps(STUDENT | {column: "@"}).replace('"@"', value)


def without(column: str) -> dict:
    return {name: value for name, value in STUDENT.items() if name != column}


def form(changes: dict, path: str = "/predictdata", **headers: str) -> bytes:
    fields = {name: value for name, value in (FORM | changes).items() if value is not None}
    return post(path, str(httpx.QueryParams(fields)), FORM_TYPE, **headers)


def csv(*changes: dict, **options: object) -> bytes:
    return pd.DataFrame([STUDENT | each for each in changes]).to_csv(index=False, **options).encode()


def parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), buffer)
    return buffer.getvalue()


def batch(body: bytes, content_type: str | None = "text/csv", query: str = "", **headers: str) -> bytes:
    return post(f"/predict/batch{query}", body, content_type, **headers)


def multipart(body: bytes, **headers: str) -> bytes:
    return batch(body, "multipart/form-data; boundary=b", **headers)


def part(content: bytes, disposition: str = 'form-data; name="file"; filename="class.csv"') -> bytes:
    return f"--b\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + content + b"\r\n"


def chunked(body: bytes) -> bytes:
    pieces = [body[start : start + 7_000] for start in range(0, len(body), 7_000)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def xlsx() -> bytes:
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as book:
        book.writestr("xl/workbook.xml", WORD)
    return buffer.getvalue()


def gzip(body: bytes) -> bytes:
    packed = zlib.compressobj(wbits=31)
    return packed.compress(body) + packed.flush()


# The table ------------------------------------------------------------------------------------------------------------


STATUS = {"malformed": 400, "unauthorized": 401, "cross-site": 403, "not-found": 404, "method": 405, "conflict": 409, "too-large": 413}
STATUS |= {"media-type": 415, "host": 421, "invalid": 422, "rate": 429, "header": 431}


@dataclass(frozen=True)
class Case:
    """A bad request, and the refusal that it deserves."""

    name: str
    request: bytes
    kind: str  # of `STATUS`, by which the refusal is known
    says: tuple[str, ...]  # each stands in the detail or in one of the messages
    at: tuple[tuple[int | None, str | None], ...]  # row and field of every entry of `errors`
    headers: dict[str, str]  # of the answer
    server: str  # of `SERVERS`
    by: str  # "protocol": refused before there is a request


def bad(
    name: str, request: bytes, kind: str, *says: str, at: Iterable = (), headers: dict | None = None, server: str = "open", by: str = "app"
) -> Case:
    places = tuple((None, place) if isinstance(place, str) else place for place in at)
    return Case(name, request, kind, says, places, headers or {}, server, by)


GOOD_CSV, SCORE = csv({}), "a number from 0 to 100"
LUNCH = "'free/reduced', 'standard'"
IN_QUOTES = f"a JSON number, without quotes: {SCORE}"


def value(name: str, text: str, *says: str, column: str = "reading_score") -> Case:
    return bad(name, predict(raw(text, column)), "invalid", *says, at=[column])


VALUES = [
    value("too high a score", NUMBER, f"reading_score: {NUMBER}; expected {SCORE}"),
    value("a score just too high", "100.00000000000001", "100.00000000000001", SCORE),
    value("a negative score", f"-{NUMBER}", f"-{NUMBER}; expected {SCORE}"),
    value("NaN", "NaN", "reading_score: nan; expected a JSON number", SCORE),
    value("infinity", "Infinity", SCORE),
    value("minus infinity", "-Infinity", SCORE),
    value("a number that no float holds", "1e999", SCORE),
    value("an integer of 400 digits", NUMBER * 80, SCORE),
    value("an integer of 5000 digits", NUMBER * 1000, SCORE),
    value("a word for a number", f'"{WORD}"', f"reading_score: '{WORD}'; expected {IN_QUOTES}"),
    value("a number in quotes", '"72"', f"'72'; expected {IN_QUOTES}"),
    value("an empty text for a number", '""', IN_QUOTES),
    value("null for a number", "null", "reading_score: missing", SCORE),
    value("true for a number", "true", IN_QUOTES),
    value("a list for a number", "[72]", IN_QUOTES),
    value("an object for a number", f'{{"{WORD}": 72}}', IN_QUOTES),
    value("an unknown category", f'"{WORD}"', f"lunch: '{WORD}'; expected one of {LUNCH}", column="lunch"),
    value("almost a category", '"standrad"', LUNCH, "did you mean 'standard'?", column="lunch"),
    value("a category in capitals", '"STANDARD"', "did you mean 'standard'?", column="lunch"),
    value("an empty category", '""', "lunch: missing", LUNCH, column="lunch"),
    value("null for a category", "null", "lunch: missing", LUNCH, column="lunch"),
    value("a number for a category", NUMBER, f"a JSON string, one of {LUNCH}", column="lunch"),
    value("false for a category", "false", f"a JSON string, one of {LUNCH}", column="lunch"),
    value("a list for a category", '["standard"]', f"a JSON string, one of {LUNCH}", column="lunch"),
]

FIELDS = [
    bad("a field is missing", predict(without("lunch")), "invalid", "lunch: missing", LUNCH, at=["lunch"]),
    bad("every field is missing", predict("{}"), "invalid", "lunch: missing", at=[*STUDENT]),
    bad("an unknown field", predict(STUDENT | {WORD: 1}), "invalid", f"{WORD}: no such field", at=[WORD]),
    bad("a misspelt field", predict(without("lunch") | {"lunhc": WORD}), "invalid", "did you mean lunch?", "lunch: missing", at=["lunhc", "lunch"]),
    bad("the target is sent", predict(STUDENT | {"math_score": 70}), "invalid", "it is what the model predicts", at=["math_score"]),
    bad("the target under another name", predict(STUDENT | {"Math Score": 70}), "invalid", "what the model predicts", at=["Math Score"]),
    bad("a field stands twice", predict(raw(f'72, "reading_score": {NUMBER}')), "invalid", "stands more than once", at=["reading_score"]),
    bad(
        "a field stands twice with the same value",
        predict(raw('"none", "test_preparation_course": "none"', "test_preparation_course")),
        "invalid",
        "each field once",
        at=["test_preparation_course"],
    ),
    bad("a column stands under two names", predict(STUDENT | {"ethnicity": "group B"}), "invalid", "stands under two names", at=["race_ethnicity"]),
    bad(
        "several mistakes at once",
        predict(STUDENT | {"lunch": WORD, "gender": 1, "writing_score": 101}),
        "invalid",
        "The student cannot be used",
        at=["gender", "lunch", "writing_score"],
    ),
]

LISTS = [
    bad("an empty list", predict("[]"), "invalid", "no student in the list", "at least one student", at=[(None, None)]),
    bad(
        "one bad row",
        predict([STUDENT, STUDENT, STUDENT | {"lunch": WORD}]),
        "invalid",
        "1 of 3 students",
        f"row 3, lunch: '{WORD}'",
        at=[(3, "lunch")],
    ),
    bad(
        "two bad rows",
        predict([STUDENT | {"reading_score": -1}, STUDENT, without("gender")]),
        "invalid",
        "2 of 3 students",
        at=[(1, "reading_score"), (3, "gender")],
    ),
    bad(
        "a list of no objects",
        predict(f'[1, "{WORD}", null]'),
        "invalid",
        "3 of 3 students",
        "row 2",
        "an object with the fields of a student",
        at=[(1, None), (2, None), (3, None)],
    ),
    bad("a list in a list", predict([[STUDENT]]), "invalid", "an object with the fields of a student", at=[(1, None)]),
    bad("a bare number", predict(NUMBER), "invalid", "an object with the fields of a student", at=[(None, None)]),
    bad("a bare text", predict(f'"{WORD}"'), "invalid", "an object with the fields of a student", at=[(None, None)]),
    bad("null", predict("null"), "invalid", "an object with the fields of a student", at=[(None, None)]),
    bad("NaN alone", predict("NaN"), "invalid", "an object with the fields of a student", at=[(None, None)]),
    bad("too many rows", predict([STUDENT] * 21), "too-large", "21 students", "at most 20", "/predict/batch"),
    bad("too many bad rows", predict(f"[{'0,' * 30}0]"), "too-large", "31 students"),
]

BODIES = [
    bad("nested too deep", predict("[" * 3000 + "]" * 3000), "malformed", "more than 20 levels"),
    bad("a value nested too deep", predict(raw("[" * 40 + NUMBER + "]" * 40)), "malformed", "more than 20 levels"),
    bad("not JSON", predict(f"reading_score={WORD}"), "malformed", "not JSON", "line 1, column 1"),
    bad("truncated JSON", predict(raw(f'"{WORD}')[:-20]), "malformed", "not JSON"),
    bad("something after the JSON", predict(json.dumps(STUDENT) + WORD), "malformed", "not JSON"),
    bad("a comma too many", predict(raw("72,")), "malformed", "not JSON"),
    bad("a number with a leading zero", predict(raw("072")), "malformed", "not JSON"),
    bad("invalid UTF-8", predict(json.dumps(STUDENT).encode().replace(b"standard", b"standard\xff")), "malformed", "not UTF-8", "byte "),
    bad("an encoded surrogate", predict(json.dumps(STUDENT).encode().replace(b"standard", b"\xed\xa0\x80")), "malformed", "not UTF-8"),
    bad("UTF-16", predict(json.dumps(STUDENT).encode("utf-16")), "malformed", "not UTF-8"),
    bad("a byte order mark", predict(b"\xef\xbb\xbf" + json.dumps(STUDENT).encode()), "malformed", "byte order mark"),
    bad("half of a surrogate pair", predict(raw('"\\ud800"', "lunch")), "malformed", "surrogate pair"),
    bad("half of a surrogate pair for a name", predict(raw('72, "\\udfff": 1')), "malformed", "surrogate pair"),
    bad("an empty body", predict(""), "malformed", "not JSON"),
    bad("blanks for a body", predict("  \n "), "malformed", "not JSON"),
    bad("a zero byte", predict("\0"), "malformed", "not JSON"),
    bad(
        "no content type", post("/predict", json.dumps(STUDENT), None), "media-type", "application/json", headers={"accept-post": "application/json"}
    ),
    bad("another content type", post("/predict", WORD, "text/plain"), "media-type", "application/json", headers={"accept-post": "application/json"}),
    bad("a form to /predict", post("/predict", "lunch=standard", FORM_TYPE), "media-type", "application/json"),
    bad("a content type that begins alike", post("/predict", json.dumps(STUDENT), "application/jsonp"), "media-type", "application/json"),
    bad(
        "gzip",
        predict(gzip(json.dumps(STUDENT).encode()), content_encoding="gzip"),
        "media-type",
        "uncompressed",
        headers={"accept-encoding": "identity"},
    ),
    bad("gzip with an option", predict(gzip(b"{}"), "/predict?level=0.9", content_encoding="gzip"), "media-type", "uncompressed"),
    bad("gzip that is not announced", predict(gzip(json.dumps(STUDENT).encode())), "malformed", "not UTF-8"),
    bad("another charset", predict(json.dumps(STUDENT).encode("utf-16"), content_type="application/json; charset=utf-16"), "malformed", "not UTF-8"),
    bad("too large by its own word", predict(b"", length=10**9), "too-large", "more than 20,000 bytes", headers={"connection": "close"}),
    bad("a length beyond counting", predict(b"", length="9" * 18), "too-large", "more than 20,000 bytes"),
    bad(
        "too large, in chunks",
        predict(chunked(f'"{WORD * 4000}"'.encode()), length=None, transfer_encoding="chunked", content_length=None),
        "too-large",
        "more than 20,000 bytes",
    ),
    bad("too large, with an option", predict(f'"{WORD * 4000}"', "/predict?level=0.9"), "too-large", "more than 20,000 bytes"),
]


def option(name: str, query: str, *says: str, column: str, path: str = "/predict") -> Case:
    return bad(name, predict(STUDENT, f"{path}?{query}"), "invalid", *says, at=[column])


LEVEL = "a number between 0 and 1"
OPTIONS = [
    option("a level in percent", "level=90", "level: '90'", LEVEL, column="level"),
    option("level zero", "level=0", LEVEL, column="level"),
    option("level one", "level=1", LEVEL, column="level"),
    option("level NaN", "level=nan", LEVEL, column="level"),
    option("level infinite", "level=inf", LEVEL, column="level"),
    option("an empty level", "level=", LEVEL, column="level"),
    option("a word for a level", f"level={WORD}", f"'{WORD}'", LEVEL, column="level"),
    option("a level twice", "level=0.9&level=0.9", "stands twice", column="level"),
    option("threshold NaN", "threshold=NaN", "a number, as 60", column="threshold"),
    option("threshold infinite", "threshold=1e999", "a number, as 60", column="threshold"),
    option("a word for a threshold", f"threshold={WORD}", "a number, as 60", column="threshold"),
    option("a word for explain", "explain=perhaps", "true or false", column="explain"),
    option("an unknown feature set", f"feature_set={WORD}", "one of full, early, unprotected", column="feature_set"),
    option("another feature set", "feature_set=early", "full, which is what the model served here", column="feature_set"),
    option("a misspelt option", "levle=0.9", "levle: no such option", "/docs", column="levle"),
    option("an option of another address", "level=0.9", "level: no such option", column="level", path="/explain"),
    bad("two bad options", predict(STUDENT, f"/predict?level=2&threshold={WORD}"), "invalid", LEVEL, "a number, as 60", at=["level", "threshold"]),
]


def bad_form(name: str, changes: dict, *says: str, column: str | None, path: str = "/predictdata") -> Case:
    return bad(name, form(changes, path), "invalid", *says, at=[column])


NOT_A_FORM = ("not a form",)
FORMS = [
    bad_form("form: too high a score", {"reading_score": NUMBER}, f"'{NUMBER}'; expected {SCORE}", column="reading_score"),
    bad_form("form: too high a score, at the other address", {"reading_score": NUMBER}, SCORE, column="reading_score", path="/predicted_data"),
    bad_form("form: a word for a score", {"reading_score": WORD}, f"'{WORD}'; expected {SCORE}", column="reading_score"),
    bad_form("form: NaN", {"reading_score": "NaN"}, SCORE, column="reading_score"),
    bad_form("form: infinity", {"writing_score": "inf"}, SCORE, column="writing_score"),
    bad_form("form: 1e999", {"writing_score": "1e999"}, SCORE, column="writing_score"),
    bad_form("form: a digit of another script", {"writing_score": "٧٢"}, SCORE, column="writing_score"),
    bad_form("form: an underscore in a number", {"writing_score": "7_2"}, SCORE, column="writing_score"),
    bad_form("form: an empty score", {"reading_score": ""}, "missing", column="reading_score"),
    bad_form("form: a field is missing", {"lunch": None}, "lunch: missing", column="lunch"),
    bad_form("form: an unknown category", {"lunch": WORD}, f"'{WORD}'", LUNCH, column="lunch"),
    bad_form("form: an unknown field", {WORD: "1"}, "no such field", column=WORD),
    bad_form("form: the target", {"math_score": "70"}, "no such field", column="math_score"),
    bad_form("form: a column under two names", {"race_ethnicity": "group B"}, "stands under two names", column="race_ethnicity"),
    bad("form: empty", post("/predictdata", "", FORM_TYPE), "invalid", "missing", at=[*STUDENT]),
    bad("form: a field twice", post("/predictdata", f"lunch=standard&lunch={WORD}", FORM_TYPE), "malformed", "twice"),
    bad("form: not a form", post("/predictdata", WORD, FORM_TYPE), "malformed", *NOT_A_FORM),
    bad("form: not UTF-8", post("/predictdata", "lunch=%ff%fe", FORM_TYPE), "malformed", *NOT_A_FORM),
    bad("form: bytes", post("/predictdata", b"lunch=\xff\xfe", FORM_TYPE), "malformed", *NOT_A_FORM),
    bad("form: a thousand fields", post("/predictdata", "&".join(f"a{i}=1" for i in range(1000)), FORM_TYPE), "malformed", *NOT_A_FORM),
    bad("form: JSON", predict(STUDENT, "/predictdata"), "media-type", FORM_TYPE),
    bad("form: too large", form({WORD: WORD * 4000}), "too-large", "more than 20,000 bytes"),
    bad("form: too large, for a browser", form({WORD: WORD * 4000}, accept=HTML), "too-large", "more than 20,000 bytes"),
    bad("form: an option", form({}, "/predictdata?level=0.5"), "invalid", "takes no options", at=["level"]),
]

MANY = csv(*[{"reading_score": score % 100} for score in range(150)])
FILES = [
    bad("file: binary", batch(bytes(range(256))), "invalid", "not UTF-8 text"),
    bad("file: Latin-1", batch(GOOD_CSV.replace(b"standard", "Zoë".encode("latin-1"))), "invalid", "line 2", "0xeb"),
    bad("file: a zero byte", batch(GOOD_CSV + b"\0"), "invalid", "zero byte"),
    bad("file: empty", batch(b""), "invalid", "empty"),
    bad("file: only blank lines", batch(b"\n\n\n"), "invalid", "empty"),
    bad("file: header only", batch(GOOD_CSV.splitlines()[0] + b"\n"), "invalid", "no rows"),
    bad(
        "file: columns are missing",
        batch(f"lunch,{WORD}\nstandard,1\n".encode()),
        "invalid",
        "no such column",
        at=[name for name in STUDENT if name != "lunch"],
    ),
    bad("file: a column twice", batch(GOOD_CSV.replace(b"gender", b"lunch")), "invalid", "lunch", at=["lunch"]),
    bad("file: a column under two names", batch(csv({"Ethnicity": "group B"})), "invalid", "race_ethnicity", at=["race_ethnicity"]),
    bad("file: a result's name is taken", batch(csv({"prediction": NUMBER})), "invalid", "another name", at=["prediction"]),
    bad("file: an open quotation mark", batch(GOOD_CSV + f'"{WORD}'.encode()), "invalid", "breaks off"),
    bad("file: a bad level", batch(GOOD_CSV, query="?level=7"), "invalid", LEVEL, at=["level"]),
    bad("file: a huge cell", batch(csv({"essay": "x" * 33_000})), "too-large", "a cell of more than 32,767 characters at line 2"),
    bad("file: too many columns", batch(b",".join(b"c%d" % i for i in range(600)) + b"\n1\n"), "too-large", "600 columns"),
    bad("file: too many rows", batch(csv(*[{}] * 201), query="?threshold=50"), "too-large", "more than 200 rows"),
    bad("file: an Excel workbook", batch(xlsx()), "invalid", "Excel workbook", "CSV UTF-8"),
    bad(
        "file: an Excel workbook under its own type",
        batch(xlsx(), "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        "media-type",
        "text/csv",
        PARQUET,
        "multipart/form-data",
    ),
    bad("file: JSON", batch(json.dumps(STUDENT).encode(), "application/json"), "media-type", "text/csv"),
    bad("file: gzip", batch(gzip(GOOD_CSV), content_encoding="gzip"), "media-type", "uncompressed"),
    bad("file: gzip that is not announced", batch(gzip(GOOD_CSV)), "invalid", "gzip", "uncompressed"),
    bad("file: too many bytes by its own word", batch(b"", length=10**9), "too-large", "more than 50,000 bytes"),
    bad("file: too many bytes", batch(MANY * 8), "too-large", "more than 50,000 bytes"),
    bad("file: too many bytes, in chunks", batch(chunked(MANY * 8), content_length=None, transfer_encoding="chunked"), "too-large", "50,000"),
    bad("file: Parquet with an endless footer", batch(b"PAR1" + WORD.encode() + b"PAR1", PARQUET), "invalid", "not a readable Parquet"),
    bad("file: damaged Parquet", batch(b"PAR1" + WORD.encode() + b"\7\0\0\0PAR1", PARQUET), "invalid", "not a readable Parquet"),
    bad("file: Parquet that is cut off", batch(parquet(pd.DataFrame([STUDENT]))[:-20], PARQUET), "invalid", "Parquet"),
    bad(
        "file: Parquet with a damaged page",
        batch(parquet(pd.DataFrame([STUDENT] * 9)).replace(b"standard", b"st\xffndard"), PARQUET),
        "invalid",
        "Parquet",
    ),
    bad("file: Parquet without rows", batch(parquet(pd.DataFrame([STUDENT])[:0]), PARQUET), "invalid", "no rows"),
    bad("file: Parquet without a column", batch(parquet(pd.DataFrame([without("lunch")])), PARQUET), "invalid", "no such column", at=["lunch"]),
    bad("file: an option of another address", batch(GOOD_CSV, query="?explain=true"), "invalid", "explain: no such option", at=["explain"]),
    bad("parts: no boundary", batch(part(GOOD_CSV), "multipart/form-data"), "malformed", "boundary"),
    bad("parts: too long a boundary", batch(part(GOOD_CSV), f"multipart/form-data; boundary={'b' * 71}"), "malformed", "boundary"),
    bad("parts: another boundary", batch(part(GOOD_CSV) + b"--b--\r\n", "multipart/form-data; boundary=c"), "malformed", "told from each other"),
    bad("parts: no end", multipart(part(GOOD_CSV)), "malformed", "breaks off"),
    bad("parts: empty", multipart(b""), "malformed", "breaks off"),
    bad("parts: no file", multipart(part(GOOD_CSV, 'form-data; name="file"') + b"--b--\r\n"), "malformed", "0 files"),
    bad("parts: two files", multipart(2 * part(GOOD_CSV) + b"--b--\r\n"), "malformed", "2 files"),
    bad("parts: a bad table", multipart(part(f"{WORD}\n1\n".encode()) + b"--b--\r\n"), "invalid", "no such column", at=[*STUDENT]),
    bad("parts: too many bytes", multipart(part(MANY * 8) + b"--b--\r\n"), "too-large", "50,000"),
]

ID = "0123456789abcdef" * 2


def outcome(name: str, body: object, *says: str, at: Iterable, kind: str = "invalid") -> Case:
    return bad(name, predict(body, "/outcomes"), kind, *says, at=at)


MARK = f"a JSON number: {SCORE}"
OTHERS = [
    bad("explain: an unknown category", predict(STUDENT | {"lunch": WORD}, "/explain"), "invalid", f"lunch: '{WORD}'", at=["lunch"]),
    bad("explain: a bad row", predict([STUDENT, STUDENT | {"reading_score": 101}], "/explain"), "invalid", "row 2", at=[(2, "reading_score")]),
    bad("explain: another feature set", predict(STUDENT, "/explain?feature_set=early"), "invalid", "full", at=["feature_set"]),
    bad("explain: not JSON", predict(WORD, "/explain"), "malformed", "not JSON"),
    outcome("outcome: not an id", {"id": WORD, "value": 70}, "32 hexadecimal digits", at=["id"]),
    outcome("outcome: an id in capitals", {"id": ID.upper(), "value": 70}, "32 hexadecimal digits", at=["id"]),
    outcome("outcome: an id with a line end", {"id": ID + "\n", "value": 70}, "32 hexadecimal digits", at=["id"]),
    outcome("outcome: no id", {"value": 70}, "id: missing", "32 hexadecimal digits", at=["id"]),
    outcome("outcome: no value", {"id": ID}, "value: missing", MARK, at=["value"]),
    outcome("outcome: NaN", f'{{"id": "{ID}", "value": NaN}}', MARK, at=["value"]),
    outcome("outcome: too high", {"id": ID, "value": int(NUMBER)}, f"{NUMBER}; expected {MARK}", at=["value"]),
    outcome("outcome: in quotes", {"id": ID, "value": "70"}, MARK, at=["value"]),
    outcome("outcome: true", {"id": ID, "value": True}, MARK, at=["value"]),
    outcome("outcome: an integer of 400 digits", f'{{"id": "{ID}", "value": {NUMBER * 80}}}', MARK, at=["value"]),
    outcome("outcome: an unknown field", {"id": ID, "value": 70, WORD: 1}, "no such field", at=[WORD]),
    outcome("outcome: a value twice", f'{{"id": "{ID}", "value": 70, "value": 71}}', "each field once", at=["value"]),
    outcome("outcome: a list with a bad row", [{"id": ID, "value": 70}, {"id": ID, "value": -1}], "row 2", at=[(2, "value")]),
    outcome("outcome: an empty list", "[]", "from one to 20", at=[]),
    outcome("outcome: too many", [{"id": ID, "value": 70}] * 21, "from one to 20", at=[], kind="too-large"),
    outcome("outcome: an unknown prediction", {"id": ID, "value": 70}, "not in the log", at=["id"], kind="not-found"),
    bad("outcome: no log", predict({"id": ID, "value": 70}, "/outcomes", authorization=f"Bearer {KEY}"), "conflict", "no log", server="closed"),
]

POSTS = ("/predict", "/predict/batch", "/explain", "/outcomes")
GETS = ("/", "/model", "/model/card", "/metrics", "/health", "/livez", "/readyz", "/docs")
METHODS = [bad(f"GET {path}", http_request("GET", path), "method", "Allow", headers={"allow": "POST"}) for path in POSTS]
METHODS += [bad(f"POST {path}", predict(STUDENT, path), "method", "Allow", headers={"allow": "GET"}) for path in GETS]
METHODS += [
    bad(f"{method} /predict", http_request(method, "/predict", json.dumps(STUDENT)), "method", "Allow", headers={"allow": "POST"})
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
]
METHODS += [bad("PUT /predictdata", http_request("PUT", "/predictdata"), "method", "Allow", headers={"allow": "GET, POST"})]

PLACES = [
    bad(f"{method} {path[:30]}", http_request(method, path), "not-found", "/docs")
    for method, path in (
        ("GET", f"/{WORD}"),
        ("POST", f"/{WORD}"),
        ("GET", f"/predict/{WORD}"),
        ("GET", "/predict/"),
        ("GET", "//predict"),
        ("GET", "/docs/"),
        ("GET", "/../etc/passwd"),
        ("GET", "/%2e%2e/etc/passwd"),
        ("GET", "/Predict"),
        ("GET", "/redoc"),
        ("GET", "/predict%00"),
        ("GET", "/predict%ff"),
        ("GET", f"/model/card%0d%0ax-{WORD}:%201"),
        ("GET", f"http://localhost/{WORD}"),
    )
]

NO_KEY = {"www-authenticate": 'Bearer realm="studperf", Basic realm="studperf", charset="UTF-8"'}
BASIC = base64.b64encode(f"{WORD}:{WORD}".encode()).decode()
DOOR = [
    *(
        bad(f"the name {name!r}", predict(STUDENT, host=name), "host", "STUDPERF_HOSTS")
        for name in (f"{WORD}.example", "localhost.zarquon.example", "localhost@zarquon", "10.0.0.1", "127.0.0.1.nip.io", "")
    ),
    bad("the name on the way to /livez", http_request("GET", "/livez", host=f"{WORD}.example"), "host", "localhost"),
    bad("a form from another site", form({}, sec_fetch_site="cross-site"), "cross-site", "own pages"),
    bad("a form from a neighbour", form({}, sec_fetch_site="same-site"), "cross-site", "own pages"),
    bad("a form from another origin", form({}, "/predicted_data", origin=f"https://{WORD}.example"), "cross-site", "own pages"),
    bad("a form from a sandbox", form({}, origin="null"), "cross-site", "own pages"),
    bad("JSON from another origin", predict(STUDENT, origin=f"https://{WORD}.example"), "cross-site", "own pages"),
    bad("a file from another site", batch(GOOD_CSV, sec_fetch_site="cross-site"), "cross-site", "own pages"),
    *(
        bad(f"without a key: {path}", http_request("GET", path), "unauthorized", "Authorization", headers=NO_KEY, server="closed")
        for path in ("/", "/docs", "/model", "/metrics", f"/{WORD}", "/predict")
    ),
    bad("without a key: a prediction", predict(STUDENT), "unauthorized", "Bearer", headers=NO_KEY, server="closed"),
    bad("without a key: a bad value", predict(raw(NUMBER)), "unauthorized", "Bearer", headers=NO_KEY, server="closed"),
    *(
        bad(f"a wrong key: {name}", predict(STUDENT, path, **headers), "unauthorized", "Authorization", headers=NO_KEY, server="closed")
        for name, path, headers in (
            ("a word", "/predict", {"authorization": f"Bearer {WORD}"}),
            ("no scheme", "/predict", {"authorization": KEY}),
            ("another scheme", "/predict", {"authorization": f"Digest {KEY}"}),
            ("its digest", "/predict", {"authorization": f"Bearer {DIGEST}"}),
            ("a password", "/predict", {"authorization": f"Basic {BASIC}"}),
            ("not Base64", "/predict", {"authorization": "Basic ???"}),
            ("in the query", f"/predict?key={KEY}", {}),
            ("in upper case", "/predict", {"authorization": f"Bearer {KEY.upper()}a"}),
            ("very long", "/predict", {"authorization": f"Bearer {'k' * 9000}"}),
        )
    ),
    bad(
        "one request too many",
        http_request("GET", "/model"),
        "rate",
        "At most 0.02 requests per second",
        server="limited",
    ),
    bad("one prediction too many", predict(raw(NUMBER)), "rate", "At most 0.02 requests per second", server="limited"),
]

LONG = b"x-long: " + WORD.encode() * 3000 + b"\r\n"
WIRE = [
    bad("too long a header", http_request("GET", "/livez").replace(b"\r\n\r\n", b"\r\n" + LONG + b"\r\n"), "header", "too long", by="protocol"),
    bad("too many headers", http_request("GET", "/livez").replace(b"\r\n\r\n", b"\r\n" + b"x: y\r\n" * 101 + b"\r\n"), "header", by="protocol"),
    bad("too long an address", http_request("GET", f"/{WORD * 4000}"), "header", by="protocol"),
    bad("not HTTP", f"{WORD}\r\n\r\n".encode(), "malformed", "not HTTP", by="protocol"),
    bad("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), "malformed", by="protocol"),
    bad("an unknown method", f"{WORD.upper()} / HTTP/1.1\r\nhost: localhost\r\n\r\n".encode(), "malformed", by="protocol"),
    bad("two lengths", predict(STUDENT).replace(b"\r\n\r\n", b"\r\ncontent-length: 5\r\n\r\n"), "malformed", by="protocol"),
    bad("a length and chunks", predict(STUDENT, transfer_encoding="chunked"), "malformed", by="protocol"),
    bad("a length that is no number", predict(STUDENT, length="ten"), "malformed", by="protocol"),
    bad("a negative length", predict(STUDENT, length=-5), "malformed", by="protocol"),
    bad("a bad header", predict(STUDENT).replace(b"host", b"ho st"), "malformed", by="protocol"),
    bad("a zero byte in a header", predict(STUDENT, x_note=f"{WORD}\0"), "malformed", by="protocol"),
    bad("no host", predict(STUDENT, host=None), "host", "localhost"),
]

CASES = [*VALUES, *FIELDS, *LISTS, *BODIES, *OPTIONS, *FORMS, *FILES, *OTHERS, *METHODS, *PLACES, *DOOR, *WIRE]


# Sending it -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heard:
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes


def send(server: Server, request: bytes) -> Heard:
    """Bytes over a socket, and the one answer to them; the connection is closed after it."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as wire:
        with suppress(ConnectionError):  # the answer may be there all the same
            wire.sendall(request)
        answer = http.client.HTTPResponse(wire, method=request.split(b" ", 1)[0].decode("latin-1"))
        answer.begin()
        body = answer.read()
        assert wire.recv(1) == b"", "more than one answer"
        return Heard(answer.status, {name.lower(): ", ".join(answer.msg.get_all(name)) for name in answer.msg}, body)


@pytest.fixture(scope="module")
def servers() -> dict[str, Server]:
    """Three services: one for this machine, one that wants a key, one for the patient."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(served(**environment)) for name, environment in SERVERS.items()}


@pytest.fixture(scope="module")
def heard(servers) -> dict[str, Heard]:
    """The whole table, sent once in its order."""
    assert send(servers["limited"], http_request("GET", "/model")).status == 200  # the only one that it may have
    return {case.name: send(servers[case.server], case.request) for case in CASES}


# What must be right in every answer -----------------------------------------------------------------------------------


def test_the_table_has_no_name_twice_and_covers_every_refusal_that_a_request_can_deserve():
    assert len({case.name for case in CASES}) == len(CASES) >= 60
    elsewhere = {"timeout", "length", "fault", "busy"}  # not a matter of one request
    assert {case.kind for case in CASES} == set(STATUS) == set(KINDS) - elsewhere
    print(f"{len(CASES)} bad requests")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_request_is_refused_in_its_own_words(case, heard):
    answer = heard[case.name]
    assert answer.status == STATUS[case.kind], answer.body[:500]
    assert answer.headers["content-type"] == "application/problem+json"
    document = json.loads(answer.body)
    assert {"type": f"/docs#{case.kind}", "title": KINDS[case.kind].title, "status": STATUS[case.kind]}.items() <= document.items()
    assert set(document) <= {"type", "title", "status", "detail", "request_id", "n_errors", "errors"}
    errors = document.get("errors", [])
    assert [(error.get("row"), error.get("field")) for error in errors] == list(case.at), errors
    assert document.get("n_errors", 0) == len(errors)
    words = [document["detail"], *(error["message"] for error in errors)]
    for expected in case.says:
        assert any(expected in said for said in words), words
    assert case.headers.items() <= answer.headers.items()
    assert case.kind != "rate" or 0 < int(answer.headers["retry-after"]) <= 50
    check_headers(answer, case)
    check_closed_mouth(answer.body)


def check_headers(answer: Heard, case: Case) -> None:
    expected = {"x-content-type-options": "nosniff", "cache-control": "no-store"}
    if case.by == "app":
        policy = "default-src 'none'; frame-ancestors 'none'"
        expected |= {"content-security-policy": policy, "x-request-id": json.loads(answer.body)["request_id"]}
    assert expected.items() <= answer.headers.items()
    assert not {"server", "access-control-allow-origin", f"x-{WORD}"} & answer.headers.keys()
    assert int(answer.headers["content-length"]) == len(answer.body)


WORDS = ("Traceback", 'File "', ".py", "site-packages", "object at 0x", "msgspec", "pydantic", "InputError")
INSIDE = (*WORDS, str(REPO), sys.prefix, str(Path.home()) + "/")


def check_closed_mouth(body: bytes) -> None:
    text = body.decode()
    told = [inside for inside in INSIDE if inside in text]
    assert not told, text


MISTAKES = [({"reading_score": f"<b>{WORD}"}, f"&lt;b&gt;{WORD}"), ({"lunch": WORD}, f"'{WORD}'"), ({WORD: "1"}, "no such field")]


@pytest.mark.parametrize("path", ["/predictdata", "/predicted_data"])
@pytest.mark.parametrize(("changes", "says"), MISTAKES)
def test_a_browser_gets_the_form_back(path, changes, says, servers):
    answer = send(servers["open"], form(changes, path, accept=HTML))
    page = answer.body.decode()
    assert answer.status == 422 and answer.headers["content-type"].startswith("text/html")
    assert says in page.replace("&#x27;", "'") and "<b>" + WORD not in page
    assert answer.headers["x-frame-options"] == "DENY" and "default-src 'none'" in answer.headers["content-security-policy"]
    check_closed_mouth(answer.body)


def test_a_bad_row_of_a_file_stands_in_its_row(servers):
    lines = csv({}, {"reading_score": NUMBER}, {"lunch": WORD}, {}).decode().splitlines()
    lines[4] += f",{WORD}"
    answer = send(servers["open"], batch("\n".join(lines).encode()))
    table = pd.read_csv(io.BytesIO(answer.body), keep_default_na=False)
    assert answer.status == 200 and answer.headers["content-type"] == "text/csv; charset=utf-8"
    expected = studperf.predict(STUDENT)["prediction"].item()
    assert float(table["prediction"][0]) == expected and (table["prediction"][1:] == "").all() and (table["prediction_id"][1:] == "").all()
    for row, says in enumerate(("", f"{NUMBER}; expected {SCORE}", f"'{WORD}'", "8 cells")):
        assert says in table["problem"][row]


# And afterwards -------------------------------------------------------------------------------------------------------


def whole(server: Server) -> str:
    """All that a service keeps and tells: its output, its files, its counts."""
    headers = {"authorization": f"Bearer {KEY}"}
    counts = httpx.get(f"{server.url}/metrics", headers=headers, trust_env=False).text
    kept = [file.read_bytes().decode("latin-1") for file in server.folder.rglob("*") if file.is_file()]
    return "\n".join([server.log(), counts, *kept]).lower()


def test_nothing_that_was_sent_is_told_to_a_log_a_file_or_a_metric(servers, heard):
    sent = b"".join(case.request for case in CASES).lower()
    assert sent.count(WORD.encode()) > 50 and sent.count(NUMBER.encode()) > 10
    for name, server in servers.items():
        kept = whole(server)
        for secret in (WORD, NUMBER, KEY.lower(), DIGEST, ID):
            place = kept.find(secret)
            assert place < 0, f"{name}: {kept[max(place - 200, 0) : place + 200]}"
        odd = [line for line in server.log().splitlines() if re.search("traceback|error|boundary", line.replace("uvicorn.error", ""), re.I)]
        assert not odd, odd  # a parser's words quote what it parses


def test_a_refused_request_predicts_and_counts_nothing_but_its_refusal(servers, heard):
    fresh = {name: value for name, value in SERVERS["open"].items() if name != "STUDPERF_LOG_LEVEL"}
    with served(**fresh) as server:
        cases = [case for case in CASES if case.server == "open"]
        for case in cases:
            send(server, case.request)
        counts = httpx.get(f"{server.url}/metrics", trust_env=False).text
    assert not re.search(r"studperf_rows_total\S* [1-9]", counts) and re.search(r"studperf_prediction_count 0", counts)
    answered = sum(float(n) for n in re.findall(r"studperf_http_requests_total\S*status=\"4[0-9]{2}\"\S* ([0-9.e+]+)", counts))
    assert answered == sum(case.by == "app" for case in cases)
    labels = set(re.findall(r'route="([^"]*)"', counts))
    assert labels <= {*ACCESS, "other"}
    assert set(re.findall(r'reason="([^"]*)"', counts)) == {"missing", "unknown field", "shape", "type", "category", "number"}


def test_after_all_that_it_answers_rightly(servers, heard):
    expected = studperf.predict(STUDENT).iloc[0]
    for name, key in (("open", {}), ("closed", {"authorization": f"Bearer {KEY}"})):
        answer = httpx.post(f"{servers[name].url}/predict", json=STUDENT, headers=key, trust_env=False)
        assert answer.status_code == 200
        assert [answer.json()[part] for part in ("prediction", "lower", "upper")] == [expected["prediction"], expected["lower"], expected["upper"]]
    assert send(servers["limited"], http_request("GET", "/livez")).status == 200
