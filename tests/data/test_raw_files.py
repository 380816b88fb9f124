"""The readers of annotation files: streaming, limits, and places in error messages."""

import json
import random

import pytest
from fixtures_raw_trees import write

from fusionzoo.training.data import raw_files
from fusionzoo.training.data.raw_files import (
    RawFileError,
    iter_csv,
    iter_json_array,
    iter_json_lines,
    iter_json_object,
    load_json,
)


def random_value(source: random.Random, depth: int = 0):
    kind = source.randrange(7 if depth < 3 else 5)
    if kind == 5:
        return [random_value(source, depth + 1) for _ in range(source.randrange(4))]
    if kind == 6:
        return {f'k{i} \u00e9"': random_value(source, depth + 1) for i in range(source.randrange(4))}
    return [source.randrange(10**6), source.random(), 'te"xt\u20ac ]}', None, True][kind]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 1 << 20])
def test_streaming_equals_loading_whatever_the_pieces(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(raw_files, "_CHUNK", chunk)
    source = random.Random(chunk)
    for indent in (None, 1):
        values = [random_value(source) for _ in range(20)] + [12345]
        path = write(tmp_path / "a.json", json.dumps(values, indent=indent, ensure_ascii=False))
        assert list(iter_json_array(path)) == values
        mapping = {f"id {i}": value for i, value in enumerate(values)}
        path = write(tmp_path / "o.json", "\ufeff" + json.dumps(mapping, indent=indent))
        assert dict(iter_json_object(path)) == mapping


def test_empty_containers_and_repeated_keys(tmp_path):
    assert list(iter_json_array(write(tmp_path / "a", " [ ] "))) == []
    assert list(iter_json_object(write(tmp_path / "o", "{}"))) == []
    path = write(tmp_path / "o", '{"a": 1, "b": 2, "a": 3}')
    assert list(iter_json_object(path)) == [("a", 1), ("b", 2), ("a", 3)]
    repeated = []
    assert load_json(path, repeated.append) == {"a": 3, "b": 2} and repeated == ["a"]


@pytest.mark.parametrize(
    "text", ["", "{", "[1, 2", "[1 2]", '["a]', "[" * 5000, "<html>", "[1, " + "9" * 5000 + "]", '{"a": 1}', "[1,]"]
)
def test_broken_arrays_are_errors_that_name_the_file(tmp_path, text):
    path = write(tmp_path / "broken.json", text)
    with pytest.raises(RawFileError, match=r"broken\.json"):
        list(iter_json_array(path))


def test_limits(tmp_path, monkeypatch):
    path = write(tmp_path / "a.json", json.dumps(["x" * 5000]))
    with pytest.raises(RawFileError, match="at most 100"):
        load_json(path, max_bytes=100)
    monkeypatch.setattr(raw_files, "MAX_RECORD_CHARS", 1000)
    monkeypatch.setattr(raw_files, "_CHUNK", 500)
    with pytest.raises(RawFileError, match="longer than 1,000"):
        list(iter_json_array(path))
    with pytest.raises(RawFileError, match="line 1: longer than 1,000"):
        list(iter_json_lines(path))


def test_json_lines(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"a": 1}\r\n\n[2]\nno\n{"b": "\ud83d"}'.replace("\ud83d", "\\ud83d"))
    lines = list(iter_json_lines(path))
    assert [(line.number, line.value) for line in lines] == [(1, {"a": 1}), (3, None), (4, None), (5, {"b": "\ud83d"})]
    assert lines[1].error == "expected an object, found list" and "line 1, column 1" in lines[2].error


def test_errors_do_not_quote_the_content(tmp_path):
    path = write(tmp_path / "a.json", '{"secret text": }')
    with pytest.raises(RawFileError) as caught:
        load_json(path)
    assert "secret" not in str(caught.value)


def test_csv(tmp_path):
    path = write(tmp_path / "a.csv", b'\xef\xbb\xbfa,"b ""c""",d\r\n\r\n"x\ny",\xff,\r\n')
    assert list(iter_csv(path)) == [(1, ["a", 'b "c"', "d"]), (4, ["x\ny", "\udcff", ""])]
    with pytest.raises(RawFileError, match=r"a\.csv, line 1.*never closed"):
        list(iter_csv(write(tmp_path / "a.csv", '"' + "x" * (2 << 20))))
