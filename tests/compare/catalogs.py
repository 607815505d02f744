"""Generates small catalogs with their pipelines from a seed. A catalog is a folder with the pipeline `p.yaml`."""

from __future__ import annotations

import csv
import hashlib
import json
import random
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import openpyxl
import polars as pl
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

#: A cell: text, a number, true or false, a list of texts, or nothing.
Cell = str | float | bool | list[str] | None
Row = dict[str, Cell]

_TITLES = (
    'Dress "Lago", long',
    "Strickkleid; Größe 38",
    "It's 5\" wide",
    "Two\nlines",
    "Coat {braces}",
    "  outer spaces ",
    "Name with | and \\",
    "=1+1",
    "Café – crème",
    "00123",
    "",
    "NULL",
)
_BAD_URLS = (
    "IMG_4471.JPG",
    "ftp://images.example.com/a.jpg",
    "https://images example.com/a.jpg",
    "www.example.com/a.jpg",
)
#: The weight of each app. The last two make videos: their executions take long.
_APPS = {
    "bbb17293-5fe7-4645-8c6e-0745bc28254d": 30,
    "de5cca6b-73aa-4e27-a714-3339024db15d": 30,
    "ec7ec3ce-69b4-43c9-8eea-fe9752d679a4": 25,
    "a76e85ec-20b4-4fbc-99ad-055423a868a2": 25,
    "ec9b3525-4b72-4083-a6cb-00371672e128": 2,
    "1afc70fd-cb66-4f44-847d-bdaf7e237be4": 2,
}
_FORMATS = ("csv", "csv", "csv", "tsv", "ndjson", "xlsx", "parquet")


@dataclass(kw_only=True)
class _Draft:
    """A catalog while it is generated."""

    chance: random.Random
    format: str
    rows: list[Row]
    inputs: dict[str, Any] = field(default_factory=dict)
    matrix: dict[str, list[str]] = field(default_factory=dict)

    def happens(self, probability: float) -> bool:
        return self.chance.random() < probability

    @property
    def typed(self) -> bool:
        """Whether the file's cells have types."""
        return self.format in {"ndjson", "parquet"}


