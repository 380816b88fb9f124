# Copyright 2026 The fusionzoo authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Clean-up of the texts of raw distributions: entities, tags, escapes that were printed into the text, odd characters.

[`clean_text`] is for any text, [`clean_title`] for the page titles of UPMC Food-101, which went through Python's `repr`.
Both say what they repaired, so that a report can count it. Nothing is ever evaluated.
"""

import html
import re
import unicodedata
from typing import NamedTuple


MAX_TEXT_BYTES = 1 << 16
TEXT_CLEAN_MODES = ("standard", "none", "mmbt")

_LIST_PREFIX, _LIST_SUFFIX = '[["', '"]]'
_BYTE_RUN = re.compile(r"(?:\\x[0-9a-fA-F]{2})+")
_PRINTED_BLANK = re.compile(r"\\[trn]")
_PRINTED_QUOTE = re.compile(r"\\(['\"])")
_TAG = re.compile(r"</?([A-Za-z][A-Za-z0-9]*)\b[^<>]*>")
_INLINE_TAGS = frozenset(
    ("a", "abbr", "b", "big", "em", "font", "i", "mark", "s", "small", "span", "strong", "sub", "sup", "tt", "u")
)
_HIDDEN_PARTS = (("<script", "</script>"), ("<style", "</style>"), ("<!--", "-->"))
_SURROGATE = re.compile("[\ud800-\udfff]")
# C0 and C1 controls but tab, line feed and carriage return; marks that reorder text; the byte order mark.
_INVISIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_BLANKS = re.compile(r"\s+")
_MMBT_PUNCTUATION = str.maketrans(dict.fromkeys("<>/\\+=-_[]{}'\";:.,()*&^%$#@!~`", " "))


class CleanText(NamedTuple):
    """A cleaned text and what was repaired on the way.

    `repairs` holds each of these at most once: `list_wrapped_title`, `html_entity`, `byte_escape`, `printed_escape`,
    `html_tag`, `invisible_character`, `invalid_unicode`, `text_cut`.
    """

    text: str
    repairs: tuple[str, ...]


def clean_text(text: str, mode: str = "standard") -> CleanText:
    """Plain text from a raw field.

    Args:
        text: at most `MAX_TEXT_BYTES` bytes of UTF-8 are kept, in every mode.
        mode: `"standard"` resolves HTML entities (twice if need be), drops tags, scripts, control and direction
            characters, composes to NFC and collapses blanks; `"mmbt"` does so and then replaces punctuation by blanks and
            lower-cases, as the MMBT code does; `"none"` changes only what no UTF-8 file can hold (lone surrogates).
    """
    return _clean(text, mode, printed=False)


def clean_title(text: str, mode: str = "standard") -> CleanText:
    """As [`clean_text`], and repairs what Python's `repr` left in a title.

    A title printed as a nested list (`[["Amy's pie"]]`, possibly cut before the closing brackets) is unwrapped; runs of
    byte escapes (`\\xe2\\x84\\xa2`) are decoded where they are UTF-8 and dropped elsewhere; `\\t`, `\\n`, `\\r` become
    blanks and `\\'` an apostrophe.
    """
    return _clean(text, mode, printed=True)


def _clean(text: str, mode: str, printed: bool) -> CleanText:
    if mode not in TEXT_CLEAN_MODES:
        raise ValueError(f"text_clean={mode!r} is unknown; allowed: {', '.join(TEXT_CLEAN_MODES)}.")
    repairs: list[str] = []

    def step(name: str, new: str) -> str:
        if new != text:
            repairs.append(name)
        return new

    text = step("invalid_unicode", _SURROGATE.sub("\ufffd", text))
    text = step("text_cut", _cut(text))
    if mode == "none":
        return CleanText(text, tuple(repairs))
    if printed:
        text = step("list_wrapped_title", _unwrap_list(text))
    text = step("html_entity", html.unescape(html.unescape(text)))
    if printed:
        text = step("byte_escape", _BYTE_RUN.sub(_decode_bytes, text))
        text = step("printed_escape", _PRINTED_QUOTE.sub(r"\1", _PRINTED_BLANK.sub(" ", text)))
    if "<" in text:
        text = step("html_tag", _strip_tags(text))
    text = step("invisible_character", _INVISIBLE.sub("", text))
    text = _SURROGATE.sub("\ufffd", text)  # an entity or a byte escape can make one
    if mode == "mmbt":
        text = text.translate(_MMBT_PUNCTUATION).lower()
    return CleanText(_BLANKS.sub(" ", unicodedata.normalize("NFC", text)).strip(), tuple(repairs))


def _cut(text: str) -> str:
    if len(text) * 4 <= MAX_TEXT_BYTES:
        return text
    return text.encode("utf-8")[:MAX_TEXT_BYTES].decode("utf-8", errors="ignore")


def _unwrap_list(text: str) -> str:
    if not text.startswith(_LIST_PREFIX):
        return text
    return text[len(_LIST_PREFIX) :].removesuffix(_LIST_SUFFIX)


def _strip_tags(text: str) -> str:
    for start, end in _HIDDEN_PARTS:
        text = _drop_between(text, start, end)
    return _TAG.sub(lambda tag: "" if tag.group(1).lower() in _INLINE_TAGS else " ", text)


def _drop_between(text: str, start: str, end: str) -> str:
    """`text` without its parts from `start` to `end`, in time linear in its length whatever it holds."""
    lowered = text.lower()
    if len(lowered) != len(text):  # a few letters change their length; their positions would not agree
        lowered = text
    kept, position = [], 0
    while (begin := lowered.find(start, position)) >= 0 and (stop := lowered.find(end, begin)) >= 0:
        kept.append(text[position:begin])
        position = stop + len(end)
    return " ".join([*kept, text[position:]])


def _decode_bytes(run: re.Match[str]) -> str:
    try:
        return bytes.fromhex(run.group().replace("\\x", "")).decode("utf-8")
    except UnicodeDecodeError:
        return ""
