"""The pictures of the sandbox: a card that shows a person which row and which output it is.

`card_for` decides what stands on the card (pure); `draw_card` paints it. The same execution always gives the same
bytes.
"""

from __future__ import annotations

import colorsys
import hashlib
import io
import re
import unicodedata
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamina_batch.sandbox.apps import SandboxApp, SandboxOutput

_LONGEST_SIDE = 640
_MAX_DETAILS = 3

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What stands on one picture."""

    #: the most telling text of the row, such as a product's title or the name of its picture
    title: str
    #: further inputs: name and value
    details: tuple[tuple[str, str], ...]
    #: which output it is
    label: str
    #: what it came from, small
    footer: str
    #: width to height
    ratio: float
    #: decides colours and shapes: equal inputs look alike
    digest: bytes


def card_for(app: SandboxApp, output: SandboxOutput, *, execution_id: str, inputs: Mapping[str, Any]) -> Card:
    """What the card of one output says and how it is coloured."""
    told = [(name, printable(text)) for name, text in _ranked_texts(app, inputs)]
    told = [(name, text) for name, text in told if text]
    # A text that the font cannot show does not tell a row from another.
    told.sort(key=lambda item: item[1].count(_UNPRINTABLE) * 2 > len(item[1]))
    position = app.outputs.index(output) + 1
    digest = hashlib.sha256(repr(sorted(inputs.items())).encode(errors="replace")).digest()
    return Card(
        title=told[0][1] if told else printable(app.name),
        details=tuple((printable(name), text) for name, text in told[1 : 1 + _MAX_DETAILS]),
        label=f"{printable(output.label)}  {position}/{len(app.outputs)}",
        footer=f"sandbox picture, execution {execution_id[:8]}",
        ratio=_ratio(app, output, inputs),
        digest=digest[:16] + hashlib.sha256(output.output_id.encode()).digest()[:16],
    )


def main_title(app: SandboxApp, inputs: Mapping[str, Any]) -> str:
    """The one input that tells a row best, as it was sent."""
    return next((text for _, text in _ranked_texts(app, inputs)), app.name)


def _ranked_texts(app: SandboxApp, inputs: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and text of every input given, texts before the names of files before options."""
    rank = {"text": 0, "url": 1, "options": 2}
    told: list[tuple[int, str, str]] = []
    for parameter in app.parameters:
        value = inputs.get(parameter.name)
        values = [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]
        shown = [_file_name(item) if parameter.type == "url" else item for item in values]
        text = ", ".join(item for item in shown if item.strip())
        if text:
            told.append((rank[parameter.type], parameter.name, text))
    return [(name, text) for _, name, text in sorted(told, key=lambda item: item[0])]


def _file_name(url: str) -> str:
    parts = urlsplit(url)
    return PurePosixPath(unquote(parts.path)).stem or parts.netloc


def _ratio(app: SandboxApp, output: SandboxOutput, inputs: Mapping[str, Any]) -> float:
    """Width to height as the label, or else an input (or its default) such as "Aspect Ratio", says; 1 otherwise."""
    parameters = sorted(app.parameters, key=lambda parameter: "ratio" not in parameter.name.casefold())
    for text in (output.label, *(str(inputs.get(p.name, p.default)) for p in parameters)):
        found = re.search(r"(?:^|\s)([1-9]\d?)\s*[:x×]\s*([1-9]\d?)(?:\s|$)", text)
        if found:
            return min(3.0, max(1 / 3, int(found[1]) / int(found[2])))
    return 1.0


# --- text that the bundled font can show -----------------------------------------------------------------------

#: more would not fit on any card
_MAX_LETTERS = 400

#: drawn as the font's own box
_UNPRINTABLE = "\ufffd"

# The font that comes with Pillow knows ASCII and little else; what does not decompose is spelt out here.
_SPELLINGS: Mapping[int, str] = {
    ord(letter): spelling
    for letter, spelling in (
        *zip("øØłŁđĐðÐı–—−×·•’‘“”", "oOlLdDdDi---x--''\"\"", strict=True),
        *(("ß", "ss"), ("æ", "ae"), ("Æ", "AE"), ("œ", "oe"), ("Œ", "OE"), ("þ", "th"), ("Þ", "Th")),
        *(("€", "EUR "), ("£", "GBP "), ("¥", "JPY "), ("₹", "INR "), ("…", "...")),
    )
}


def printable(text: str) -> str:
    """The text in letters that the font has: accents go, other scripts become boxes, line breaks become spaces."""
    letters: list[str] = []
    for character in unicodedata.normalize("NFKD", text[:_MAX_LETTERS].translate(_SPELLINGS)):
        category = unicodedata.category(character)
        if category.startswith("Z") or category == "Cc":
            letters.append(" ")
        elif character.isascii():
            letters.append(character)
        elif category not in {"Mn", "Me", "Cf"}:
            letters.append(_UNPRINTABLE)
    return " ".join("".join(letters).split())[:_MAX_LETTERS]


