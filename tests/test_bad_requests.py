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
from contextlib import ExitStack
from dataclasses import dataclass, field
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

WORD, NUMBER = "zarquon", "90417"  # stand in the bad requests, and must not be heard of again
KEY, DIGEST = new_key()
SERVERS = {
    "open": {"STUDPERF_MAX_ROWS": 20, "STUDPERF_MAX_BYTES": 20_000, "STUDPERF_MAX_UPLOAD_BYTES": 30_000, "STUDPERF_MAX_UPLOAD_ROWS": 200,
             "STUDPERF_ACCESS_LOG": 1, "STUDPERF_LOG_LEVEL": "debug"},
    "closed": {"STUDPERF_API_KEYS": DIGEST, "STUDPERF_DATABASE": "off", "STUDPERF_ACCESS_LOG": 1, "STUDPERF_LOG_LEVEL": "debug"},
    "limited": {"STUDPERF_RATE": 0.02, "STUDPERF_DATABASE": "off", "STUDPERF_ACCESS_LOG": 1, "STUDPERF_LOG_LEVEL": "debug"},
}  # fmt: skip
STUDENT = {"gender": "female", "race_ethnicity": "group B", "parental_level_of_education": "bachelor's degree", "lunch": "standard",
           "test_preparation_course": "none", "reading_score": 72, "writing_score": 74}  # fmt: skip
FORM = {"ethnicity" if name == "race_ethnicity" else name: str(value) for name, value in STUDENT.items()}
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
    return post(path, str(httpx.QueryParams(fields)), "application/x-www-form-urlencoded", **headers)


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


@dataclass(frozen=True)
class Case:
    """A bad request, and the refusal that it deserves."""

    name: str
    request: bytes
    status: int
    kind: str  # of `KINDS`
    says: tuple[str, ...] = ()  # each in the detail or in one of the messages
    places: tuple[tuple[int | None, str | None], ...] | None = None  # row and field of every entry of `errors`; None: there are none
    headers: dict[str, str] = field(default_factory=dict)  # of the answer
    server: str = "open"
    by: str = "app"  # "protocol": refused before there is a request


GOOD_CSV, SCORE = csv({}), "a number from 0 to 100"
LUNCH = "'free/reduced', 'standard'"
IN_QUOTES = f"a JSON number, without quotes: {SCORE}"


def value(name: str, text: str, *says: str, column: str = "reading_score") -> Case:
    return Case(name, predict(raw(text, column)), 422, "invalid", says, ((None, column),))


VALUES = [
    value("too high a score", NUMBER, f"reading_score: {NUMBER}; expected {SCORE}"),
    value("a score just too high", "100.00000000000001", "100.00000000000001", SCORE),
    value("a negative score", f"-{NUMBER}", f"-{NUMBER}; expected {SCORE}"),
    value("NaN", "NaN", SCORE),
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
    value("a lone surrogate", '"\\ud800"', LUNCH, column="lunch"),
]

FIELDS = [
    Case("a field is missing", predict(without("lunch")), 422, "invalid", ("lunch: missing", LUNCH), ((None, "lunch"),)),
    Case("every field is missing", predict("{}"), 422, "invalid", ("7 values cannot be used",), tuple((None, name) for name in STUDENT)),
    Case("an unknown field", predict(STUDENT | {WORD: 1}), 422, "invalid", (f"{WORD}: no such field",), ((None, WORD),)),
    Case("a misspelt field", predict(without("lunch") | {"lunhc": WORD}), 422, "invalid", ("did you mean lunch?", "lunch: missing"),
         ((None, "lunhc"), (None, "lunch"))),
    Case("the target is sent", predict(STUDENT | {"math_score": 70}), 422, "invalid", ("it is what the model predicts",), ((None, "math_score"),)),
    Case("the target under another name", predict(STUDENT | {"Math Score": 70}), 422, "invalid", ("what the model predicts",), ((None, "Math Score"),)),
    Case("a field stands twice", predict(raw(f'72, "reading_score": {NUMBER}')), 422, "invalid", ("stands more than once",), ((None, "reading_score"),)),
    Case("a field stands twice with the same value", predict(raw('"none", "test_preparation_course": "none"', "test_preparation_course")), 422, "invalid",
         ("each field once",), ((None, "test_preparation_course"),)),
    Case("a column stands under two names", predict(STUDENT | {"ethnicity": "group B"}), 422, "invalid", ("stands under two names",),
         ((None, "race_ethnicity"),)),
    Case("several mistakes at once", predict(STUDENT | {"lunch": WORD, "gender": 1, "writing_score": 101}), 422, "invalid", ("3 values",),
         ((None, "gender"), (None, "lunch"), (None, "writing_score"))),
]  # fmt: skip

