"""CSV and TSV as RFC 4180 has them, and as pandas, Excel and spreadsheets write them."""

import csv
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_files import read

from sft.data.read.files import Wanted, rows
from sft.errors import UserError

TABLE = [
    ("a,b\n1,2\n", [(2, {"a": "1", "b": "2"})]),
    ("\ufeffa,b\r\n1,\r\n\r\n", [(2, {"a": "1", "b": ""})]),
    ('a,b\n\n"x\n\n""y""",2\n3,4', [(3, {"a": 'x\n\n"y"', "b": "2"}), (6, {"a": "3", "b": "4"})]),
    ("a,b\n1\n1,2,3\n", [(2, "wrong number of fields: 1 fields, the header has 2")]),
    ("a,b\n1,2,3\n4,5\n", [(2, "wrong number of fields: 3 fields, the header has 2")]),
    ('a,b\n5" tall,2\n', [(2, {"a": '5" tall', "b": "2"})]),
    (b'a,b\n"x\n\xff",2\n3,4\n', [(2, "invalid UTF-8: not UTF-8 in line 3"), (4, {"a": "3"})]),
    (b"a,b\n1,\xed\xa0\x80\n", [(2, "invalid UTF-8: not UTF-8 in line 2")]),
]


@pytest.mark.parametrize("text, expected", TABLE, ids=range(len(TABLE)))
def test_tables(tmp_path, text, expected):
    (tmp_path / "a.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    for (number, found), (place, want) in zip(read(tmp_path / "a.csv"), expected, strict=False):
        assert number == place
        assert found == want if isinstance(want, str) else found.items() >= want.items()


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=6)


@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=4), st.sampled_from(",\t"))
def test_tables_keep_every_character(tmp_path_factory, cells, delimiter):
    path = tmp_path_factory.getbasetemp() / ("any.csv" if delimiter == "," else "any.tsv")
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerows([("a", "b"), *cells])
    assert [tuple(row.values()) for _, row in read(path)] == cells


def table(tmp_path, content, name="a.csv") -> tuple[list, list]:
    """Rows of a file, and the beginnings of the remarks about it."""
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(data)
    wanted = Wanted()
    found = list(rows(str(tmp_path / name), wanted))
    texts = [row if isinstance(row, dict) else str(row) for _, row in found]
    return texts, [remark.text for remark in wanted.remarks]


INDEX = "the first column has no name, as when pandas writes its index, and is not read"
PAIRS = [{"q": "a, b", "a": "c"}, {"q": "d\ne", "a": "f;g"}]
CELLS = [["q", "a"], ["a, b", "c"], ["d\ne", "f;g"]]


def written(separator, prefix="", end="\n", suffix="", quoting=csv.QUOTE_MINIMAL):
    """The pairs as a spreadsheet would write them."""
    lines = []
    for number, cells in enumerate(CELLS):
        line = []
        for cell in cells:
            quoted = quoting == csv.QUOTE_ALL or any(c in cell for c in f'{separator}\n"')
            line.append(f'"{cell}"' if quoted else cell)
        first = prefix.format("" if not number else number - 1)
        lines.append(first + separator.join(line) + suffix + end)
    return "".join(lines)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_any_separator_is_read_and_reported_where_it_is_not_the_expected_one(
    tmp_path, name, separator, quoting
):
    found, remarks = table(tmp_path, written(separator, quoting=quoting), name)
    expected = "," if name == "a.csv" else "\t"
    assert found == PAIRS
    assert remarks == [f"fields are separated by {separator!r}"] * (separator != expected)


def test_a_separator_among_other_fields_is_text(tmp_path):
    found, remarks = table(tmp_path, "q;x,a\n1;2,3\n")
    assert found == [{"q;x": "1;2", "a": "3"}] and remarks == []
    assert table(tmp_path, "q\na;b\n") == ([{"q": "a;b"}], [])


@pytest.mark.parametrize("separator", [";", ",", "\t", "|"])
@pytest.mark.parametrize("line", ["sep={}\n", '"sep={}"\r\n', "\ufeffsep={}\n"])
def test_the_separator_that_excel_states(tmp_path, separator, line):
    text = line.format(separator) + written(separator)
    (tmp_path / "a.csv").write_text(text)
    assert [row for _, row in read(tmp_path / "a.csv")] == PAIRS
    assert [number for number, _ in read(tmp_path / "a.csv")] == [3, 4]


def test_the_index_that_pandas_writes_is_left_out(tmp_path):
    assert table(tmp_path, written(",", prefix="{},")) == (PAIRS, [INDEX])
    assert table(tmp_path, written(",", prefix="{0},{0},")) == (PAIRS, [INDEX])  # of two levels
    found, remarks = table(tmp_path, written(",", prefix="{},").replace(",q", "Unnamed: 0,q", 1))
    assert found == [{"Unnamed: 0": str(n)} | row for n, row in enumerate(PAIRS)] and remarks == []


@pytest.mark.parametrize("suffix", [",", ",,,"])
def test_empty_cells_at_the_end_of_lines_say_nothing(tmp_path, suffix):
    assert table(tmp_path, written(",", suffix=suffix)) == (PAIRS, [])
    text = written(",")
    assert table(tmp_path, text.replace("c\n", f"c{suffix}\n")) == (PAIRS, [])
    assert table(tmp_path, text.replace("q,a\n", f"q,a{suffix}\n")) == (PAIRS, [])


def test_text_in_a_column_without_a_name_is_never_lost(tmp_path):
    found, _ = table(tmp_path, "q,a,\n1,2,\n3,4,5\n6\n")
    assert found[0] == {"q": "1", "a": "2"}
    assert found[1:] == [
        "wrong number of fields: 3 fields, the header has 3 and column 3 has no name",
        "wrong number of fields: 1 fields, the header has 3",
    ]
    for header in (",,\n", "q,,a\n", " ,q,\t,a\n"):
        with pytest.raises(UserError, match=r"a\.csv:1: column \d has no name in the header"):
            table(tmp_path, header + "1,2,3,4\n")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_carriage_returns_alone_and_the_remedy(tmp_path, name):
    separator = "," if name == "a.csv" else "\t"
    content = f"q{separator}a\r1{separator}2\r3{separator}4\r"
    with pytest.raises(UserError, match=r"lines end with CR alone, .*: tr '.r' '.n' < ") as error:
        table(tmp_path, content, name)
    command = str(error.value).partition("CRLF: ")[2].rstrip(".")
    new = tmp_path / f"new-{name}"
    subprocess.run(command.replace("NEW", str(new)), shell=True, check=True)
    assert [row for _, row in read(new)] == [{"q": "1", "a": "2"}, {"q": "3", "a": "4"}]
    assert table(tmp_path, content.replace("\r", "\r\n"), name)[0] == [
        *({"q": "1", "a": "2"}, {"q": "3", "a": "4"})
    ]
