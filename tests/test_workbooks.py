"""Workbooks: what goes in comes out, a class list gives the numbers that its CSV gives, and a hostile file costs little and says why."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import zipfile
from base64 import b85decode
from datetime import date
from random import Random
from time import perf_counter
from zlib import decompress

import pandas as pd
import pytest
import xlsxwriter
from conftest import size
from hypothesis import given
from hypothesis import strategies as st

from studperf.datasets import load
from studperf.prediction import predict
from studperf.schema import InputError, read_table, table_bytes, write_table
from studperf.schema.sheets import MOST_UNPACKED, sheet_table
from studperf.schema.tables import typed_table
from studperf.schema.workbooks import MOST_MEMORY, is_workbook, workbook_sheets

XLS = decompress(b85decode(  # name, score; Zoë, 71; Ben, 64.5; Eve, =1/0
    "c-rk)O=uHA6#iy6X?|$ZO-+SX4547PwHNW?rCqJmo-EaiQVKO~_8^UkBqHcRt2IYK@T7Pt^x~!J#UJ#bH$kPM2SE@LJ@zCh^w4H~^L7?fjnIG=mHC$W=IxtrX5Q}n?9c0^L}mV7R~0"
    "{C5GHDF1TA$wK`G*&SfFy(m8PGEDY+W|6e3|7$d(`;$6kiy7|QXk!oc0YGh*N)r3swIXd&;UHxWY|Lq^CL28ac2ktdE$j;ft`nt2QJ9acVJ-p`(^%mbvYh;c00qka3-EIw{@b6Fg+-3M"
    "IfJ$v?`1JC6wzIaV|+8_=TPiAs|XF)2^iUrWPjW~Iyn8{U;qyb#OS2qoO@mK28wDxbVUx558>;0hy{_92nn1y?SCwLh#yfS4;5C?OaQfU>vWP%e3^O;i)nWgDM(IMG*VVQWy$rBHsb)s"
    "@}=EZESTg)+@<gLV6w6UGwsczABy?Xoeo5NFM_9S~|c?0*h`5iJcxVR*1P~|w61em3^k9jxqWo~sF+g;2_3Yqeru?}S%nq$osF72Uy_A=huJL~LSWS5tZJWQ28*}Y^hj#SSl7vI_Q=%&"
    "X`mg>u64*jBE+`J+2$o6xgwuBGNoj+|4VZ&0fyXslihBZXlOfY+A^6m(w7Y+1+^|HkaMwH`8ASFD#(Liso-c)+;?!U--db5GvWPO0gZabX`Ra-t-Jz+@pm!k4PqaF8U`?TMEM-&<w8X"
    "6iJ8X6iJzlKmR^rm{f530|GkovE)MyaNMll-?hiUJ*H=)-gvdCH48*VO#kilFe@5*w`J|1Xp{M!gp?gDH+<rs?@hpM9eKdNy3q`h82N+5T(I#QBH&{|2s-%q#"))  # fmt: skip


def zipped(parts: dict[str, str | bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as out:
        for name, part in parts.items():
            out.writestr(name, part)
    return content.getvalue()


def edited(content: bytes, part: str, change) -> bytes:
    """A workbook with one of its parts changed."""
    with zipfile.ZipFile(io.BytesIO(content)) as parts:
        return zipped({name: change(parts.read(name)) if name == part else parts.read(name) for name in parts.namelist()})


def spreadsheet(rows: str, *, prolog: str = "") -> bytes:
    """A minimal .ods file around the rows of its one sheet."""
    spaces = " ".join(f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "table", "text"))
    body = f'<office:body><office:spreadsheet><table:table table:name="Class">{rows}</table:table></office:spreadsheet></office:body>'
    content = f'<?xml version="1.0"?>{prolog}<office:document-content {spaces} xmlns:calcext="urn:x">{body}</office:document-content>'
    kind = "application/vnd.oasis.opendocument.spreadsheet"
    return zipped({"mimetype": kind, "content.xml": content, "META-INF/manifest.xml": "<manifest/>"})


def ods_cell(value: object) -> str:
    kind = "string" if isinstance(value, str) else "float"
    shown = "" if isinstance(value, str) else f' office:value="{value}"'
    return f'<table:table-cell office:value-type="{kind}"{shown}><text:p>{value}</text:p></table:table-cell>'


def ods_row(*values: object) -> str:
    return f"<table:table-row>{''.join(map(ods_cell, values))}</table:table-row>"


def workbook(*sheets: tuple[str, list[list]], write=None) -> bytes:
    content = io.BytesIO()
    with xlsxwriter.Workbook(content, {"in_memory": True}) as book:
        for title, rows in sheets:
            sheet = book.add_worksheet(title)
            for at, row in enumerate(rows):
                sheet.write_row(at, 0, row)
        if write:
            write(book, sheet)
    return content.getvalue()


SMALL = [["name", "score"], ["Zoë", 71], ["Ben", 64.5]]
SHEET = "xl/worksheets/sheet1.xml"

# --- what goes in comes out

texts = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cn")), max_size=12) | st.sampled_from(
    ["=1+1", "=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "007", "1e5", "_x0041_", "http://a.b", "none", "NaN", "#N/A", "TRUE", " a ", "a\nb", "€"]
)
parts = st.floats(-1e15, 1e15).filter(lambda x: not x.is_integer())  # among texts, 2.0 would be "2.0" in CSV and "2" in a workbook
numbers = st.integers(-999_999_999_999_999, 999_999_999_999_999) | parts | st.floats(1e16, 1e300)
cells = texts | numbers | st.none()


@given(st.lists(st.tuples(cells, cells, st.floats(-1e6, 1e6)), min_size=1, max_size=8))
def test_a_table_written_as_a_workbook_reads_as_its_csv_does(rows):
    table = pd.DataFrame(rows, columns=["first", "=second", "n"], dtype=object)
    as_book = sheet_table(table_bytes(table, ".xlsx"), "a.xlsx", None)
    expected = read_table(table_bytes(table, ".csv"), name="a.csv")
    pd.testing.assert_frame_equal(typed_table(*as_book, name="a.xlsx"), expected, check_exact=True, check_dtype=False)


def test_the_same_table_gives_the_same_bytes_and_text_that_looks_like_a_formula_stays_text(tmp_path):
    table = pd.DataFrame({"name": ["=cmd|' /C calc'!A0", "=1+1", "@x", "{=A1}"], "link": ["http://a.b"] * 4, "ok": [True, False, None, True]})
    content = table_bytes(table, ".xlsx")
    assert content == table_bytes(table, ".xlsx") == write_table(table, tmp_path / "a.XLSX").read_bytes() and is_workbook(content)
    with zipfile.ZipFile(io.BytesIO(content)) as parts:
        written = b"".join(parts.read(name) for name in parts.namelist() if "sheet" in name)
    assert b"<f" not in written and b"hyperlink" not in written
    assert read_table(content)["name"].tolist() == table["name"].tolist()
    assert read_table(content)["ok"].fillna("").tolist() == ["True", "False", "", "True"]


@pytest.mark.parametrize("content", [XLS, spreadsheet(ods_row("name", "score") + ods_row("Zoë", 71.0) + ods_row("Ben", 64.5))], ids=["xls", "ods"])
def test_older_and_open_formats_are_read(content):
    table = read_table(content).head(2)
    assert table.columns.tolist() == ["name", "score"] and table["name"].tolist() == ["Zoë", "Ben"] and table["score"].tolist() == [71, 64.5]


def test_a_class_in_excel_gives_the_numbers_of_its_csv_to_the_last_bit(cli, tmp_path):
    students = load("exams").head(40).rename(columns={"race_ethnicity": "race/ethnicity"})
    students.insert(0, "name", [f"Zoë {i} 李 😀" for i in range(40)])
    for suffix in ("csv", "xlsx"):
        write_table(students, tmp_path / f"class.{suffix}")
        assert cli("predict", tmp_path / f"class.{suffix}", "-o", tmp_path / f"scored.{suffix}").code == 0
    books, lines = read_table(tmp_path / "scored.xlsx"), read_table(tmp_path / "scored.csv")
    pd.testing.assert_frame_equal(books, lines, check_exact=True)
    assert books["prediction"].tolist() == predict(students)["prediction"].tolist()
    piped = cli("predict", "-", stdin=(tmp_path / "class.xlsx").read_bytes())
    assert piped.out == (tmp_path / "scored.csv").read_text()


def test_the_command_line_names_a_sheet_and_what_is_missing(command, tmp_path, monkeypatch):
    two = tmp_path / "two.xlsx"
    two.write_bytes(workbook(("7a", SMALL), ("7b", SMALL)))
    told = command("predict", two)
    assert told.code == 2 and "several sheets" in told.err and "'7a', '7b'" in told.err
    assert "does not have the columns" in command("predict", two, "--sheet", "7b").err
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    assert "pip install 'studperf[excel]'" in command("predict", two).err
    monkeypatch.setitem(sys.modules, "xlsxwriter", None)
    assert "pip install 'studperf[excel]'" in command("data", "export", "class", tmp_path / "class.xlsx").err
    assert "must end in .csv, .parquet, .xlsx" in command("data", "export", "class", tmp_path / "class.docx").err


# --- what only a workbook can hold


def test_dates_and_booleans_become_text_that_validation_names():
    student = load("exams").drop(columns="math_score").head(1)
    score = student.columns.get_loc("reading_score")

    def write(book, sheet):
        sheet.write_datetime(1, score, date(2024, 5, 3), book.add_format({"num_format": "d mmm"}))
        sheet.write_boolean(1, score + 1, True)

    content = workbook(("Class", [student.columns.tolist(), student.iloc[0].tolist()]), write=write)
    with pytest.raises(InputError) as refused:
        predict(read_table(content))
    assert [problem.value for problem in refused.value.problems] == ["2024-05-03", "True"]


def test_an_error_or_an_uncomputed_formula_is_named_with_its_cell_and_is_not_missing():
    def write(book, sheet):
        sheet.write_formula("B4", "=1/0", None, "#DIV/0!")
        sheet.write_formula("B5", "=NA()", None, "#N/A")
        sheet.write_formula("B6", "=B2+1", None, "")
        sheet.write_formula("B7", "=B2+1", None, 72)
        sheet.write_formula("B8", '=IF(1,"","")', None, "")

    found = read_table(edited(workbook(("Class", SMALL), write=write), SHEET, lambda s: s.replace(b'<c r="B8">', b'<c r="B8" t="str">')))
    assert found["score"].tolist() == ["71", "64.5", "#DIV/0! (cell B4)", "#N/A (cell B5)", "a formula without a value (cell B6)", "72"]
    with pytest.raises(InputError, match="cells with errors"):
        read_table(spreadsheet(ods_row("name") + ods_row("#N/A").replace("><text", ' calcext:value-type="error"><text')))


def test_errors_are_found_in_the_sheet_that_is_read_and_in_other_spellings_of_xml():
    def write(book, sheet):  # the last sheet
        sheet.write_formula("B2", "=1/0", None, "#DIV/0!")

    two = workbook(("first & last", SMALL), ("second", SMALL), write=write)
    assert read_table(two, sheet="first & last")["score"].tolist() == [71, 64.5]
    assert read_table(two, sheet="second")["score"].tolist()[0] == "#DIV/0! (cell B2)"
    prefixed = edited(two, "xl/worksheets/sheet2.xml", lambda s: re.sub(rb"<(/?)(\w)", rb"<\1x:\2", s).replace(b"xmlns=", b"xmlns:x="))
    assert read_table(prefixed, sheet="second")["score"].tolist()[0] == "#DIV/0! (cell B2)"


def test_where_the_table_stands_in_the_sheet():
    def write(book, sheet):
        for at, row in enumerate([["name", "score"], ["Ada", 1], [], ["Ben", 2]]):
            sheet.write_row(3 + at, 2, row)
        sheet.write_blank(40, 9, None, book.add_format({"bold": True}))

    found = read_table(workbook(("Class", []), write=write))
    assert found["name"].fillna("").tolist() == ["Ada", "", "Ben"]  # the row in the middle is a row, as in CSV with its commas
    with pytest.raises(InputError, match="nothing right of the header"):
        read_table(workbook(("Class", [*SMALL, ["Eve", 3, "ill"]])))
    with pytest.raises(InputError, match="stands 2 times in the header"):
        read_table(workbook(("Class", [["name", "name "], ["a", "b"]])))
    with pytest.raises(InputError, match="is empty"):
        read_table(workbook(("Class", [])))


def test_hidden_sheets_and_charts_are_not_offered():
    def write(book, sheet):
        sheet.hide()
        chart = book.add_chart({"type": "column"})
        chart.add_series({"values": "=Class!$B$2:$B$3"})
        book.add_chartsheet("Chart").set_chart(chart)

    content = workbook(("Class", SMALL), ("Empty", []), ("Hidden", SMALL), write=write)
    assert workbook_sheets(content) == ["Class"] and read_table(content)["score"].tolist() == [71, 64.5]
    assert len(read_table(content, sheet="Hidden")) == 2


# --- hostile files


def far(book, sheet):
    sheet.write("XFD1048576", 1)


def lying_bomb() -> bytes:
    """A sheet of 600 MB whose size is given as 99 bytes."""
    small, content = workbook(("Class", SMALL)), io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(small)) as parts, zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as out:
        for name in parts.namelist():
            start, end, rest = parts.read(name).partition(b"</sheetData>")
            with out.open(name, "w") as part:
                part.write(start)
                for _ in range(600 if name == SHEET else 0):
                    part.write(b'<row r="9"/>' * 83_334)
                part.write(end + rest)
        true = out.getinfo(SHEET).file_size.to_bytes(4, "little")
    return content.getvalue().replace(true, (99).to_bytes(4, "little"))


def encrypted() -> bytes:
    """The container of an encrypted workbook: the stream has the name that Excel gives it."""
    old, new = ("Workbook".encode("utf-16-le"), "EncryptedPackage".encode("utf-16-le"))
    at = XLS.index(old)
    return XLS[:at] + new + XLS[at + len(new) : at + 64] + (len(new) + 2).to_bytes(2, "little") + XLS[at + 66 :]


def more(rows: bytes, content: bytes | None = None) -> bytes:
    """A workbook with more rows than its maker wrote."""
    return edited(content or workbook(("Class", SMALL)), SHEET, lambda sheet: sheet.replace(b"</sheetData>", rows + b"</sheetData>"))


def entities(part: str, root: bytes, text: bytes) -> bytes:
    """A text that would be twenty thousand million characters long."""
    kept = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + b"".join(b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 50) for i in range(9)) + b"]>"
    return edited(workbook(("Class", SMALL)), part, lambda xml: xml.replace(root, kept + root, 1).replace(text, b"&j;"))


LONG = workbook(("Class", [["x"], ["y" * 32_000]]))
ONE_IN_ALL = '<table:table-cell table:number-columns-repeated="16384" office:value-type="float" office:value="1"/>'
HOSTILE = {
    "zip bomb": (lambda: zipped({"xl/workbook.xml": bytes(MOST_UNPACKED + 1)}), "would unpack to"),
    "zip bomb that lies": (lying_bomb, "damaged"),
    "a far cell": (lambda: workbook(("Class", SMALL), write=far), "far too large"),
    "a far cell alone": (lambda: workbook(("Class", []), write=far), "reaches to cell XFD1048576"),
    "a far cell below": (lambda: workbook(("Class", SMALL), write=lambda b, s: s.write("A900000", "x")), "rows 4 to 899,999 of the sheet are empty"),
    "a far error": (lambda: more(b'<row r="1048576"><c r="XFD1048576"><f>1</f></c></row>'), "reaches to cell XFD1048576"),
    "a cell beyond all": (lambda: more(b'<row r="9"><c r="ZZZ9999999"><f>1</f></c></row>'), "damaged|reaches to cell"),
    "repeated cells": (lambda: spreadsheet(f'<table:table-row table:number-rows-repeated="1048576">{ONE_IN_ALL}</table:table-row>'), "far too large"),
    "one long text in many cells": (
        lambda: more(b"".join(b'<row r="%d"><c r="A%d" t="s"><v>1</v></c></row>' % (i, i) for i in range(3, 100_000)), LONG),
        "far too large",
    ),
    "entities": (lambda: entities("xl/workbook.xml", b"<workbook", b"Class"), "damaged"),
    "entities in a sheet": (lambda: entities("xl/sharedStrings.xml", b"<sst", b"Ben"), "damaged"),
    "truncated": (lambda: workbook(("Class", SMALL))[:-400], "damaged"),
    "truncated sheet": (lambda: edited(workbook(("Class", SMALL)), SHEET, lambda s: s[:700]), "damaged"),
    "a plain zip": (lambda: zipped({"readme.txt": "hello"}), "of another kind"),
    "an empty zip": (lambda: zipped({}), "of another kind"),
    "a letter": (lambda: zipped({"[Content_Types].xml": "<Types/>", "word/document.xml": "<document/>"}), "of another kind"),
    "encrypted": (encrypted, "is encrypted"),
    "an old letter": (lambda: XLS.replace("Workbook".encode("utf-16-le"), "WordDocu".encode("utf-16-le")), "of another kind"),
    "noise": (lambda: b"PK\3\4" + Random(0).randbytes(100_000), "damaged"),
}


READ = """
import json, resource, sys
from studperf.schema.problems import InputError
from studperf.schema.workbooks import read_workbook

