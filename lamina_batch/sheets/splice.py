"""XML changed in a few places: every byte outside of them stays.

Whatever parses XML and writes it again loses something: prefixes that other attributes name, extensions it does not
know. So the parser is asked where things stand, and the text is cut there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from lamina_batch.sheets.xlsx import fit_cell_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


class Edit(NamedTuple):
    """A replacement of some bytes."""

    start: int
    #: equal to `start` where something is only put in
    end: int
    text: bytes


class Element(NamedTuple):
    """An element and its place; offsets are bytes."""

    name: str
    attributes: Mapping[str, str]
    #: of its start tag
    start: int
    inner: int
    #: of its end tag, which an empty element has not: then both are `inner`
    inner_end: int
    end: int

    def tag(self, data: bytes) -> bytes:
        """The bytes of its start tag."""
        return data[self.start : self.inner]

    @property
    def is_empty(self) -> bool:
        """Whether it is written as one empty tag."""
        return self.inner_end == self.end


_TAG = re.compile(rb"""<[^<>"']*(?:"[^"]*"[^<>"']*|'[^']*'[^<>"']*)*>""")
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")
_ENCODING = re.compile(r"""(<\?xml[^>]*?)\s+encoding=("[^"]*"|'[^']*')""")


def as_utf8(data: bytes) -> bytes:
    """The same document in UTF-8. Raises ValueError if it is in another encoding than UTF-8 and UTF-16."""
    if data.startswith(_BYTE_ORDER_MARKS):
        return _ENCODING.sub(r"\1", data.decode("utf-16"), count=1).encode()
    head = data[:200].decode("ascii", "replace")
    named = _ENCODING.search(head)
    if named is not None and named[2].strip("\"'").lower() not in {"utf-8", "us-ascii"}:
        raise ValueError(f"the encoding {named[2]}")
    return data


def scan(data: bytes, seen: Callable[[Element, Sequence[str]], None], *, depth: int = 9) -> None:
    """Call `seen` with each element, when it ends, and the names of those around it, without prefixes.

    What lies deeper than `depth` elements is passed over. `data` is UTF-8. Raises expat.ExpatError where it is no XML.
    """
    parser = expat.ParserCreate()
    opened: list[tuple[str, dict[str, str], int, int]] = []
    around: list[str] = []
    level = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal level
        level += 1
        if level > depth:
            return
        at = parser.CurrentByteIndex
        tag = _TAG.match(data, at)
        if tag is None:
            raise expat.ExpatError(f"no tag at byte {at}")
        opened.append((name, attributes, at, tag.end()))
        around.append(local_name(name))

    def end(_: str) -> None:
        nonlocal level
        level -= 1
        if level >= depth:
            return
        name, attributes, at, inner = opened.pop()
        around.pop()
        if data[inner - 2 : inner] == b"/>":
            inner_end = last = inner
        else:
            inner_end = parser.CurrentByteIndex
            last = data.index(b">", inner_end) + 1
        seen(Element(name, attributes, at, inner, inner_end, last), around)

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.Parse(data, True)  # noqa: FBT003 - its own argument for the end


def apply_edits(data: bytes, edits: Iterable[Edit]) -> bytes:
    """`data` with the edits in it; of those at one place the first given comes first. None may overlap."""
    pieces: list[bytes] = []
    at = 0
    for start, end, text in sorted(edits, key=lambda edit: edit[:2]):
        if start < at:
            raise ValueError(f"two edits at byte {start}")
        pieces += (data[at:start], text)
        at = end
    pieces.append(data[at:])
    return b"".join(pieces)


def local_name(name: str) -> str:
    """The name without its prefix."""
    return name.rpartition(":")[2]


def prefix_of(name: str) -> str:
    """The prefix of a name with its colon, or nothing: elements that are put beside it need the same."""
    return name[: len(name) - len(local_name(name))]


def with_attribute(tag: bytes, name: str, value: str | None) -> bytes:
    """The start tag with this attribute set, or without it."""
    bare = re.sub(rb"""\s%s=("[^"]*"|'[^']*')""" % re.escape(name).encode(), b"", tag)
    if value is None:
        return bare
    end = -2 if bare.endswith(b"/>") else -1
    return bare[:end].rstrip() + f" {name}={quoteattr(value)}".encode() + bare[end:]


_ESCAPE_LOOKALIKE = re.compile(r"_x(?=[0-9A-Fa-f]{4}_)")


def text_xml(text: str) -> str:
    """A text unchanged in the XML of a workbook, whatever is in it."""
    held = _ESCAPE_LOOKALIKE.sub("_x005F_x", fit_cell_text(text))
    return escape(held).replace("\r", "_x000D_")


def text_cell(prefix: str, name: str, text: str, style: int) -> bytes:
    """A cell that holds a text, or nothing: never a number, a formula or a link."""
    p = prefix
    if not text:
        return f'<{p}c r="{name}" s="{style}"/>'.encode()
    held = f'<{p}is><{p}t xml:space="preserve">{text_xml(text)}</{p}t></{p}is>'
    return f'<{p}c r="{name}" s="{style}" t="inlineStr">{held}</{p}c>'.encode()
