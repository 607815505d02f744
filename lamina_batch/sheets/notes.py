"""Notes on cells: the texts, and the shapes that show them. Those of other people stay as they are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from xlsxwriter.utility import xl_cell_to_rowcol

from lamina_batch.sheets.splice import text_xml

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

#: begins each note that lamina-batch writes
NOTE_PREFIX = "lamina-batch:"

EMPTY_NOTES = (
    b'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
    b'<comments xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
    b"<authors><author>lamina-batch</author></authors><commentList></commentList></comments>"
)
EMPTY_SHAPES = (
    b'<xml xmlns:v="urn:schemas-microsoft-com:vml" xmlns:o="urn:schemas-microsoft-com:office:office" '
    b'xmlns:x="urn:schemas-microsoft-com:office:excel"><o:shapelayout v:ext="edit"><o:idmap v:ext="edit" data="1"/>'
    b"</o:shapelayout></xml>"
)

_SHAPE_TYPE = (
    '<v:shapetype id="_x0000_t202" coordsize="21600,21600" o:spt="202" path="m,l,21600r21600,l21600,xe" '
    'xmlns:v="urn:schemas-microsoft-com:vml" xmlns:o="urn:schemas-microsoft-com:office:office">'
    '<v:stroke joinstyle="miter"/><v:path gradientshapeok="t" o:connecttype="rect"/></v:shapetype>'
)

_AUTHOR_NAME = b"lamina-batch"
_AUTHOR = re.compile(rb"<(?:\w+:)?author(?:\s*/>|>([^<]*)</)")
_NOTE = re.compile(rb"""<((?:\w+:)?)comment\s[^>]*?\bref="([A-Z]+[0-9]+)"[^>]*>.*?</\1comment>""", re.DOTALL)
_SHAPE = re.compile(rb"<v:shape\s.*?</v:shape>", re.DOTALL)
_SHAPE_POSITION = re.compile(rb"<x:Row>\s*(\d+)\s*</x:Row>\s*<x:Column>\s*(\d+)\s*</x:Column>")
_SHAPE_ID = re.compile(rb'"_x0000_s(\d{1,9})"')
_TAG = re.compile(rb"<[^>]*>")


def noted_cells(notes: bytes) -> dict[str, bool]:
    """The cells that have a note, and whether lamina-batch wrote it."""
    return {
        found[2].decode(): _TAG.sub(b"", found[0]).strip().startswith(NOTE_PREFIX.encode())
        for found in _NOTE.finditer(notes)
    }


def with_notes(notes: bytes, texts: Mapping[str, str]) -> bytes:
    """The part with the texts, with those of ours taken out and these put in, on cells that have none.

    Raises ValueError if it is not as such parts are.
    """
    known = noted_cells(notes)
    kept = _NOTE.sub(lambda found: b"" if known[found[2].decode()] else found[0], notes)
    end = re.search(rb"</((?:\w+:)?)commentList>", kept) or re.search(rb"<((?:\w+:)?)commentList\s*/>", kept)
    if end is None:
        raise ValueError("no list of notes")
    p = end[1].decode()
    authors = _AUTHOR.findall(kept)
    number = authors.index(_AUTHOR_NAME) if _AUTHOR_NAME in authors else len(authors)
    added = "".join(
        f'<{p}comment ref="{cell}" authorId="{number}"><{p}text><{p}r>'
        f'<{p}t xml:space="preserve">{text_xml(f"{NOTE_PREFIX} {text}")}</{p}t></{p}r></{p}text></{p}comment>'
        for cell, text in texts.items()
    )
    opening = "" if end[0].startswith(b"</") else f"<{p}commentList>"
    kept = kept[: end.start()] + f"{opening}{added}</{p}commentList>".encode() + kept[end.end() :]
    if _AUTHOR_NAME in authors:
        return kept
    own = f"<{p}author>{_AUTHOR_NAME.decode()}</{p}author>"
    return kept.replace(f"</{p}authors>".encode(), f"{own}</{p}authors>".encode(), 1)


def with_shapes(shapes: bytes, *, gone: Collection[str], cells: Collection[str]) -> bytes:
    """The part with the shapes, without those of the cells in `gone`, and with one for each of `cells`.

    Raises ValueError if it is not as such parts are.
    """
    places = {xl_cell_to_rowcol(cell) for cell in gone}

    def kept(found: re.Match[bytes]) -> bytes:
        place = _SHAPE_POSITION.search(found[0])
        return b"" if place is not None and (int(place[1]), int(place[2])) in places else found[0]

    shapes = _SHAPE.sub(kept, shapes)
    end = shapes.rfind(b"</xml>")
    if end < 0:
        raise ValueError("no end of the shapes")
    kind = "" if b'"_x0000_t202"' in shapes else _SHAPE_TYPE
    free = max(map(int, _SHAPE_ID.findall(shapes)), default=1024) + 1
    added = kind + "".join(_shape_xml(cell, number) for number, cell in enumerate(cells, start=free))
    return shapes[:end] + added.encode() + shapes[end:]


def _shape_xml(cell: str, number: int) -> str:
    row, column = xl_cell_to_rowcol(cell)
    # Beside its cell, four columns wide and six rows high.
    anchor = f"{column + 1}, 15, {max(row - 1, 0)}, 2, {column + 5}, 15, {max(row - 1, 0) + 6}, 4"
    return (
        f'<v:shape id="_x0000_s{number}" type="#_x0000_t202" style="position:absolute;margin-left:80pt;margin-top:5pt;'
        f'width:220pt;height:80pt;z-index:1;visibility:hidden" fillcolor="#ffffe1" o:insetmode="auto" '
        'xmlns:v="urn:schemas-microsoft-com:vml" xmlns:o="urn:schemas-microsoft-com:office:office" '
        'xmlns:x="urn:schemas-microsoft-com:office:excel"><v:fill color2="#ffffe1"/>'
        '<v:shadow on="t" color="black" obscured="t"/><v:path o:connecttype="none"/>'
        '<v:textbox style="mso-direction-alt:auto"><div style="text-align:left"></div></v:textbox>'
        '<x:ClientData ObjectType="Note"><x:MoveWithCells/><x:SizeWithCells/>'
        f"<x:Anchor>{anchor}</x:Anchor><x:AutoFill>False</x:AutoFill><x:Row>{row}</x:Row><x:Column>{column}</x:Column>"
        "</x:ClientData></v:shape>"
    )
