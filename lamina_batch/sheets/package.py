"""An XLSX file as its parts: some are changed or added, all others are passed on as they are."""

from __future__ import annotations

import posixpath
import re
import shutil
import zipfile
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET
from xml.sax.saxutils import quoteattr

from lamina_batch.sheets.splice import as_utf8

if TYPE_CHECKING:
    from pathlib import Path

WORKBOOK = "xl/workbook.xml"
_CONTENT_TYPES = "[Content_Types].xml"
#: The comment of archives that lamina-batch writes. Other programs do not keep it when they save.
_UNTOUCHED_COMMENT = b"as lamina-batch wrote it"
_RELATIONSHIPS_NAMESPACE = "http://schemas.openxmlformats.org/package/2006/relationships"


def is_untouched(file: Path) -> bool:
    """Whether lamina-batch wrote this workbook and no other program has saved it since."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.comment == _UNTOUCHED_COMMENT
    except (OSError, zipfile.BadZipFile):
        return False


class Package:
    """The parts of one file, read when they are asked for."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._names = dict.fromkeys(archive.namelist())
        self._changed: dict[str, bytes] = {}

    def __contains__(self, part: str) -> bool:
        return part in self._names

    def read(self, part: str) -> bytes:
        """A part that is XML, in UTF-8. Raises KeyError, ValueError for an encoding that none uses."""
        return self._changed[part] if part in self._changed else as_utf8(self._archive.read(part))

    def write(self, part: str, data: bytes) -> None:
        """Put a part into the package, in place of what it was."""
        self._names.setdefault(part)
        self._changed[part] = data

    def free_name(self, pattern: str) -> str:
        """A name for a new part: `xl/comments{}.xml` with the first number that is free."""
        number = 1
        while pattern.format(number) in self._names:
            number += 1
        return pattern.format(number)

    def add(self, part: str, data: bytes, content_type: str) -> None:
        """Put in a new part, and say what it holds."""
        self.write(part, data)
        override = f"<Override PartName={quoteattr('/' + part)} ContentType={quoteattr(content_type)}/>"
        self.write(_CONTENT_TYPES, _insert_element(self.read(_CONTENT_TYPES), "Types", override))

    def say_extension(self, extension: str, content_type: str) -> None:
        """Say what parts with this ending hold, where nothing says it yet."""
        types = self.read(_CONTENT_TYPES)
        if not re.search(rb'<(?:\w+:)?Default[^>]*\bExtension="%s"' % extension.encode(), types, re.IGNORECASE):
            default = f"<Default Extension={quoteattr(extension)} ContentType={quoteattr(content_type)}/>"
            self.write(_CONTENT_TYPES, _insert_element(types, "Types", default))

    def relations(self, part: str) -> dict[str, tuple[str, str]]:
        """Its relations: id -> (type, the part it leads to, or the address outside)."""
        name = _relationships_part(part)
        if name not in self:
            return {}
        found = {}
        for entry in ET.fromstring(self.read(name)).iterfind("{*}Relationship"):  # noqa: S314 - expat bounds entities
            target = entry.get("Target", "")
            if entry.get("TargetMode") != "External":
                target = posixpath.normpath(posixpath.join("/", posixpath.dirname(part), target)).lstrip("/")
            found[entry.get("Id", "")] = (entry.get("Type", ""), target)
        return found

    def relate(self, part: str, target: str, kind: str) -> str:
        """Lead from one part to another; answers the id. `kind` is the last word of the type's address."""
        name = _relationships_part(part)
        taken = self.relations(part)
        number = len(taken) + 1
        while f"rId{number}" in taken:
            number += 1
        data = (
            self.read(name)
            if name in self
            else f'<Relationships xmlns="{_RELATIONSHIPS_NAMESPACE}"></Relationships>'.encode()
        )
        relative = posixpath.relpath(target, posixpath.dirname(part))
        kind = f"{self.namespace}/{kind}"
        entry = f'<Relationship Id="rId{number}" Type={quoteattr(kind)} Target={quoteattr(relative)}/>'
        self.write(name, _insert_element(data, "Relationships", entry))
        return f"rId{number}"

    def related(self, part: str, kind: str) -> str | None:
        """The part that the first relation of this kind leads to."""
        return next((to for of, to in self.relations(part).values() if of.endswith(f"/{kind}")), None)

    @property
    def namespace(self) -> str:
        """Of the ids of relations, with which their types begin too: strict workbooks have their own."""
        kinds = [kind for kind, _ in self.relations(WORKBOOK).values() if kind.endswith("/worksheet")]
        return kinds[0].removesuffix("/worksheet")

    def save(self, file: Path) -> None:
        """Write it all; what was not changed has the same bytes."""
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
            out.comment = _UNTOUCHED_COMMENT
            for name in self._names:
                known = self._archive.NameToInfo.get(name)
                info = zipfile.ZipInfo(name, known.date_time) if known is not None else zipfile.ZipInfo(name)
                info.compress_type = known.compress_type if known is not None else zipfile.ZIP_DEFLATED
                if name in self._changed:
                    out.writestr(info, self._changed[name])
                    continue
                info.file_size = self._archive.getinfo(name).file_size
                with self._archive.open(name) as source, out.open(info, "w") as target:
                    shutil.copyfileobj(source, target)


def _relationships_part(part: str) -> str:
    folder, name = posixpath.split(part)
    return f"{folder}/_rels/{name}.rels"


def _insert_element(data: bytes, root: str, element: str) -> bytes:
    """The document with one more element at the end of its root, which may have a prefix, or be empty."""
    end = re.search(rb"</((?:\w+:)?)%s\s*>\s*$" % root.encode(), data)
    if end is not None:
        prefix = end[1].decode()
        return data[: end.start()] + element.replace("<", f"<{prefix}", 1).encode() + data[end.start() :]
    empty = re.search(rb"<((?:\w+:)?%s)(\s[^<>]*)?/>\s*$" % root.encode(), data)
    if empty is None:
        raise ValueError(f"no end of {root}")
    name = empty[1].decode()
    prefix = name.removesuffix(root)
    opened = f"<{name}{(empty[2] or b'').decode()}>{element.replace('<', '<' + prefix, 1)}</{name}>"
    return data[: empty.start()] + opened.encode()