LISTS = [
    Case("an empty list", predict("[]"), 422, "invalid", ("no student in the list", "at least one student"), ((None, None),)),
    Case("one bad row", predict([STUDENT, STUDENT, STUDENT | {"lunch": WORD}]), 422, "invalid", ("1 of 3 students", f"row 3, lunch: '{WORD}'"),
         ((3, "lunch"),)),
    Case("two bad rows", predict([STUDENT | {"reading_score": -1}, STUDENT, without("gender")]), 422, "invalid", ("2 of 3 students",),
         ((1, "reading_score"), (3, "gender"))),
    Case("a list of no objects", predict(f'[1, "{WORD}", null]'), 422, "invalid", ("3 of 3 students", "row 2", "an object with the fields of a student"),
         ((1, None), (2, None), (3, None))),
    Case("a list in a list", predict([[STUDENT]]), 422, "invalid", ("an object with the fields of a student",), ((1, None),)),
    Case("a bare number", predict(NUMBER), 422, "invalid", ("an object with the fields of a student",), ((None, None),)),
    Case("a bare text", predict(f'"{WORD}"'), 422, "invalid", ("an object with the fields of a student",), ((None, None),)),
    Case("null", predict("null"), 422, "invalid", ("an object with the fields of a student",), ((None, None),)),
    Case("NaN alone", predict("NaN"), 422, "invalid", ("an object with the fields of a student",), ((None, None),)),
    Case("too many rows", predict([STUDENT] * 21), 413, "too-large", ("21 students", "at most 20", "/predict/batch")),
    Case("too many bad rows", predict(f"[{'0,' * 30}0]"), 413, "too-large", ("31 students",)),
]  # fmt: skip