content = sys.stdin.buffer.read()
peak = lambda whose: resource.getrusage(whose).ru_maxrss / 1024
before = peak(resource.RUSAGE_SELF)
try:
    read_workbook(content, name="class.xlsx")
    refused = None
except InputError as error:
    refused = str(error)
print(json.dumps([refused, peak(resource.RUSAGE_SELF) - before, peak(resource.RUSAGE_CHILDREN)]))
"""


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_in_bounded_time_and_memory(kind):
    content, started = HOSTILE[kind][0](), perf_counter()  # read by a small process: what a child begins with is counted as its own
    told = subprocess.run([sys.executable, "-c", READ], input=content, capture_output=True, check=True)
    (refused, grown, theirs), seconds = json.loads(told.stdout), perf_counter() - started
    print(f"{kind}: {len(content):,} bytes, {seconds:.1f} s, here {grown:.0f} MB more, there at most {theirs:.0f} MB: {refused}")
    assert refused.startswith("class.xlsx") and re.search(HOSTILE[kind][1], refused)
    assert seconds < 40 and grown < 200 and theirs <= MOST_MEMORY / 2**20


def test_a_million_blank_rows_are_no_rows():
    blank = b"".join(b'<row r="%d"><c r="A%d" s="0"/></row>' % (row, row) for row in range(4, 1_048_577))
    content, started = more(blank), perf_counter()
    assert len(read_table(content)) == 2
    print(f"{len(content):,} bytes, {perf_counter() - started:.1f} s")


def test_any_damage_gives_the_table_or_a_refusal():
    rng, content = Random(1), [workbook(("Class", SMALL)), XLS, spreadsheet(ods_row("name", "score") + ods_row("Zoë", 71.0))]
    refused = 0
    for at in range(size(24, 600)):
        damaged = bytearray(content[at % 3])
        for _ in range(rng.choice([1, 3, 30])):
            damaged[rng.randrange(4, len(damaged))] = rng.randrange(256)
        try:
            read_table(bytes(damaged), name="class.xlsx")
        except InputError as error:
            refused += str(error).startswith("class.xlsx")
    print(f"{refused} of {size(24, 600)} refused")
    assert refused > size(24, 600) // 4


def test_a_sheet_is_asked_of_workbooks_only():
    with pytest.raises(InputError, match="has no sheets"):
        read_table(b"name\nAda\n", name="class.csv", sheet="7b")
    with pytest.raises(InputError, match="'7c'; expected one of its sheets: 'Class'"):
        read_table(workbook(("Class", SMALL)), sheet="7c")