def write_catalog(folder: Path, *, seed: int, number: int, pins: Path, pinned: bool) -> None:
    """Generate catalog `number` of `seed` in `folder`.

    `pins` is the folder of the shipped pins. They fit the embedded sandbox only; without `pinned` none is used.
    """
    chance = random.Random(f"{seed}:{number}")
    app = chance.choices(list(_APPS), weights=list(_APPS.values()))[0]
    pin = json.loads((pins / f"{app}.json").read_text(encoding="utf-8"))
    draft = _Draft(chance=chance, format=chance.choice(_FORMATS), rows=[])
    draft.rows += [_plain_row(draft, position) for position in range(chance.randint(1, 12))]
    for parameter in pin["parameters"]:
        _choose_rule(draft, parameter)
    key = _choose_keys(draft)
    folder.mkdir(parents=True)
    pipeline: dict[str, Any] = {"version": 1, "app": app}
    if draft.happens(0.3):
        pipeline["name"] = "Catalog of spring"
    pipeline["rows"] = {"from": "rows.csv", "key": key, **_where(draft)}
    pipeline["rows"] |= _write_rows(draft, folder)
    pipeline["inputs"] = draft.inputs
    pipeline |= {"matrix": draft.matrix} if draft.matrix else {}
    pipeline |= _options(draft)
    if pinned and draft.happens(0.4):
        _write_pin(draft, pin, folder / "pin.json")
        pipeline["schema"] = {"pin": "pin.json"} | ({"on_drift": "warn"} if draft.happens(0.3) else {})
    if draft.happens(0.06):
        _spoil(draft, pipeline)
    (folder / "p.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False, allow_unicode=True), encoding="utf-8")


def copy_shipped(folder: Path, top: Path) -> None:
    """Copy the shipped pipelines, and what they read, from the checkout `top`."""
    for name in ("pipelines", "sample_data", "schemas"):
        shutil.copytree(top / name, folder / name, ignore=shutil.ignore_patterns(".*"))
    shutil.rmtree(folder / "out", ignore_errors=True)


# -- rows --------------------------------------------------------------------------------------------------------------


def _plain_row(draft: _Draft, position: int) -> Row:
    chance = draft.chance
    price: Cell = round(chance.uniform(5, 200), 2)
    if not draft.typed and draft.happens(0.05):
        price = "12,50"
    return {
        "sku": f"{position:05}",
        "title": chance.choice(_TITLES) if draft.happens(0.5) else f"Product {position}",
        "active": chance.choice([True, True, False]) if draft.typed else chance.choice(["yes", "yes", "no", "Yes"]),
        "price": None if draft.happens(0.05) else price,
        "stock": chance.choice(["0", "7", "12", "007"]),
    }


def _choose_keys(draft: _Draft) -> str | list[str]:
    """Repeat rows and spoil keys. Returns the columns of the key."""
    chance = draft.chance
    if draft.happens(0.25):
        draft.rows.append(dict(chance.choice(draft.rows)))
    if draft.happens(0.2):
        draft.rows.append(chance.choice(draft.rows) | {"sku": "equal|row"})
    if draft.happens(0.15):
        draft.rows.append(_plain_row(draft, 90) | {"sku": draft.rows[0]["sku"]})
    if draft.happens(0.12):
        chance.choice(draft.rows)["sku"] = chance.choice([None, "  "])
    if draft.happens(0.1):
        chance.choice(draft.rows)["sku"] = chance.choice(['a"b', "ä/ö", " 7", "back\\slash", "=2"])
    if draft.happens(0.15):
        draft.rows.insert(chance.randrange(len(draft.rows)), dict.fromkeys(draft.rows[0]))
    chance.shuffle(draft.rows)
    return ["sku", "stock"] if draft.happens(0.2) else "sku"


def _where(draft: _Draft) -> dict[str, Any]:
    active = "active" if draft.typed else "active = 'yes'"
    where = draft.chance.choice([None, None, "price > 20", active, "title LIKE '%o%'", f"{active} AND price < 150"])
    types = {"price": "float"} if not draft.typed and (draft.happens(0.8) or (where and "price" in where)) else {}
    return ({"where": where} if where else {}) | ({"types": types} if types else {})


def _write_rows(draft: _Draft, folder: Path) -> dict[str, Any]:
    """Write the catalog's files. Returns the keys under `rows` that read them."""
    chance, rows = draft.chance, draft.rows
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if draft.happens(0.3):
        chance.shuffle(columns)
    if draft.happens(0.15):
        # Such a column is ignored, so that a manifest can be read as a catalog.
        columns.append("lamina_status")
    name = f"rows.{draft.format}"
    match draft.format:
        case "ndjson":
            (folder / name).write_text("".join(_json_lines(draft, columns)), encoding="utf-8")
        case "parquet":
            _frame(rows, columns).write_parquet(folder / name)
        case "xlsx":
            book = openpyxl.Workbook()
            sheet = book.worksheets[0]
            if draft.happens(0.2):
                sheet.append(["Spring catalog"])
            sheet.append(columns)
            for row in rows:
                sheet.append(
                    [cell if isinstance(cell, float) else _text(cell) or None for cell in _cells(row, columns)]
                )
            book.save(folder / name)
        case _:
            return _write_delimited(draft, folder, columns)
    return {"from": name}


def _write_delimited(draft: _Draft, folder: Path, columns: list[str]) -> dict[str, Any]:
    chance, rows = draft.chance, draft.rows
    separator = "\t" if draft.format == "tsv" else chance.choice(",,,;|")
    encoding = chance.choice(["utf-8", "utf-8", "utf-8", "utf-8-sig", "cp1252", "utf-16"])
    look: dict[str, Any] = {
        "delimiter": separator,
        "quoting": csv.QUOTE_ALL if draft.happens(0.3) else csv.QUOTE_MINIMAL,
    }
    end = chance.choice(["\n", "\r\n"])
    half = len(rows) // 2
    parts = [rows[:half], rows[half:]] if half and draft.happens(0.15) else [rows]
    names = [f"rows-{number}.{draft.format}" for number in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        with (folder / name).open("w", encoding=encoding, newline="") as file:
            writer = csv.writer(file, lineterminator=end, **look)
            writer.writerow(columns)
            writer.writerows([_text(cell) for cell in _cells(row, columns)] for row in part)
    options: dict[str, Any] = {"from": f"rows-*.{draft.format}" if len(names) > 1 else names[0]}
    if encoding in {"cp1252", "utf-16"} and not draft.happens(0.1):
        options["encoding"] = encoding
    return options | ({"separator": separator} if separator != "\t" and draft.happens(0.5) else {})


def _json_lines(draft: _Draft, columns: list[str]) -> Iterator[str]:
    for row in draft.rows:
        # A key that a line lacks is a blank cell, as null is.
        kept = {name: row.get(name) for name in columns if row.get(name) is not None or draft.happens(0.7)}
        yield json.dumps(kept, ensure_ascii=draft.happens(0.5)) + "\n"


def _frame(rows: Sequence[Row], columns: list[str]) -> pl.DataFrame:
    def series(name: str) -> pl.Series:
        cells = [row.get(name) for row in rows]
        if any(isinstance(cell, list) for cell in cells):
            return pl.Series(name, cells, dtype=pl.List(pl.String))
        if any(isinstance(cell, str) for cell in cells):
            return pl.Series(name, [None if cell is None else _text(cell) for cell in cells], dtype=pl.String)
        return pl.Series(name, cells)

    return pl.DataFrame([series(name) for name in columns])


def _cells(row: Row, columns: list[str]) -> list[Cell]:
    return [row.get(name) for name in columns]


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, list):
        return "|".join(cell)
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell)