BODIES = [
    Case("nested too deep", predict("[" * 3000 + "]" * 3000), 400, "malformed", ("more than 20 levels",)),
    Case("a value nested too deep", predict(raw("[" * 40 + NUMBER + "]" * 40)), 400, "malformed", ("more than 20 levels",)),
    Case("not JSON", predict(f"reading_score={WORD}"), 400, "malformed", ("not JSON", "line 1, column 1")),
    Case("truncated JSON", predict(raw(f'"{WORD}')[:-20]), 400, "malformed", ("not JSON",)),
    Case("something after the JSON", predict(json.dumps(STUDENT) + WORD), 400, "malformed", ("not JSON",)),
    Case("a comma too many", predict(raw("72,")), 400, "malformed", ("not JSON",)),
    Case("a number with a leading zero", predict(raw("072")), 400, "malformed", ("not JSON",)),
    Case("invalid UTF-8", predict(json.dumps(STUDENT).encode().replace(b"standard", b"standard\xff")), 400, "malformed", ("not UTF-8", "byte ")),
    Case("an encoded surrogate", predict(json.dumps(STUDENT).encode().replace(b"standard", b"\xed\xa0\x80")), 400, "malformed", ("not UTF-8",)),
    Case("UTF-16", predict(json.dumps(STUDENT).encode("utf-16")), 400, "malformed", ("not UTF-8",)),
    Case("a byte order mark", predict(b"\xef\xbb\xbf" + json.dumps(STUDENT).encode()), 400, "malformed", ("byte order mark",)),
    Case("an empty body", predict(""), 400, "malformed", ("not JSON",)),
    Case("blanks for a body", predict("  \n "), 400, "malformed", ("not JSON",)),
    Case("a zero byte", predict("\0"), 400, "malformed", ("not JSON",)),
    Case("no content type", post("/predict", json.dumps(STUDENT), None), 415, "media-type", ("application/json",), None, {"accept-post": "application/json"}),
    Case("another content type", post("/predict", WORD, "text/plain"), 415, "media-type", ("application/json",), None, {"accept-post": "application/json"}),
    Case("a form to /predict", post("/predict", "lunch=standard", "application/x-www-form-urlencoded"), 415, "media-type", ("application/json",)),
    Case("a content type that begins alike", post("/predict", json.dumps(STUDENT), "application/jsonp"), 415, "media-type", ("application/json",)),
    Case("gzip", predict(gzip(json.dumps(STUDENT).encode()), content_encoding="gzip"), 415, "media-type", ("uncompressed",), None,
         {"accept-encoding": "identity"}),
    Case("gzip with an option", predict(gzip(b"{}"), "/predict?level=0.9", content_encoding="gzip"), 415, "media-type", ("uncompressed",)),
    Case("gzip that is not announced", predict(gzip(json.dumps(STUDENT).encode())), 400, "malformed", ("not UTF-8",)),
    Case("another charset", predict(json.dumps(STUDENT).encode("utf-16"), content_type="application/json; charset=utf-16"), 415, "media-type", ("UTF-8",)),
    Case("too large by its own word", predict(b"", length=10**9), 413, "too-large", ("more than 20,000 bytes",), None, {"connection": "close"}),
    Case("a length beyond counting", predict(b"", length="9" * 18), 413, "too-large", ("more than 20,000 bytes",)),
    Case("too large, in chunks", predict(chunked(f'"{WORD * 4000}"'.encode()), length=None, transfer_encoding="chunked", content_length=None), 413,
         "too-large", ("more than 20,000 bytes",)),
    Case("too large, with an option", predict(f'"{WORD * 4000}"', "/predict?level=0.9"), 413, "too-large", ("more than 20,000 bytes",)),
]  # fmt: skip


def option(name: str, query: str, *says: str, column: str, path: str = "/predict") -> Case:
    return Case(name, predict(STUDENT, f"{path}?{query}"), 422, "invalid", says, ((None, column),))


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
    option("a misspelt option", "levle=0.9", "level, threshold, feature_set, explain", column="levle"),
    option("an option of another address", "level=0.9", "an option of this address: feature_set", column="level", path="/explain"),
    option("an option where there is none", "level=0.9", column="level", path="/outcomes"),
    Case("two bad options", predict(STUDENT, f"/predict?level=2&threshold={WORD}"), 422, "invalid", (LEVEL, "a number, as 60"),
         ((None, "level"), (None, "threshold"))),
]  # fmt: skip


def bad_form(name: str, changes: dict, *says: str, column: str | None, path: str = "/predictdata") -> Case:
    return Case(name, form(changes, path), 422, "invalid", says, ((None, column),))


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
    Case("form: empty", post("/predictdata", "", "application/x-www-form-urlencoded"), 422, "invalid", ("missing",), tuple((None, n) for n in STUDENT)),
    Case("form: a field twice", post("/predictdata", f"lunch=standard&lunch={WORD}", "application/x-www-form-urlencoded"), 400, "malformed", ("twice",)),
    Case("form: not a form", post("/predictdata", WORD, "application/x-www-form-urlencoded"), 400, "malformed", NOT_A_FORM),
    Case("form: not UTF-8", post("/predictdata", "lunch=%ff%fe", "application/x-www-form-urlencoded"), 400, "malformed", NOT_A_FORM),
    Case("form: bytes", post("/predictdata", b"lunch=\xff\xfe", "application/x-www-form-urlencoded"), 400, "malformed", NOT_A_FORM),
    Case("form: a thousand fields", post("/predictdata", "&".join(f"a{i}=1" for i in range(1000)), "application/x-www-form-urlencoded"), 400,
         "malformed", NOT_A_FORM),
    Case("form: JSON", predict(STUDENT, "/predictdata"), 415, "media-type", ("application/x-www-form-urlencoded",)),
    Case("form: too large", form({WORD: WORD * 4000}), 413, "too-large", ("more than 20,000 bytes",)),
    Case("form: too large, for a browser", form({WORD: WORD * 4000}, accept=HTML), 413, "too-large", ("more than 20,000 bytes",)),
    Case("form: an option", form({}, "/predictdata?level=0.5&level=0.5"), 422, "invalid", ("twice",), ((None, "level"),)),
]  # fmt: skip

