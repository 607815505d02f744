"""What the scale bench holds ours against. Each is a process of its own, and prints its seconds as JSON.

copy FILE           what polars takes to read that file and write it again
loop FILE ROWS      csv module, one prebuilt jsonschema validator, row by row, findings written
insert KEYS DB      sqlite3: the keys and hashes into a new table, in one transaction
read DB             sqlite3: key and hash of every row out of that table
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

#: What a sane person would declare: the key is the primary key, both are text and never null.
TABLE = "CREATE TABLE seen (key TEXT PRIMARY KEY NOT NULL, hash TEXT NOT NULL)"
URL = {"type": "string", "pattern": "^https?://[^/?#\\s]+", "not": {"pattern": "\\s"}}
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "Front": URL,
        "Back": URL,
        "Model Gender": {"type": "string", "enum": ["Female", "Male"]},
        "Style": {"type": "string", "enum": ["Everyday", "Luxury", "Editorial", "Streetwear", "Minimal"]},
        "Prompt": {"type": "string"},
        "Aspect Ratio": {"type": "string", "enum": ["1:1", "4:5", "3:4", "16:9", "9:16"]},
    },
    "required": ["Front", "Back"],
    "additionalProperties": False,
}


Taken = dict[str, float]


def clock() -> tuple[float, float]:
    return time.monotonic(), time.process_time()


def since(began: tuple[float, float]) -> Taken:
    """Seconds on the wall, and of all cores."""
    wall, cpu = clock()
    return {"seconds": wall - began[0], "cpu": cpu - began[1]}


def copy(file: Path) -> Taken:
    import polars as pl  # noqa: PLC0415  # each baseline loads what it needs

    target = file.with_name(f"copy-of-{file.name}")
    began = clock()
    if file.suffix == ".csv":
        pl.read_csv(file).write_csv(target)
    else:
        pl.read_parquet(file).write_parquet(target)
    taken = since(began)
    target.unlink()
    return taken


def loop(file: Path, rows: int) -> Taken:
    import jsonschema  # noqa: PLC0415  # each baseline loads what it needs

    validator = jsonschema.Draft202012Validator(SCHEMA)
    target = file.with_name("loop-findings.csv")
    genders = {"F": "Female", "M": "Male"}
    began = clock()
    with file.open(encoding="utf-8", newline="") as source, target.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        for number, row in enumerate(itertools.islice(csv.DictReader(source), rows), start=2):
            inputs: dict[str, Any] = {
                "Front": row["front_image_url"],
                "Back": row["back_image_url"],
                "Model Gender": genders.get(row["gender"], row["gender"]),
                "Style": "Luxury" if float(row["price"]) > 100 else "Everyday",
                "Prompt": f"{row['title']} in {row['colour']}, soft studio light",
                "Aspect Ratio": "1:1",
            }
            for error in validator.iter_errors({name: value for name, value in inputs.items() if value}):
                writer.writerow([number, row["sku"], ".".join(map(str, error.path)), error.message])
    return since(began)


def insert(keys: Path, database: Path) -> Taken:
    import polars as pl  # noqa: PLC0415  # each baseline loads what it needs

    rows = pl.read_parquet(keys).rows()
    database.unlink(missing_ok=True)
    connection = sqlite3.connect(database)
    began = clock()
    connection.execute(TABLE)
    connection.executemany("INSERT INTO seen VALUES (?, ?)", rows)
    connection.commit()
    taken = since(began)
    connection.close()
    return taken


def read(database: Path) -> Taken:
    connection = sqlite3.connect(database)
    began = clock()
    rows = connection.execute("SELECT key, hash FROM seen").fetchall()
    taken = since(began)
    assert rows
    return taken


def main() -> None:
    kind, first, *rest = sys.argv[1:]
    match kind:
        case "copy":
            taken = copy(Path(first))
        case "loop":
            taken = loop(Path(first), int(rest[0]))
        case "insert":
            taken = insert(Path(first), Path(rest[0]))
        case "read":
            taken = read(Path(first))
        case _:
            sys.exit(f"no baseline {kind}")
    print(json.dumps(taken), flush=True)
    # Freeing a million tuples is no part of it.
    os._exit(0)


if __name__ == "__main__":
    main()