# -- rules -------------------------------------------------------------------------------------------------------------


def _choose_rule(draft: _Draft, parameter: dict[str, Any]) -> None:
    """Choose the source of a parameter: a rule, the matrix or nothing."""
    if draft.happens(0.01 if parameter["required"] else 0.12):
        return
    name = parameter["name"]
    rule: dict[str, Any]
    match parameter["type"]:
        case "options":
            if len(draft.matrix) < 2 and draft.happens(0.15):
                draft.matrix[name] = draft.chance.sample(parameter["options"], k=2)
                return
            rule = _option_rule(draft, name, parameter["options"])
        case "url":
            rule = _url_rule(draft, name, several=parameter.get("multiple", False))
        case _:
            rule = _text_rule(draft, name)
    if draft.happens(0.2):
        name = draft.chance.choice([name.upper(), name.replace(" ", "  "), name.replace("  ", " ")])
    draft.inputs[name] = rule


def _fill(draft: _Draft, column: str, cells: Sequence[Cell], weights: Sequence[float]) -> str:
    for row in draft.rows:
        row[column] = draft.chance.choices(cells, weights=weights)[0]
    return column


def _blank(draft: _Draft, default: str | None) -> dict[str, Any]:
    """What a rule does with blanks: often nothing special."""
    options = draft.chance.choice(["", "", "", "default", "app_default", "skip_row"])
    if options == "default" and default is not None:
        return {"default": default}
    return {"blank": options} if options in {"app_default", "skip_row"} else {}


def _option_rule(draft: _Draft, name: str, labels: list[str]) -> dict[str, Any]:
    chance = draft.chance
    kind = chance.choice(["column", "column", "column", "map", "value", "sql"])
    first, last = labels[0], labels[-1]
    if kind == "value":
        return {"value": chance.choice(labels)}
    if kind == "sql":
        quoted = [label.replace("'", "''") for label in (first, last)]
        return {"sql": f"CASE WHEN stock > '10' THEN '{quoted[0]}' ELSE '{quoted[1]}' END"}
    lenient = chance.choice([first.upper(), f" {first.strip()} ", first.lower()])
    near = first.strip()[:-1] + "x"
    cells = [first, last, lenient, near, None, "Nonsense"]
    column = _fill(draft, f"{name} cell", cells, [50, 30, 7, 2, 9, 2])
    rule: dict[str, Any] = {"column": column}
    if kind == "map":
        for row in draft.rows:
            row[column] = {first: "F", last: "1"}.get(str(row[column]), row[column])
        rule["map"] = {"F": first, "1": last, "?": ""}
    return rule | _blank(draft, last)