# --- painting ---------------------------------------------------------------------------------------------------


def card_size(card: Card) -> tuple[int, int]:
    """Width and height in pixels."""
    return round(_LONGEST_SIDE * min(1.0, card.ratio)), round(_LONGEST_SIDE * min(1.0, 1 / card.ratio))


def draw_card(card: Card) -> bytes:
    """The card as a PNG of some 10 to 30 KB."""
    width, height = card_size(card)
    picture = _draw_background(width, height, card.digest)
    _draw_text(picture, card)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _draw_background(width: int, height: int, digest: bytes) -> Image.Image:
    """A soft backdrop, an arch and two balls on a floor: painted at twice the size, for smooth edges."""
    hue = digest[0] / 256
    accent = (hue + 0.45 + digest[1] / 256 * 0.1) % 1
    wide, high = width * 2, height * 2
    picture = Image.new("RGB", (wide, high), _colour(hue, 0.93, 0.32))
    draw = ImageDraw.Draw(picture)
    floor = int(high * 0.56)
    draw.rectangle((0, floor, wide, high), fill=_colour(hue, 0.87, 0.30))
    unit = min(wide, high)
    centre = wide * (0.36 + 0.28 * digest[16] / 255)
    arch = unit * (0.16 + 0.06 * digest[17] / 255)
    draw.rounded_rectangle(
        (centre - arch, floor - arch * 2.1, centre + arch, floor + arch),
        radius=arch,
        fill=_colour(hue, 0.80, 0.35),
    )
    draw.rectangle((centre - arch, floor, centre + arch, floor + arch + 2), fill=_colour(hue, 0.87, 0.30))
    for sign, size, shade in ((1, 0.085, 0.66), (-1, 0.05, 0.75)):
        radius = unit * (size + 0.03 * digest[18] / 255)
        middle = centre + sign * arch * (0.35 + 0.5 * digest[19 if sign > 0 else 20] / 255)
        draw.ellipse(
            (middle - radius * 1.2, floor + radius * 0.15, middle + radius * 1.2, floor + radius * 0.5),
            fill=_colour(hue, 0.79, 0.28),
        )
        draw.ellipse(
            (middle - radius, floor - radius * 1.65, middle + radius, floor + radius * 0.35),
            fill=_colour(accent, shade, 0.45),
        )
        light = radius * 0.42
        draw.ellipse(
            (
                middle - radius * 0.35 - light,
                floor - radius - light,
                middle - radius * 0.35 + light,
                floor - radius + light,
            ),
            fill=_colour(accent, shade + 0.07, 0.45),
        )
    return picture.reduce(2)


def _draw_text(picture: Image.Image, card: Card) -> None:
    width, height = picture.size
    hue = card.digest[0] / 256
    ink, soft = _colour(hue, 0.18, 0.25), _colour(hue, 0.42, 0.15)
    draw = ImageDraw.Draw(picture)
    margin = 24
    room = width - 4 * margin
    medium, large, small, tiny = (ImageFont.load_default(size=size) for size in (22, 30, 19, 13))

    label = _fit(card.label, medium, room)
    tag = 2 * margin + medium.getlength(label)
    draw.rounded_rectangle((margin, margin, tag, margin + 42), radius=21, fill=(255, 255, 255))
    draw.text((margin * 1.5, margin + 21), label, font=medium, fill=ink, anchor="lm")

    title = _wrap(card.title, large, room, lines=1 if height < 400 else 2)
    details = card.details[: 1 if height < 400 else _MAX_DETAILS]
    panel = 16 + 36 * len(title) + 27 * len(details) + 30
    top = height - margin - panel
    draw.rounded_rectangle((margin, top, width - margin, height - margin), radius=18, fill=(255, 255, 255))
    y = top + 14
    for line in title:
        draw.text((2 * margin, y), line, font=large, fill=ink)
        y += 36
    for name, value in details:
        shown = _fit(f"{name}: ", small, room // 2)
        draw.text((2 * margin, y + 2), shown, font=small, fill=soft)
        start = draw.textlength(shown, font=small)
        draw.text((2 * margin + start, y + 2), _fit(value, small, room - start), font=small, fill=ink)
        y += 27
    draw.text((2 * margin, y + 5), _fit(card.footer, tiny, room), font=tiny, fill=soft)


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: float, lines: int) -> list[str]:
    """The text in at most so many lines, broken between words."""
    words = text.split(" ")
    wrapped: list[str] = []
    while words and len(wrapped) < lines - 1:
        count = 1
        while count < len(words) and font.getlength(" ".join(words[: count + 1])) <= room:
            count += 1
        wrapped.append(_fit(" ".join(words[:count]), font, room))
        words = words[count:]
    return [*wrapped, _fit(" ".join(words), font, room)] if words else wrapped


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: float) -> str:
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "...") > room:
        text = text[:-1]
    return text.rstrip() + "..."


def _colour(hue: float, lightness: float, saturation: float) -> Colour:
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, saturation)
    return round(red * 255), round(green * 255), round(blue * 255)