MANY = csv(*[{"reading_score": score % 100} for score in range(150)])
FILES = [
    Case("file: binary", batch(bytes(range(256))), 422, "invalid", ("not UTF-8 text",)),
    Case("file: Latin-1", batch(GOOD_CSV.replace(b"standard", "Zoë".encode("latin-1"))), 422, "invalid", ("line 2", "0xeb")),
    Case("file: a zero byte", batch(GOOD_CSV + b"\0"), 422, "invalid", ("zero byte",)),
    Case("file: empty", batch(b""), 422, "invalid", ("empty",)),
    Case("file: only blank lines", batch(b"\n\n\n"), 422, "invalid", ("empty",)),
    Case("file: header only", batch(GOOD_CSV.splitlines()[0] + b"\n"), 422, "invalid", ("no rows",)),
    Case("file: columns are missing", batch(f"lunch,{WORD}\nstandard,1\n".encode()), 422, "invalid", ("no such column",),
         tuple((None, name) for name in STUDENT if name != "lunch")),
    Case("file: a column twice", batch(GOOD_CSV.replace(b"gender", b"lunch")), 422, "invalid", ("lunch",), ((None, "lunch"),)),
    Case("file: a column under two names", batch(csv({"Ethnicity": "group B"})), 422, "invalid", ("race_ethnicity",), ((None, "race_ethnicity"),)),
    Case("file: a result's name is taken", batch(csv({"prediction": NUMBER})), 422, "invalid", ("another name",), ((None, "prediction"),)),
    Case("file: an open quotation mark", batch(GOOD_CSV + f'"{WORD}'.encode()), 422, "invalid", ("breaks off",)),
    Case("file: a huge cell", batch(f"lunch,essay\nstandard,{'x' * 29_000}\n".encode(), query="?level=7"), 422, "invalid", (LEVEL,), ((None, "level"),)),
    Case("file: too many columns", batch(b",".join(b"c%d" % i for i in range(600)) + b"\n1\n"), 413, "too-large", ("600 columns",)),
    Case("file: too many rows", batch(csv({}, *[{}] * 200)[:29_000], query="?threshold=50"), 413, "too-large", ("more than 200 rows",)),
    Case("file: an Excel workbook", batch(xlsx()), 422, "invalid", ("Excel workbook", "CSV UTF-8")),
    Case("file: an Excel workbook under its own type", batch(xlsx(), "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"), 415, "media-type",
         ("text/csv", "application/vnd.apache.parquet", "multipart/form-data")),
    Case("file: JSON", batch(json.dumps(STUDENT).encode(), "application/json"), 415, "media-type", ("text/csv",)),
    Case("file: gzip", batch(gzip(GOOD_CSV), content_encoding="gzip"), 415, "media-type", ("uncompressed",)),
    Case("file: gzip that is not announced", batch(gzip(GOOD_CSV)), 422, "invalid", ("gzip", "uncompressed")),
    Case("file: too many bytes by its own word", batch(b"", length=10**9), 413, "too-large", ("more than 30,000 bytes",)),
    Case("file: too many bytes", batch(MANY * 4), 413, "too-large", ("more than 30,000 bytes",)),
    Case("file: too many bytes, in chunks", batch(chunked(MANY * 4), content_length=None, transfer_encoding="chunked"), 413, "too-large", ("30,000",)),
    Case("file: damaged Parquet", batch(b"PAR1" + WORD.encode() + b"PAR1", "application/vnd.apache.parquet"), 422, "invalid", ("not a readable Parquet",)),
    Case("file: Parquet that is cut off", batch(parquet(pd.DataFrame([STUDENT]))[:-20], "application/vnd.apache.parquet"), 422, "invalid", ("Parquet",)),
    Case("file: Parquet with a damaged page", batch(parquet(pd.DataFrame([STUDENT] * 9)).replace(b"standard", b"st\xffndard"),
         "application/vnd.apache.parquet"), 422, "invalid", ("Parquet",)),
    Case("file: Parquet without rows", batch(parquet(pd.DataFrame([STUDENT])[:0]), "application/vnd.apache.parquet"), 422, "invalid", ("no rows",)),
    Case("file: Parquet without a column", batch(parquet(pd.DataFrame([without("lunch")])), "application/vnd.apache.parquet"), 422, "invalid",
         ("no such column",), ((None, "lunch"),)),
    Case("file: an option of another address", batch(GOOD_CSV, query="?explain=true"), 422, "invalid", ("level, threshold",), ((None, "explain"),)),
    Case("parts: no boundary", batch(part(GOOD_CSV), "multipart/form-data"), 400, "malformed", ("boundary",)),
    Case("parts: too long a boundary", batch(part(GOOD_CSV), f"multipart/form-data; boundary={'b' * 71}"), 400, "malformed", ("boundary",)),
    Case("parts: another boundary", batch(part(GOOD_CSV) + b"--b--\r\n", "multipart/form-data; boundary=c"), 400, "malformed", ("told from each other",)),
    Case("parts: no end", multipart(part(GOOD_CSV)), 400, "malformed", ("breaks off",)),
    Case("parts: empty", multipart(b""), 400, "malformed", ("breaks off",)),
    Case("parts: no file", multipart(part(GOOD_CSV, 'form-data; name="file"') + b"--b--\r\n"), 400, "malformed", ("0 files",)),
    Case("parts: two files", multipart(2 * part(GOOD_CSV) + b"--b--\r\n"), 400, "malformed", ("2 files",)),
    Case("parts: a bad table", multipart(part(f"{WORD}\n1\n".encode()) + b"--b--\r\n"), 422, "invalid", ("no such column",),
         tuple((None, name) for name in STUDENT)),
    Case("parts: too many bytes", multipart(part(MANY * 4) + b"--b--\r\n"), 413, "too-large", ("30,000",)),
]  # fmt: skip