def _url_rule(draft: _Draft, name: str, *, several: bool) -> dict[str, Any]:
    chance = draft.chance
    column = f"{name}_url"
    for position, row in enumerate(draft.rows):
        good = f"https://images.example.com/{name.replace(' ', '-').lower()}/{position}.jpg"
        row[column] = chance.choices([good, None, chance.choice(_BAD_URLS), f" {good}"], weights=[92, 5, 2, 1])[0]
    default = "https://images.example.com/own-stock.jpg"
    if draft.happens(0.08):
        return {"template": "https://images.example.com/{sku}.jpg"}
    if draft.happens(0.05):
        return {"value": default}
    if several and draft.happens(0.5):
        _fill(draft, f"{column}_2", [f"{default}?2", None, "none"], [60, 35, 5])
        return {"columns": [column, f"{column}_2"]} | _blank(draft, None)
    if several and draft.happens(0.7):
        for row in draft.rows:
            if isinstance(row[column], str) and draft.happens(0.6):
                row[column] = [str(row[column]), default] if draft.typed else f"{row[column]} | {default}|"
        return {"column": column} | ({} if draft.typed else {"split": "|"}) | _blank(draft, default)
    if draft.happens(0.03):
        # Two values, for an input that takes one.
        return {"columns": [column, _fill(draft, f"{column}_2", [default, None], [40, 60])]}
    return {"column": column} | _blank(draft, default)


def _text_rule(draft: _Draft, name: str) -> dict[str, Any]:
    match draft.chance.choice(["template", "template", "column", "sql", "value", "map"]):
        case "template":
            return {"template": "{title} in {{soft}} light, {stock}"} | _blank(draft, f"A {name}")
        case "column":
            return {"column": draft.chance.choice(["title", "price", "TITLE"])} | _blank(draft, "text: with a colon")
        case "sql":
            return {"sql": draft.chance.choice(["title || ', ' || stock", "UPPER(title)", "ROUND(price * 2, 1)"])}
        case "map":
            return {"column": "stock", "map": {"0": "sold out", "007": ""}} | _blank(draft, "plenty")
        case _:
            return {"value": draft.chance.choice(["No", "1:1", "2026-01-01", "null", "It's {here}"])}


# -- the rest of the pipeline ------------------------------------------------------------------------------------------


def _options(draft: _Draft) -> dict[str, Any]:
    chance = draft.chance
    chances: tuple[tuple[str, Any, float], ...] = (
        ("on_invalid_rows", "fail", 0.12),
        ("share_identical", False, 0.1),
        ("max_executions", 3, 0.06),
        ("canary", 2, 0.1),
        ("max_failures", "20%", 0.1),
        ("credits_per_execution", 4, 0.2),
    )
    run = {option: value for option, value, probability in chances if draft.happens(probability)}
    results: dict[str, Any] = {}
    if draft.happens(0.9):
        formats = chance.sample(["csv", "ndjson", "parquet", "xlsx"], k=chance.randint(1, 3))
        results["manifest"] = [f"out/m.{ending}" for ending in formats]
    if draft.happens(0.4):
        results["layout"] = chance.choice(["long", "wide"])
    if draft.happens(0.15):
        results["report"] = "out/m.html"
    if draft.happens(0.12):
        results["download"] = "out/files/{key}/{variant}/{label}.{ext}"
    return ({"run": run} if run else {}) | ({"results": results} if results else {})


def _write_pin(draft: _Draft, pin: dict[str, Any], file: Path) -> None:
    """Write the pin, sometimes changed as if the app had changed since."""
    if draft.happens(0.3):
        parameter = draft.chance.choice(pin["parameters"])
        if draft.happens(0.3):
            parameter["type"] = "url" if parameter["type"] == "text" else "text"
        elif "options" in parameter and draft.happens(0.7):
            parameter["options"] = draft.chance.choice([parameter["options"][1:], [*parameter["options"], "Gone"]])
        else:
            pin["parameters"].remove(parameter)
        content = [pin["app_id"], pin["parameters"]]
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        pin["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    file.write_text(json.dumps(pin, indent=2), encoding="utf-8")


def _spoil(draft: _Draft, pipeline: dict[str, Any]) -> None:
    """Put a mistake into the pipeline."""
    rows, inputs = pipeline["rows"], pipeline["inputs"]
    match draft.chance.randrange(6):
        case 0:
            rows["key"] = "no such column"
        case 1:
            inputs["No Such Input"] = {"value": "x"}
        case 2:
            inputs[next(iter(inputs))] = {"column": "no such column"}
        case 3:
            rows["where"] = "price >"
        case 4:
            pipeline["unknown"] = 1
        case _:
            rows["from"] = "no-such-file.csv"
