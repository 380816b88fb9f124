"""Text repair, on the real title file and on made-up texts."""

import csv
import re
import time
from collections import Counter

import pytest
from fixtures_raw_trees import REAL_DATA

from fusionzoo.training.data.text_cleaning import MAX_TEXT_BYTES, clean_text, clean_title


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="../shared/data is not here")
def test_every_real_food_title():
    with (REAL_DATA / "food101" / "test_titles.csv").open(newline="", encoding="utf-8") as file:
        titles = [row[1] for row in csv.reader(file)]
    assert len(titles) == 22716
    cleaned = [clean_title(title) for title in titles]
    repairs = Counter(name for text in cleaned for name in text.repairs)
    assert (repairs["list_wrapped_title"], repairs["html_entity"], repairs["byte_escape"]) == (912, 3213, 867)
    assert repairs["printed_escape"] == 16 and repairs["html_tag"] == 1
    texts = [text.text for text in cleaned]
    assert all(texts)
    assert not [text for text in texts if re.search(r"&(amp|quot|#\d+);|\\x[0-9a-f]{2}|^\[\[|\s\s|^\s|\s$|\\'", text)]
    again = [clean_text(text) for text in texts]
    assert [text.text for text in again] == texts and not any(text.repairs for text in again)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ('[["Amy\'s Pie - All"]]', "Amy's Pie - All"),
        ("[[\"Amy's Pie", "Amy's Pie"),
        ("Jos\\xc3\\xa9 &amp;amp; friends", "José & friends"),
        ("broken \\xe2\\x84 run", "broken run"),
        ("Linda\\'s \\t menu", "Linda's menu"),
        ("a &lt;b&gt;bold&lt;/b&gt; word<br />next", "a bold word next"),
        ("I &lt;3 pie, 2 < 3 > 1", "I <3 pie, 2 < 3 > 1"),
        ("x<script>alert(1)</script>y<!-- z -->", "x y"),
        ("e\u0301 \u202eevil\u202c \x00\x07 bell", "é evil bell"),
        ("", ""),
    ],
)
def test_titles(raw, expected):
    assert clean_title(raw).text == expected


def test_modes():
    assert clean_text("Fish &amp; <b>Chips</b>!", "none").text == "Fish &amp; <b>Chips</b>!"
    assert clean_text("Fish &amp; <b>Chips</b>: 10%_off", "mmbt").text == "fish chips 10 off"
    with pytest.raises(ValueError, match="standard, none, mmbt"):
        clean_text("x", "strict")


def test_a_title_is_never_evaluated():
    assert clean_title("[[\"__import__('os')\"]]").text == "__import__('os')"


def test_lone_surrogates_never_survive():
    for mode in ("standard", "none", "mmbt"):
        clean_text("a \ud800 b", mode).text.encode("utf-8")
    assert clean_title("&#55296;\\xed\\xa0\\x80").text.encode("utf-8") is not None


@pytest.mark.parametrize(
    "piece", ["x", "é", "<", "<script>", "<!--", "&amp;", "\\x", "[[", "<a ", "\\xe2", "İ<script>"]
)
def test_a_megabyte_is_cut_and_cheap(piece):
    raw = piece * (1_000_000 // len(piece))
    start = time.perf_counter()
    cleaned = clean_title(raw)
    assert time.perf_counter() - start < 5
    assert len(cleaned.text.encode("utf-8")) <= MAX_TEXT_BYTES and "text_cut" in cleaned.repairs