ID = "0123456789abcdef" * 2


def outcome(name: str, body: object, *says: str, places: tuple, status: int = 422, kind: str = "invalid", **more: object) -> Case:
    return Case(name, predict(body, "/outcomes"), status, kind, says, places, **more)


MARK = f"a JSON number: {SCORE}"
OTHERS = [
    Case("explain: an unknown category", predict(STUDENT | {"lunch": WORD}, "/explain"), 422, "invalid", (f"lunch: '{WORD}'",), ((None, "lunch"),)),
    Case("explain: a bad row", predict([STUDENT, STUDENT | {"reading_score": 101}], "/explain"), 422, "invalid", ("row 2",), ((2, "reading_score"),)),
    Case("explain: another feature set", predict(STUDENT, "/explain?feature_set=early"), 422, "invalid", ("full",), ((None, "feature_set"),)),
    Case("explain: not JSON", predict(WORD, "/explain"), 400, "malformed", ("not JSON",)),
    outcome("outcome: not an id", {"id": WORD, "value": 70}, "32 hexadecimal digits", places=((None, "id"),)),
    outcome("outcome: an id in capitals", {"id": ID.upper(), "value": 70}, "32 hexadecimal digits", places=((None, "id"),)),
    outcome("outcome: an id with a line end", {"id": ID + "\n", "value": 70}, "32 hexadecimal digits", places=((None, "id"),)),
    outcome("outcome: no id", {"value": 70}, "32 hexadecimal digits", places=((None, "id"),)),
    outcome("outcome: no value", {"id": ID}, MARK, places=((None, "value"),)),
    outcome("outcome: NaN", f'{{"id": "{ID}", "value": NaN}}', MARK, places=((None, "value"),)),
    outcome("outcome: too high", {"id": ID, "value": int(NUMBER)}, f"{NUMBER}; expected {MARK}", places=((None, "value"),)),
    outcome("outcome: in quotes", {"id": ID, "value": "70"}, MARK, places=((None, "value"),)),
    outcome("outcome: true", {"id": ID, "value": True}, MARK, places=((None, "value"),)),
    outcome("outcome: an integer of 400 digits", f'{{"id": "{ID}", "value": {NUMBER * 80}}}', MARK, places=((None, "value"),)),
    outcome("outcome: an unknown field", {"id": ID, "value": 70, WORD: 1}, "no such field", places=((None, WORD),)),
    outcome("outcome: a value twice", f'{{"id": "{ID}", "value": 70, "value": 71}}', "each field once", places=((None, "value"),)),
    outcome("outcome: a list with a bad row", [{"id": ID, "value": 70}, {"id": ID, "value": -1}], "row 2", places=((2, "value"),)),
    outcome("outcome: an empty list", "[]", "from one to 20", places=None),
    outcome("outcome: too many", [{"id": ID, "value": 70}] * 21, "from one to 20", places=None, status=413, kind="too-large"),
    outcome("outcome: an unknown prediction", {"id": ID, "value": 70}, "not in the log", places=((1, "id"),), status=404, kind="not-found"),
    Case("outcome: no log", predict({"id": ID, "value": 70}, "/outcomes", authorization=f"Bearer {KEY}"), 409, "conflict", ("no log",), server="closed"),
]  # fmt: skip

