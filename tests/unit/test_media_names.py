"""Where a downloaded file goes: the pattern as the user writes it, and what foreign texts become in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina_batch.media.names import casefold_path, escape_braces, extension, parse_pattern

PATTERN = parse_pattern("/out/images/{key}/{variant}/{label}.{ext}")


def place(key: str = "K1", variant: str = "", label: str = "Front", ext: str = "png", number: int = 1) -> str:
    path = PATTERN.place(key=key, variant=variant, label=label, ext=ext, number=number)
    return path.relative_to("/out/images").as_posix()


@pytest.mark.parametrize(
    ("text", "folder", "file"),
    [
        ("/out/{key}/{label}.{ext}", "/out", "/out/K/L.png"),
        ("/out/shop-{key}/{label}.{ext}", "/out", "/out/shop-K/L.png"),
        ("/out/all/{key} {label}.{ext}", "/out/all", "/out/all/K L.png"),
        ("/{key}.{ext}", "/", "/K.png"),
        ("//out//./{key}/./{label}.{ext}", "//out", "//out/K/L.png"),
        ("/out/{key}/image.{ext}", "/out", "/out/K/image.png"),
        ("/out/{key}/image.jpg", "/out", "/out/K/image.jpg"),
        ("/out/{ext}/{label}.{ext}", "/out", "/out/png/L.png"),
        ("/out/{{a}}/{key}}}.{ext}", "/out/{a}", "/out/{a}/K}.png"),
        ("/out/{key}/{variant}/{label}.{ext}", "/out", "/out/K/V/L.png"),
    ],
)
def test_a_pattern_has_a_folder_that_nothing_leaves_and_fills_the_rest(text: str, folder: str, file: str) -> None:
    pattern = parse_pattern(text)
    assert pattern.folder == Path(folder)
    assert pattern.place(key="K", variant="V", label="L", ext="png") == Path(file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("out/{key}.{ext}", "it is no absolute path"),
        ("/out/{kye}.{ext}", "{kye} is no placeholder: did you mean {key}?"),
        ("/out/{ key }.{ext}", "{ key } is no placeholder: did you mean {key}?"),
        ("/out/{key!r}.{ext}", "{key!r} is no placeholder: did you mean {key}?"),
        ("/out/{sku}.{ext}", "{sku} is no placeholder: there are {key}, {variant}, {label}, {ext}"),
        ("/out/{}.{ext}", "{} is no placeholder: there are {key}, {variant}, {label}, {ext}"),
        ("/out/{key.{ext}", "a { has no partner: write {label}; {{ and }} are braces"),
        ("/out/key}.{ext}", "a } has no partner: write {label}; {{ and }} are braces"),
        ("/out/{key}/", "it names a folder: end it with a file name, such as {label}.{ext}"),
        ("/out/image.{ext}", "every output would have the same name: use {key} and {label}"),
        ("/out/{key}/{label}", "its file name has no extension: end it with .{ext}"),
        ("/out/{key}.{label}", "its file name has no extension: end it with .{ext}"),
        ("/out/{key}{ext}", "its file name has no extension: end it with .{ext}"),
        ("/out/{key}. ", "its file name has no extension: end it with .{ext}"),
        (
            "/out/{key}/../{label}.{ext}",
            "nothing may lead out of a folder named by rows: take out the .. after the first placeholder",
        ),
        ("/out/{key}/a\x00{label}.{ext}", "it holds a control character"),
        ("/out/{key}/" + "a" * 256 + "/{label}.{ext}", "a name in it is longer than 255 bytes"),
    ],
)
def test_a_pattern_that_cannot_be_meant_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_pattern(text)
    assert str(caught.value) == words


def test_it_tells_which_placeholders_it_uses() -> None:
    pattern = parse_pattern("/o/{key}/variant/{label}.{ext}")
    assert [name for name in ("key", "variant", "label", "ext") if pattern.uses(name)] == ["key", "label", "ext"]


def test_an_escaped_folder_means_itself() -> None:
    assert parse_pattern(escape_braces("/a{b}/}{") + "/{key}.{ext}").folder == Path("/a{b}/}{")


def test_an_empty_variant_leaves_no_empty_folder() -> None:
    assert place(variant="") == "K1/Front.png"
    assert place(variant="  ") == "K1/Front.png"
    assert place(variant="Location=Park; Style=Warm") == "K1/Location=Park; Style=Warm/Front.png"


def test_a_file_name_made_of_an_empty_variant_is_still_a_name() -> None:
    assert parse_pattern("/o/{key}/{variant}.{ext}").place(key="K", variant="", label="L", ext="png") == Path(
        "/o/K/_.png"
    )


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Front", "Front"),
        ("Front View 9:16", "Front View 9_16"),
        ("Disney / Pixar", "Disney _ Pixar"),
        ("Standard ", "Standard"),
        ("Dr. No", "Dr. No"),
        ("Ärmel–größe 家", "Ärmel–größe 家"),
        ("A\u030armel", "Årmel"),
        ("a>\u0338b", "a≯b"),
        ('<>:"|?*\\', "________"),
        ("a\x00b\nc\x7fd", "a_b_c_d"),
        ("photo\u202egnp.exe", "photo_gnp.exe"),
        ("a\u200bb\ufeffc\u2028d", "a_b_c_d"),
        ("a\ud800b\ue000c\ufffed", "a_b_c_d"),
        ("a\u00a0b\u3000", "a b"),
        ("../../etc/passwd", "_._.._etc_passwd"),
        ("..", "_"),
        (".", "_"),
        (". . .", "_"),
        (".bashrc", "_bashrc"),
        ("name. . ", "name"),
        ("", "_"),
        ("   ", "_"),
        ("CON", "_CON"),
        ("nul.tar", "_nul.tar"),
        ("Aux ", "_Aux"),
        ("com1 .x", "_com1 .x"),
        ("LPT²", "_LPT²"),
        ("conin$", "_conin$"),
        ("CONSOLE", "CONSOLE"),
        ("COM10", "COM10"),
    ],
)
def test_a_foreign_text_becomes_one_harmless_name(label: str, name: str) -> None:
    assert place(label=label) == f"K1/{name}.png"
    assert place(key=label) == f"{name}/Front.png"


def test_a_device_that_only_the_whole_name_makes_is_seen() -> None:
    pattern = parse_pattern("/o/CO{label}.{ext}")
    assert pattern.place(key="K", variant="", label="N", ext="png") == Path("/o/_CON.png")


def test_a_folder_named_like_a_hidden_one_by_a_row_is_not_hidden_but_the_users_own_text_is_kept() -> None:
    assert place(key=".git") == "_git/Front.png"
    assert parse_pattern("/o/.{key}/a.{ext}").place(key="k", variant="", label="L", ext="png") == Path("/o/.k/a.png")
    assert parse_pattern("/o/.{key}/a.{ext}").place(key=".", variant="", label="L", ext="png") == Path("/o/_/a.png")


def test_a_number_from_two_on_stands_before_the_extension() -> None:
    assert place(number=1) == "K1/Front.png"
    assert place(number=2) == "K1/Front 2.png"
    assert place(label="Dr. No", number=12) == "K1/Dr. No 12.png"
    fixed = parse_pattern("/o/{key}.final.jpg")
    assert fixed.place(key="K", variant="", label="L", ext="png", number=2) == Path("/o/K.final 2.jpg")


def test_a_long_name_is_cut_at_a_character_and_keeps_number_and_extension() -> None:
    name = place(label="é" * 300, number=7).removeprefix("K1/")
    assert len(name.encode()) in {254, 255}
    assert name.startswith("é" * 100)
    assert name.endswith(" 7.png")


def test_two_long_names_that_begin_alike_stay_two() -> None:
    assert place(label="x" * 300 + "a") != place(label="x" * 300 + "b")
    assert place(key="x" * 300 + "a") != place(key="x" * 300 + "b")


def test_names_that_some_system_takes_for_one_fold_alike() -> None:
    assert casefold_path(Path("/o/Straße/É.png")) == casefold_path(Path("/O/STRASSE/e\u0301.PNG"))
    assert casefold_path(Path("/o/a.png")) != casefold_path(Path("/o/b.png"))


@pytest.mark.parametrize(
    ("url", "content_type", "expected"),
    [
        ("https://h/a/photo.png", None, "png"),
        ("https://h/a/photo.PNG?x=y.exe#z.sh", "image/jpeg", "png"),
        ("https://h/a/photo%2Ejpeg", None, "jpeg"),
        ("https://h/a/photo", "image/jpeg", "jpg"),
        ("https://h/a/photo", " Image/WebP ; charset=x", "webp"),
        ("https://h/a.png/photo", "video/mp4", "mp4"),
        ("https://h/a%2Epng%2Fphoto", "video/mp4", "mp4"),
        ("https://h", "audio/mpeg", "mp3"),
        ("https://h/photo.exe", "image/png", "png"),
        ("https://h/photo.sh", "application/x-sh", "bin"),
        ("https://h/photo.html", "text/html", "bin"),
        ("https://h/photo.svg", "image/svg+xml", "bin"),
        ("https://h/photo.png%00.exe", None, "bin"),
        ("https://h/photo.png.exe", None, "bin"),
        ("https://h/photo.p%2Fng", None, "bin"),
        ("https://h/photo.pngpngpng", "", "bin"),
        ("https://h/png", None, "bin"),
        ("https://[::1/photo.png", "image/png", "png"),
        ("https://h/photo.png ", "image/x-unknown", "bin"),
    ],
)
def test_the_extension_is_one_we_know_by_the_url_or_else_the_type(
    url: str, content_type: str | None, expected: str
) -> None:
    assert extension(url, content_type) == expected
