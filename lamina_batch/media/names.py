"""Where a downloaded file goes: a pattern of the user's, filled with texts that come from rows and from the service.

Those texts are foreign. What they become is one harmless part of a file name, on any system, whatever they say; so
no name leads out of the pattern's own folder (docs/safety.md, "Safety").
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from lamina_batch.errors import closest_match

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What a pattern may name, in braces.
PLACEHOLDERS = ("key", "variant", "label", "ext")

#: The extension of a file of unknown kind.
UNKNOWN_EXTENSION = "bin"

_TEMPLATE_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
#: Separators, and what Windows refuses (also on network drives and memory cards).
_RESERVED_CHARACTERS = frozenset('/\\<>:"|?*')
#: Windows takes these for devices, in any case and with any extension.
_RESERVED_NAMES = frozenset(
    {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"}
    | {f"{port}{number}" for port in ("COM", "LPT") for number in "0123456789¹²³"}
)
#: The longest name of a file or folder on ext4, APFS, NTFS and most others, in bytes of UTF-8 for the strictest.
_MAX_NAME_BYTES = 255
#: A longer text after the last dot is no extension.
_MAX_EXTENSION_LENGTH = 32

#: Extensions that only name media and plain text. Nothing that a double click would run: no .exe or .sh, and neither
#: .html nor .svg, because a browser runs the scripts in them.
_KNOWN_EXTENSIONS = frozenset(
    {
        *("jpg", "jpeg", "png", "webp", "gif", "avif", "heic", "heif", "bmp", "tif", "tiff", "jxl", "psd"),
        *("mp4", "m4v", "mov", "webm", "mkv", "avi", "mpg", "mpeg", "ogv", "3gp"),
        *("mp3", "m4a", "aac", "wav", "ogg", "oga", "opus", "flac"),
        *("txt", "json", "srt", "vtt", "pdf", "glb"),
    }
)
_BY_CONTENT_TYPE: Mapping[str, str] = MappingProxyType(
    {
        "image/jpeg": "jpg",
        "image/jpg": "jpg",
        "image/png": "png",
        "image/webp": "webp",
        "image/gif": "gif",
        "image/avif": "avif",
        "image/heic": "heic",
        "image/heif": "heif",
        "image/bmp": "bmp",
        "image/tiff": "tiff",
        "image/jxl": "jxl",
        "image/vnd.adobe.photoshop": "psd",
        "video/mp4": "mp4",
        "video/x-m4v": "m4v",
        "video/quicktime": "mov",
        "video/webm": "webm",
        "video/x-matroska": "mkv",
        "video/x-msvideo": "avi",
        "video/mpeg": "mpg",
        "video/ogg": "ogv",
        "video/3gpp": "3gp",
        "audio/mpeg": "mp3",
        "audio/mp3": "mp3",
        "audio/mp4": "m4a",
        "audio/x-m4a": "m4a",
        "audio/aac": "aac",
        "audio/wav": "wav",
        "audio/wave": "wav",
        "audio/x-wav": "wav",
        "audio/vnd.wave": "wav",
        "audio/ogg": "ogg",
        "audio/opus": "opus",
        "audio/flac": "flac",
        "audio/x-flac": "flac",
        "audio/webm": "webm",
        "text/plain": "txt",
        "text/vtt": "vtt",
        "application/x-subrip": "srt",
        "application/json": "json",
        "application/pdf": "pdf",
        "model/gltf-binary": "glb",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PathPattern:
    """`results.download`, read. `parse_pattern` makes one."""

    #: the longest leading part without a placeholder: no file ever stands outside it
    folder: Path
    #: the path below it, a component each: literals and placeholders in turn, a literal first and last
    components: tuple[tuple[str, ...], ...]

    def uses(self, name: str) -> bool:
        """Whether the pattern holds this placeholder."""
        return any(name in component[1::2] for component in self.components)

    def place(self, *, key: str, variant: str, label: str, ext: str, number: int = 1) -> Path:
        """The file for one output. From 2 on, `number` follows the name: `front 2.png`.

        Different texts can come to the same place; who asks must compare (`fold`) and go on to the next number.
        """
        values = {
            "key": _safe_name(key) or "_",
            "variant": _safe_name(variant),
            "label": _safe_name(label) or "_",
            "ext": _safe_name(ext),
        }
        path = self.folder
        for component in self.components[:-1]:
            filled = _fill(component, values)
            if filled:
                path /= filled if len(component) == 1 else _join_name(filled, "", literal=bool(component[0]))
        stem, tail = _stem_and_tail(self.components[-1], values)
        return path / _join_name(stem, tail, literal=bool(self.components[-1][0]), number=number)


def parse_pattern(text: str) -> PathPattern:
    """Read a pattern, an absolute path with `{key}`, `{variant}`, `{label}`, `{ext}`; `{{` and `}}` are braces.

    Raises ValueError, in words for the user.
    """
    if not Path(text).is_absolute():
        raise ValueError("it is no absolute path")
    components: list[list[str]] = [[""]]
    end = 0
    for token in _TEMPLATE_TOKEN.finditer(text):
        _add_literal(components, text[end : token.start()])
        end = token.end()
        name: str | None = token[1]
        if name is not None:
            if name not in PLACEHOLDERS:
                raise ValueError(_unknown_placeholder(name))
            components[-1] += [name, ""]
        elif token[0] in {"{{", "}}"}:
            _add_literal(components, token[0][0])
        else:
            raise ValueError(f"a {token[0]} has no partner: write {{label}}; {{{{ and }}}} are braces")
    _add_literal(components, text[end:])
    return _make_pattern(components)


def escape_braces(text: str) -> str:
    """`text` as a pattern that means just it: for the folder that a relative pattern is joined to."""
    return text.replace("{", "{{").replace("}", "}}")


def casefold_path(path: Path) -> str:
    """What two paths share when some file system (macOS, Windows) takes them for one: case and normalisation."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def extension(url: str, content_type: str | None) -> str:
    """What the file is called after the dot: by the URL's path, else by the Content-Type (docs/lamina-api.md,
    "Output files").

    Only an extension we know, in lower case, else `bin`: whatever the URL says, it becomes none that runs.
    """
    try:
        path = urlsplit(url).path
    except ValueError:
        path = ""
    said = unquote(path).rpartition(".")[2].lower()
    if said in _KNOWN_EXTENSIONS:
        return said
    return _BY_CONTENT_TYPE.get((content_type or "").partition(";")[0].strip().lower(), UNKNOWN_EXTENSION)