POSTS, GETS = ("/predict", "/predict/batch", "/explain", "/outcomes"), ("/", "/model", "/model/card", "/metrics", "/health", "/livez", "/readyz", "/docs")
METHODS = [Case(f"GET {path}", http_request("GET", path), 405, "method", ("Allow",), None, {"allow": "POST"}) for path in POSTS]
METHODS += [Case(f"POST {path}", predict(STUDENT, path), 405, "method", ("Allow",), None, {"allow": "GET"}) for path in GETS]
METHODS += [Case(f"{method} /predict", http_request(method, "/predict", json.dumps(STUDENT)), 405, "method", ("Allow",), None, {"allow": "POST"})
            for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")]  # fmt: skip
METHODS += [Case("PUT /predictdata", http_request("PUT", "/predictdata"), 405, "method", ("Allow",), None, {"allow": "GET, POST"})]

PLACES = [
    Case(f"{method} {path[:30]}", http_request(method, path), 404, "not-found", ("/docs",))
    for method, path in (
        ("GET", f"/{WORD}"), ("POST", f"/{WORD}"), ("GET", f"/predict/{WORD}"), ("GET", "/predict/"), ("GET", "//predict"), ("GET", "/docs/"),
        ("GET", "/../etc/passwd"), ("GET", "/%2e%2e/etc/passwd"), ("GET", "/Predict"), ("GET", "/redoc"), ("GET", "/predict%00"), ("GET", "/predict%ff"),
        ("GET", f"/model/card%0d%0ax-{WORD}:%201"), ("GET", f"http://localhost/{WORD}"),
    )
]  # fmt: skip

NO_KEY = {"www-authenticate": 'Bearer realm="studperf", Basic realm="studperf", charset="UTF-8"'}
BASIC = base64.b64encode(f"{WORD}:{WORD}".encode()).decode()
DOOR = [
    *(Case(f"the name {name!r}", predict(STUDENT, host=name), 421, "host", ("STUDPERF_HOSTS",)) for name in
      (f"{WORD}.example", "localhost.zarquon.example", "localhost@zarquon", "10.0.0.1", "127.0.0.1.nip.io", "")),
    Case("the name on the way to /livez", http_request("GET", "/livez", host=f"{WORD}.example"), 421, "host", ("localhost",)),
    Case("a form from another site", form({}, sec_fetch_site="cross-site"), 403, "cross-site", ("own pages",)),
    Case("a form from a neighbour", form({}, sec_fetch_site="same-site"), 403, "cross-site", ("own pages",)),
    Case("a form from another origin", form({}, "/predicted_data", origin=f"https://{WORD}.example"), 403, "cross-site", ("own pages",)),
    Case("a form from a sandbox", form({}, origin="null"), 403, "cross-site", ("own pages",)),
    Case("JSON from another origin", predict(STUDENT, origin=f"https://{WORD}.example"), 403, "cross-site", ("own pages",)),
    Case("a file from another site", batch(GOOD_CSV, sec_fetch_site="cross-site"), 403, "cross-site", ("own pages",)),
    *(Case(f"without a key: {path}", http_request("GET", path), 401, "unauthorized", ("Authorization",), None, NO_KEY, "closed")
      for path in ("/", "/docs", "/model", "/metrics", f"/{WORD}", "/predict")),
    Case("without a key: a prediction", predict(STUDENT), 401, "unauthorized", ("Bearer",), None, NO_KEY, "closed"),
    Case("without a key: a bad value", predict(raw(NUMBER)), 401, "unauthorized", ("Bearer",), None, NO_KEY, "closed"),
    *(Case(f"a wrong key: {name}", predict(STUDENT, path, **headers), 401, "unauthorized", ("Authorization",), None, NO_KEY, "closed")
      for name, path, headers in (
          ("a word", "/predict", {"authorization": f"Bearer {WORD}"}), ("no scheme", "/predict", {"authorization": KEY}),
          ("another scheme", "/predict", {"authorization": f"Digest {KEY}"}), ("its digest", "/predict", {"authorization": f"Bearer {DIGEST}"}),
          ("a password", "/predict", {"authorization": f"Basic {BASIC}"}), ("not Base64", "/predict", {"authorization": "Basic ???"}),
          ("in the query", f"/predict?key={KEY}", {}), ("in upper case", "/predict", {"authorization": f"Bearer {KEY.upper()}a"}),
          ("very long", "/predict", {"authorization": f"Bearer {'k' * 9000}"}))),
    Case("one request too many", http_request("GET", "/model"), 429, "rate", ("At most 0.02 requests per second",), None, {"retry-after": "50"}, "limited"),
    Case("one prediction too many", predict(raw(NUMBER)), 429, "rate", ("At most 0.02 requests per second",), None, {}, "limited"),
]  # fmt: skip

LONG = b"x-long: " + WORD.encode() * 3000 + b"\r\n"
WIRE = [
    Case("too long a header", http_request("GET", "/livez").replace(b"\r\n\r\n", b"\r\n" + LONG + b"\r\n"), 431, "header", ("too long",), by="protocol"),
    Case("too many headers", http_request("GET", "/livez").replace(b"\r\n\r\n", b"\r\n" + b"x: y\r\n" * 101 + b"\r\n"), 431, "header", by="protocol"),
    Case("too long an address", http_request("GET", f"/{WORD * 4000}"), 431, "header", by="protocol"),
    Case("not HTTP", f"{WORD}\r\n\r\n".encode(), 400, "malformed", ("not HTTP",), by="protocol"),
    Case("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), 400, "malformed", by="protocol"),
    Case("an unknown method", f"{WORD.upper()} / HTTP/1.1\r\nhost: localhost\r\n\r\n".encode(), 400, "malformed", by="protocol"),
    Case("two lengths", predict(STUDENT).replace(b"\r\n\r\n", b"\r\ncontent-length: 5\r\n\r\n"), 400, "malformed", by="protocol"),
    Case("a length and chunks", predict(STUDENT, transfer_encoding="chunked"), 400, "malformed", by="protocol"),
    Case("a length that is no number", predict(STUDENT, length="ten"), 400, "malformed", by="protocol"),
    Case("a negative length", predict(STUDENT, length=-5), 400, "malformed", by="protocol"),
    Case("a bad header", predict(STUDENT).replace(b"host", b"ho st"), 400, "malformed", by="protocol"),
    Case("a zero byte in a header", predict(STUDENT, x_note=f"{WORD}\0"), 400, "malformed", by="protocol"),
    Case("no host", predict(STUDENT, host=None), 421, "host", ("localhost",)),
]  # fmt: skip

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
        try:
            wire.sendall(request)
        except ConnectionError:
            pass  # the answer may be there all the same
        answer = http.client.HTTPResponse(wire, method=request.split(b" ", 1)[0].decode("latin-1"))
        answer.begin()
        body = answer.read()
        assert wire.recv(1) == b"", "more than one answer"
        return Heard(answer.status, {name.lower(): value for name, value in answer.getheaders()}, body)


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
    assert {case.kind for case in CASES} == set(KINDS) - {"timeout", "length", "fault", "busy"}  # the first two have tests of their own
    assert all(KINDS[case.kind].status == case.status for case in CASES)
    print(f"{len(CASES)} bad requests")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_request_is_refused_in_its_own_words(case, heard):
    answer = heard[case.name]
    assert answer.status == case.status, answer.body[:500]
    assert answer.headers["content-type"] == "application/problem+json"
    document = json.loads(answer.body)
    assert {"type": f"/docs#{case.kind}", "title": KINDS[case.kind].title, "status": case.status}.items() <= document.items()
    assert set(document) <= {"type", "title", "status", "detail", "request_id", "n_errors", "errors"}
    errors = document.get("errors", [])
    assert [(error.get("row"), error.get("field")) for error in errors] == list(case.places or ()), errors
    assert document.get("n_errors", 0) == len(errors)
    words = [document["detail"], *(error["message"] for error in errors)]
    for expected in case.says:
        assert any(expected in said for said in words), words
    assert case.headers.items() <= answer.headers.items()
    check_headers(answer, case)
    check_closed_mouth(answer.body)


def check_headers(answer: Heard, case: Case) -> None:
    expected = {"x-content-type-options": "nosniff", "cache-control": "no-store"}
    if case.by == "app":
        expected |= {"content-security-policy": "default-src 'none'; frame-ancestors 'none'", "referrer-policy": "no-referrer",
                     "cross-origin-resource-policy": "same-origin", "x-request-id": json.loads(answer.body)["request_id"]}  # fmt: skip
    assert expected.items() <= answer.headers.items()
    assert not {"server", "access-control-allow-origin", f"x-{WORD}"} & answer.headers.keys()
    assert int(answer.headers["content-length"]) == len(answer.body)


INSIDE = ("Traceback", 'File "', ".py", "site-packages", "object at 0x", "msgspec", "pydantic", "InputError", str(REPO), sys.prefix, str(Path.home()) + "/")


def check_closed_mouth(body: bytes) -> None:
    text = body.decode()
    told = [inside for inside in INSIDE if inside in text]
    assert not told, text


@pytest.mark.parametrize("path", ["/predictdata", "/predicted_data"])
@pytest.mark.parametrize(("changes", "says"), [({"reading_score": f"<b>{WORD}"}, f"&lt;b&gt;{WORD}"), ({"lunch": WORD}, LUNCH), ({WORD: "1"}, "no such field")])
def test_a_browser_gets_the_form_back(path, changes, says, servers):
    answer = send(servers["open"], form(changes, path, accept=HTML))
    page = answer.body.decode()
    assert answer.status == 422 and answer.headers["content-type"].startswith("text/html")
    assert re.sub("&#x27;", "'", says) in re.sub("&#x27;", "'", page) and "<b>" + WORD not in page
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
        assert "traceback" not in kept and "error" not in server.log().lower().replace("uvicorn.error", ""), server.log()


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
    assert labels <= {"/", "/predict", "/predict/batch", "/explain", "/outcomes", "/predictdata", "/predicted_data", "/model", "/model/card", "/metrics",
                      "/health", "/livez", "/readyz", "/docs", "/openapi.json", "other"}  # fmt: skip
    assert set(re.findall(r'reason="([^"]*)"', counts)) == {"missing", "unknown field", "shape", "type", "category", "number"}


def test_after_all_that_it_answers_rightly(servers, heard):
    expected = studperf.predict(STUDENT).iloc[0]
    for name, key in (("open", {}), ("closed", {"authorization": f"Bearer {KEY}"})):
        answer = httpx.post(f"{servers[name].url}/predict", json=STUDENT, headers=key, trust_env=False)
        assert answer.status_code == 200
        assert [answer.json()[part] for part in ("prediction", "lower", "upper")] == [expected["prediction"], expected["lower"], expected["upper"]]
    assert send(servers["limited"], http_request("GET", "/livez")).status == 200
