"""Whatever rows and the service say: a name inside the folder, that every system takes, and no two made one."""

from __future__ import annotations

import os
import unicodedata
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from thorough import examples

from lamina_batch.media.names import (
    UNKNOWN_EXTENSION,
    PathPattern,
    casefold_path,
    escape_braces,
    extension,
    parse_pattern,
)
from lamina_batch.media.output_folder import TEMPORARY_PREFIX

if TYPE_CHECKING:
    from pathlib import Path

PATTERNS = [
    "/out/{key}/{variant}/{label}.{ext}",
    "/out/{key}{variant}{label}.{ext}",
    "/out/.{variant}{key}.{ext}",
    "/out/{label}/{ext}/{key}.tar.gz",
    "/out/x{key} /{variant}.{variant}/{label} . .{ext}",
]
#: what breaks names somewhere, among any other characters
PIECES = st.sampled_from(
    [
        *("/", "\\", "..", ".", " ", "\0", "\n", "\x7f", "\u202e", "\u200d", "\ud800", "\udfff", "\ufffe", "\u0338"),
        *("CON", "nul", "COM¹", "LPT9", "aux.", "$", "~", "-", "e\u0301", "\u1e9b\u0323", "ﬁ", "İ", "ß", "家" * 90),
        *(
            TEMPORARY_PREFIX,
            "a" * 250,
            "😀" * 70,
            "{key}",
            "%2e%2e%2f",
            "\u00a0",
            "\u2028",
            "<",
            ">",
            ":",
            '"',
            "|",
            "?",
            "*",
        ),
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=8), max_size=6).map("".join)
ANY_PATTERN = st.sampled_from(PATTERNS)
DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in "0123456789¹²³")}


def filled(pattern: PathPattern, texts: tuple[str, str, str, str], number: int = 1) -> Path:
    key, variant, label, ext = texts
    return pattern.place(key=key, variant=variant, label=label, ext=ext, number=number)


@given(ANY_PATTERN, st.tuples(TEXTS, TEXTS, TEXTS, TEXTS), st.integers(1, 10**6))
@example(PATTERNS[0], ("../..", "../..", "../..", "../.."), 1)
@settings(max_examples=examples(400))  # the machine may be busy
def test_every_name_is_inside_the_folder_and_good_on_every_system(
    text: str, texts: tuple[str, str, str, str], number: int
) -> None:
    pattern = parse_pattern(text)
    place = filled(pattern, texts, number)
    names = place.relative_to(pattern.folder).parts
    assert len(names) <= len(pattern.components)
    assert os.path.normpath(place) == str(place)
    for name in names:
        assert 0 < len(name.encode("utf-8")) <= 255
        assert not set(name) & set('/\\<>:"|?*')
        assert not any(unicodedata.category(c)[0] == "C" or unicodedata.category(c) in {"Zl", "Zp"} for c in name)
        assert unicodedata.is_normalized("NFC", name)
        assert name[-1] not in " ."
        assert not name.startswith(TEMPORARY_PREFIX)
        assert name.partition(".")[0].rstrip(" ").upper() not in DEVICES


@given(st.tuples(TEXTS, TEXTS, TEXTS, st.just("png")))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_name_can_be_made_on_this_system(tmp_path: Path, texts: tuple[str, str, str, str]) -> None:
    pattern = parse_pattern(escape_braces(str(tmp_path)) + "/{key}/{variant}/{label}.{ext}")
    place = filled(pattern, texts)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch()
    assert place in place.parent.iterdir()


@given(ANY_PATTERN, st.tuples(TEXTS, TEXTS, TEXTS, st.just("png")), st.sets(st.integers(1, 10**6), min_size=2))
def test_numbers_keep_names_apart(text: str, texts: tuple[str, str, str, str], numbers: set[int]) -> None:
    pattern = parse_pattern(text)
    assert len({casefold_path(filled(pattern, texts, number)) for number in numbers}) == len(numbers)


@given(ANY_PATTERN, st.tuples(TEXTS, TEXTS, TEXTS, st.just("png")))
def test_the_same_texts_come_to_the_same_place_however_they_are_normalised(
    text: str, texts: tuple[str, str, str, str]
) -> None:
    pattern = parse_pattern(text)
    decomposed = tuple(unicodedata.normalize("NFD", t) for t in texts)
    assert filled(pattern, decomposed) == filled(pattern, texts)  # type: ignore[arg-type]


@given(st.text(alphabet="abcé ", min_size=100, max_size=300), st.text(alphabet="abcé ", min_size=100, max_size=300))
def test_long_names_that_differ_stay_apart(one: str, other: str) -> None:
    assume(one.strip() != other.strip())
    pattern = parse_pattern("/o/{label}.{ext}")
    head = "x" * 200
    places = {pattern.place(key="k", variant="", label=f"{head}{t}", ext="png") for t in (one.strip(), other.strip())}
    assert len(places) == 2


@given(
    st.lists(st.sampled_from(["/", "{key}", "{label}", ".{ext}", "{{", "}}", "{", "}", "..", "a", ".", " "])).map(
        "".join
    )
)
def test_a_pattern_is_read_or_refused_and_nothing_else(text: str) -> None:
    try:
        pattern = parse_pattern("/" + text)
    except ValueError:
        return
    place = filled(pattern, ("k", "", "l", "png"))
    assert place.is_relative_to(pattern.folder)
    assert ".." not in place.relative_to(pattern.folder).parts


@given(st.text(), TEXTS)
def test_an_extension_is_short_and_plain_whatever_is_said(url: str, content_type: str) -> None:
    for said in (url, f"https://h/{url}", f"https://h/x.{url}"):
        ext = extension(said, content_type)
        assert ext.isascii()
        assert ext.isalnum()
        assert len(ext) <= 5
        assert ext == UNKNOWN_EXTENSION or ext not in {
            "exe",
            "sh",
            "html",
            "htm",
            "svg",
            "js",
            "bat",
            "cmd",
            "com",
            "php",
            "app",
        }