def _make_pattern(components: list[list[str]]) -> PathPattern:
    *_, last = components
    if last == [""]:
        raise ValueError("it names a folder: end it with a file name, such as {label}.{ext}")
    if not any({"key", "variant", "label"} & set(component[1::2]) for component in components):
        raise ValueError("every output would have the same name: use {key} and {label}")
    if not (last[-2:] == ["ext", ""] and last[-3].endswith(".")) and not re.search(r"\.[^. ]+\Z", last[-1]):
        # Else the dot of a label would begin the extension, and the service's words would choose it.
        raise ValueError("its file name has no extension: end it with .{ext}")
    leading = 0
    while len(components[leading]) == 1:
        leading += 1
    below = [tuple(component) for component in components[leading:] if component not in ([""], ["."])]
    if ("..",) in below:
        raise ValueError("nothing may lead out of a folder named by rows: take out the .. after the first placeholder")
    for component in below:
        literal = "".join(component[::2])
        if any(unicodedata.category(char) == "Cc" for char in literal):
            raise ValueError("it holds a control character")
        if len(component) == 1 and len(_byte_length(literal)) > _MAX_NAME_BYTES:
            raise ValueError(f"a name in it is longer than {_MAX_NAME_BYTES} bytes")
    folder = "/".join("".join(component) for component in components[:leading])
    return PathPattern(folder=Path(folder or "/"), components=tuple(below))


def _add_literal(components: list[list[str]], text: str) -> None:
    first, *rest = text.split("/")
    components[-1][-1] += first
    components.extend([part] for part in rest)


def _unknown_placeholder(name: str) -> str:
    known = ", ".join(f"{{{placeholder}}}" for placeholder in PLACEHOLDERS)
    near = closest_match(name.strip(), PLACEHOLDERS)
    return f"{{{name}}} is no placeholder: {f'did you mean {{{near}}}?' if near else f'there are {known}'}"


def _fill(component: tuple[str, ...], values: Mapping[str, str]) -> str:
    return "".join(values[piece] if index % 2 else piece for index, piece in enumerate(component))


def _stem_and_tail(component: tuple[str, ...], values: Mapping[str, str]) -> tuple[str, str]:
    """A file's name, and the extension that a number goes before and that cutting spares, with its dot.

    Only the pattern says where an extension is; the dot in a label such as `Dr. No` begins none.
    """
    if len(component) > 1 and component[-1] == "" and component[-2] == "ext" and component[-3].endswith("."):
        stem, tail = _fill((*component[:-3], component[-3][:-1]), values), values["ext"]
    else:
        before, dot, tail = component[-1].rpartition(".")
        stem = _fill((*component[:-1], before if dot else component[-1]), values)
        tail = tail if dot else ""
    tail = unicodedata.normalize("NFC", tail).rstrip(" .")
    if not tail or len(_byte_length(tail)) > _MAX_EXTENSION_LENGTH:
        return (f"{stem}.{tail}" if tail else stem), ""
    return stem, f".{tail}"


def _join_name(stem: str, tail: str, *, literal: bool, number: int = 1) -> str:
    """One component of a path, made fit as a whole. `literal`: the user's own text begins it."""
    stem = unicodedata.normalize("NFC", stem).rstrip(" .")
    if stem.startswith(".") and not literal:
        # A name from a row shall neither hide nor be taken for a folder above.
        stem = f"_{stem[1:]}"
    stem = stem or "_"
    tail = (f" {number}" if number >= 2 else "") + tail
    if f"{stem}{tail}".partition(".")[0].rstrip(" ").upper() in _RESERVED_NAMES:
        stem = f"_{stem}"
    if len(_byte_length(f"{stem}{tail}")) > _MAX_NAME_BYTES:
        # Two long names that begin alike stay two.
        mark = "~" + hashlib.sha256(_byte_length(stem)).hexdigest()[:8]
        room = _MAX_NAME_BYTES - len(_byte_length(f"{mark}{tail}"))
        stem = _byte_length(stem)[:room].decode("utf-8", "ignore").rstrip(" .") + mark
    return stem + tail


def _safe_name(value: str) -> str:
    """A foreign text without anything that a file name may not hold, or that makes it look like another."""
    return "".join(_safe_character(char) for char in unicodedata.normalize("NFC", value)).strip(" ")


def _safe_character(char: str) -> str:
    category = unicodedata.category(char)
    # C: control, format (bidi, zero width), lone surrogates, private and unassigned; the two Z: line ends.
    if char in _RESERVED_CHARACTERS or category[0] == "C" or category in {"Zl", "Zp"}:
        return "_"
    return " " if category == "Zs" else char


def _byte_length(text: str) -> bytes:
    # A pattern that came from a file name may hold what is no UTF-8; values do not any more.
    return text.encode("utf-8", "surrogatepass")
