"""Catalogs of twelve columns, as large as asked for, and the pipeline that runs them.

    python tests/bench/scale_catalogs.py FOLDER ROWS [CHANGED]

Front, Back and gender are checked against the app; one in a hundred of the cells of each is bad in `bad.*`. Every
Front is bad in `every_front.*`, each in a way of its own; every gender in `every_gender.*`, in one of seven ways.
`changed.*` is `clean.*` with another title in 500 rows (or as many as are asked for), spread evenly.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable

APP = "bbb17293-5fe7-4645-8c6e-0745bc28254d"
CHANGED = 500
KINDS = ("clean", "bad", "every_front", "every_gender", "changed")

PIPELINE = """\
version: 1
name: scale
app: %(app)s
rows: {from: %(rows)s, key: sku%(types)s}
inputs:
  Front: {column: front_image_url}
  Back: {column: back_image_url}
  Model Gender: {column: gender, map: {F: Female, M: Male}}
  Style: {sql: "CASE WHEN price > 100 THEN 'Luxury' ELSE 'Everyday' END"}
  Prompt: {template: "{title} in {colour}, soft studio light"}
  Aspect Ratio: {value: 1:1}
results: {manifest: [out/scale.%(manifest)s]}
state: %(state)s
"""

_COLOURS = ("black", "navy", "ivory", "sage", "rust", "écru", "sand", "plum", "teal", "rosé", "charcoal")
_GARMENTS = ("Linen dress", "Wool coat", "Silk blouse", "Denim jacket", "Cotton tee", "Pleated skirt", 'Boot, 5" heel')
_UNKNOWN = ("Unisex", "Kids", "femme", "W", "Girls", "n/a", "Femal")


def frame(rows: int) -> pl.DataFrame:
    n = pl.col("n")
    number = n.cast(pl.String).str.zfill(7)
    # As a shop's pictures are named: nothing that compresses to nothing.
    picture = ((n * 2_654_435_761 + 12_345) % 2**40).cast(pl.String).str.zfill(13)
    host = pl.lit("https://images.example.com/catalog/")

    def lit(words: tuple[str, ...], step: int) -> pl.Expr:
        return pl.lit(pl.Series(words).gather((pl.int_range(rows, eager=True) * step) % len(words)))

    return (
        pl.int_range(rows, eager=True)
        .alias("n")
        .to_frame()
        .select(
            sku=pl.concat_str(pl.lit("SKU-"), number),
            title=pl.concat_str(lit(_GARMENTS, 3), pl.lit(" no. "), number),
            colour=lit(_COLOURS, 5),
            gender=lit(("F", "M", "F"), 1),
            price=((n * 7919) % 24000 + 999) / 100,
            front_image_url=pl.concat_str(host, picture, pl.lit("/front.jpg")),
            back_image_url=pl.concat_str(host, picture, pl.lit("/back.jpg")),
            brand=lit(("Nordlys", "Casa Mare", "Atelier 9", "Oak & Thread"), 1),
            category=lit(("Women > Dresses", "Men > Coats", "Women > Tops", "Shoes"), 3),
            season=lit(("SS26", "AW26"), 1),
            stock=(n * 31) % 500,
            description=pl.concat_str(
                lit(_GARMENTS, 5), pl.lit(" in a relaxed cut, made in Portugal; batch "), picture
            ),
        )
    )


def bad(table: pl.DataFrame) -> pl.DataFrame:
    """One in a hundred cells of three columns: no address, an unknown word, nothing."""
    n = pl.int_range(pl.len())
    front = pl.col("front_image_url")
    return table.with_columns(
        front_image_url=pl.when(n % 100 == 17).then(front.str.strip_prefix("https://")).otherwise(front),
        gender=pl.when(n % 100 == 34).then(pl.lit("Unisex")).otherwise("gender"),
        back_image_url=pl.when(n % 100 != 51).then("back_image_url"),
    )


def every_front(table: pl.DataFrame) -> pl.DataFrame:
    return table.with_columns(pl.col("front_image_url").str.strip_prefix("https://"))


def every_gender(table: pl.DataFrame) -> pl.DataFrame:
    words = pl.Series(_UNKNOWN).gather(pl.int_range(table.height, eager=True) % len(_UNKNOWN))
    return table.with_columns(words.alias("gender"))


def changed(table: pl.DataFrame, count: int) -> pl.DataFrame:
    n = pl.int_range(pl.len())
    title = pl.col("title")
    step = max(1, table.height // count)
    hit = (n % step == 0) & (n < step * count)
    return table.with_columns(pl.when(hit).then(pl.concat_str(title, pl.lit(" (new)"))).otherwise(title).alias("title"))


def write(folder: Path, rows: int, changes: int = CHANGED) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    clean = frame(rows)
    made: dict[str, Callable[[], pl.DataFrame]] = {
        "clean": lambda: clean,
        "bad": lambda: bad(clean),
        "every_front": lambda: every_front(clean),
        "every_gender": lambda: every_gender(clean),
        "changed": lambda: changed(clean, changes),
    }
    for name in KINDS:
        table = made[name]()
        table.write_parquet(folder / f"{name}.parquet")
        if name in {"clean", "bad", "changed"}:
            table.write_csv(folder / f"{name}.csv")
    for name in KINDS:
        for kind in ("parquet", "csv"):
            # One ledger for what is clean and what has changed since, in either form.
            known = name in {"clean", "changed"}
            text = PIPELINE % {
                "app": APP,
                "rows": f"{name}.{kind}",
                "types": ", types: {price: float}" if kind == "csv" else "",
                "manifest": kind,
                "state": f"state-{kind}" if known else "state-none",
            }
            (folder / f"{name}-{kind}.yaml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), *map(int, sys.argv[2:]))
