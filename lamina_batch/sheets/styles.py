"""Looks of cells, added to the styles of a workbook: those that it has keep their numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamina_batch.sheets.splice import Edit, apply_edits, local_name, prefix_of, scan, with_attribute

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lamina_batch.sheets.splice import Element

#: the least that a workbook may have
EMPTY_STYLES = (
    b'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
    b'<styleSheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
    b"<fonts><font/></fonts><fills><fill/><fill><patternFill patternType='gray125'/></fill></fills>"
    b"<borders><border/></borders><cellStyleXfs><xf/></cellStyleXfs><cellXfs><xf/></cellXfs></styleSheet>"
)


class StyleSheet:
    """The styles of one workbook, and what is added to them."""

    def __init__(self, data: bytes) -> None:
        """Raises expat.ExpatError, KeyError where there are no fonts, fills or formats."""
        self._data = data
        self._groups: dict[str, Element] = {}
        self._children: dict[str, list[Element]] = {"fonts": [], "fills": [], "cellXfs": []}
        colours: list[tuple[int, str]] = []

        def seen(element: Element, around: Sequence[str]) -> None:
            name = local_name(element.name)
            if len(around) == 1 and name in self._children:
                self._groups[name] = element
            elif len(around) == 2 and around[1] in self._children:
                self._children[around[1]].append(element)
            elif name == "fgColor" and list(around[1:3]) == ["fills", "fill"]:
                colours.append((element.start, element.attributes.get("rgb", "").upper()))

        scan(data, seen)
        self._prefix = prefix_of(self._groups["fills"].name)
        self._fill_colours = {
            number: rgb
            for number, fill in enumerate(self._children["fills"])
            for at, rgb in colours
            if fill.start < at < fill.end
        }
        self._added: dict[str, dict[bytes, int]] = {group: {} for group in self._children}

    def data(self) -> bytes:
        """The part with all that was added."""
        return apply_edits(self._data, self._edits())

    def _edits(self) -> Iterator[Edit]:
        for group, added in self._added.items():
            if not added:
                continue
            element = self._groups[group]
            tag = element.tag(self._data)
            count = len(self._children[group]) + len(added)
            yield Edit(element.start, element.inner, with_attribute(tag, "count", str(count)))
            yield Edit(element.inner_end, element.inner_end, b"".join(added))

    def filled(self, style: int, colour: str | None) -> int:
        """The number of a style that is the same as `style`, but on a ground of this colour, or on none."""
        fill = 0 if colour is None else self._fill(colour)
        tag = self._format(style)
        start, _, rest = tag.partition(b">")
        head = start + b">"
        head = with_attribute(with_attribute(head, "fillId", str(fill)), "applyFill", "1")
        return self._add("cellXfs", head + rest)

    def marked(self, colours: frozenset[str]) -> frozenset[int]:
        """The styles whose ground has one of these colours."""
        fills = {fill for fill, rgb in self._fill_colours.items() if rgb in colours}
        return frozenset(
            style
            for style, element in enumerate(self._children["cellXfs"])
            if int(element.attributes.get("fillId", "0")) in fills
        )

    def plain(
        self, *, ground: str | None = None, ink: str | None = None, size: int = 11, face: str = "", wrap: bool = False
    ) -> int:
        """The number of a style of our own: colours of the ground and of the text; `face` is `b` or `u`."""
        p = self._prefix
        fill = 0 if ground is None else self._fill(ground)
        # In the order that the standard gives them.
        font = (f"<{p}{face}/>" if face else "") + f'<{p}sz val="{size}"/>'
        font += "" if ink is None else f'<{p}color rgb="{ink}"/>'
        font = f'<{p}font>{font}<{p}name val="Calibri"/><{p}family val="2"/></{p}font>'
        number = self._add("fonts", font.encode())
        wrapped = ' wrapText="1"' if wrap else ""
        look = (
            f'<{p}xf numFmtId="49" fontId="{number}" fillId="{fill}" borderId="0" xfId="0" applyNumberFormat="1" '
            f'applyFont="1" applyFill="1" applyAlignment="1"><{p}alignment vertical="top"{wrapped}/></{p}xf>'
        )
        return self._add("cellXfs", look.encode())

    def _format(self, style: int) -> bytes:
        known = self._children["cellXfs"]
        if style >= len(known):
            return list(self._added["cellXfs"])[style - len(known)]
        element = known[style]
        return self._data[element.start : element.end]

    def _fill(self, colour: str) -> int:
        p = self._prefix
        fill = (
            f'<{p}fill><{p}patternFill patternType="solid"><{p}fgColor rgb="{colour}"/><{p}bgColor indexed="64"/>'
            f"</{p}patternFill></{p}fill>"
        )
        return self._add("fills", fill.encode())

    def _add(self, group: str, xml: bytes) -> int:
        added = self._added[group]
        return added.setdefault(xml, len(self._children[group]) + len(added))
