"""What the reader of a page has before they begin: the files of the project, and a catalog of their own.

Where a page needs more, PREPARED has a function for it, which does what its reader has done before.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from process import TOP

from docs.schedules import home_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from docs.runners import Page

#: As README.md has it.
CATALOG = """\
version: 1
app: bbb17293-5fe7-4645-8c6e-0745bc28254d
rows:
  from: products.csv
  key: sku
  where: "active = 'yes'"
inputs:
  Front: {column: front_image_url}
  Back: {column: back_image_url, blank: skip_row}
  Model Gender: {column: gender, map: {F: Female, M: Male}, default: Female}
  Prompt: {template: "{title} in {colour}, soft studio light"}
  Aspect Ratio: {value: 1:1}
run:
  poll: {min_interval: 1s}
"""

PRODUCTS = "sku,brand,title,colour,gender,price,active,front_image_url,back_image_url\n" + "".join(
    f"{number:05},Acme,Dress {number},{colour},{gender},{number}.90,yes,"
    f"https://images.example.com/{number:05}-front.jpg,https://images.example.com/{number:05}-back.jpg\n"
    for number, colour, gender in (
        (123, "Red", "F"),
        (124, "Sand", "F"),
        (125, "Ink", "M"),
        (126, "Moss", ""),
        (127, "Rose", "F"),
    )
)


def prepare(page: Page) -> None:
    """The folder of a reader who has cloned the repository and begun with a catalog of their own."""
    for name in ("pipelines", "sample_data", "schemas"):
        shutil.copytree(TOP / name, page.folder / name, ignore=shutil.ignore_patterns(".lamina-batch*"))
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy2(TOP / name, page.folder)
    # So that `make demo` finds what it would otherwise install first.
    installed = page.folder / ".venv" / "bin"
    installed.mkdir(parents=True)
    (installed / "lamina-batch").symlink_to(Path(sys.executable).parent / "lamina-batch")
    (installed / ".runs").touch()
    for name in ("catalog.yaml", "pipeline.yaml"):
        (page.folder / name).write_text(CATALOG, encoding="utf-8")
    (page.folder / "products.csv").write_text(PRODUCTS, encoding="utf-8")
    shutil.copy2(page.folder / "products.csv", page.folder / "today.csv")
    page.env |= {
        "PATH": f"{Path(sys.executable).parent}:{page.env['PATH']}",
        "HOME": str(page.aside),
        # Nobody is there.
        "NOTIFY_URL": "http://127.0.0.1:9/hook",
    }


def _lost_answers(page: Page) -> None:
    """Their network broke just when the rows were sent: all of them are held. They know the id of the first."""
    data = page.aside / "service"
    page.serve("--data", str(data), "--fault", "drop_after_accept")
    page.shell("lamina-batch run catalog.yaml", exits=6)
    accepted = [json.loads(line) for line in (data / "executions.jsonl").read_text(encoding="utf-8").splitlines()]
    first = next(one for one in accepted if "00123" in json.dumps(one["inputs"]))
    page.env["EXECUTION_ID"] = first["execution_id"]


def _catalog_elsewhere(page: Page) -> None:
    page.env["CATALOG_FOLDER"] = str(page.folder)


def _verdicts(page: Page) -> None:
    """They have looked at the report of a run, and rejected one row."""
    page.shell("lamina-batch run catalog.yaml")
    with (page.folder / "out" / "catalog.csv").open(encoding="utf-8", newline="") as file:
        line = next(csv.DictReader(file))
    pick = {"key": line["lamina_key"], "variant": "", "verdict": "reject", "note": "too dark"}
    pick |= {name: line[f"lamina_{name}"] for name in ("inputs_sha256", "execution_id")}
    picks = {"format": "lamina-batch picks", "version": 1, "pipeline": "catalog", "app": line["lamina_app_id"]}
    picks |= {"service": page.env["LAMINA_BASE_URL"], "picks": [pick]}
    (page.folder / "catalog-picks.json").write_text(json.dumps(picks), encoding="utf-8")


#: page -> what its reader has done before
PREPARED: dict[str, Callable[[Page], None]] = {
    "docs/cron.md": home_of,
    "docs/ledger.md": _lost_answers,
    "docs/one-row.md": _lost_answers,
    "docs/pipeline-file.md": _catalog_elsewhere,
    "docs/report.md": _verdicts,
}
