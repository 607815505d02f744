"""A first pipeline file: what is matched by itself, what is left open, and that nothing open can be run."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openpyxl
import pytest
from catalog_support import STOCK, Desk, app, image, options, text
from hypothesis import given
from hypothesis import strategies as st

from lamina_batch.apps.app import parse_app
from lamina_batch.authoring.init import default_name, draft, pipeline_text, refuse_existing_files, scalar, write_files
from lamina_batch.authoring.matching import ColumnMatch, explain_missing_key, guess_key, match_columns
from lamina_batch.catalog.check_rows import check_rows
from lamina_batch.catalog.mapping import map_rows
from lamina_batch.drift.pins import read_pin, take_pin
from lamina_batch.errors import CatalogError, UsageError
from lamina_batch.pipeline.load import load_pipeline
from lamina_batch.pipeline.schema_problems import FILL_IN
from lamina_batch.pipeline.typed_values import substitute_variables
from lamina_batch.pipeline.yaml_tree import MappingNode, ScalarNode, parse_yaml
from lamina_batch.sources.read_catalog import read_catalog

if TYPE_CHECKING:
    from lamina_batch.drift.pins import Pin

ROOT = Path(__file__).parents[2]
URL = "https://images.example.com/1.jpg"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def matched(desk: Desk, parameter: dict[str, Any], **columns: str) -> ColumnMatch | None:
    """What is matched to the parameter in a catalog of one row."""
    desk.write("rows.csv", f"{','.join(columns)}\n{','.join(columns.values())}\n")
    return match_columns(app(parameter), desk.read()).get(parameter["name"])


@pytest.mark.parametrize(
    ("parameter", "columns", "column"),
    [
        (image("Front"), {"Front": URL, "front_image": URL}, "Front"),
        (image("Front"), {"front": URL, "front_url": URL}, "front"),
        (image("Front"), {"front_image_url": URL, "sku": "1"}, "front_image_url"),
        (image("Front"), {"frontImageUrl": URL}, "frontImageUrl"),
        (image("Your Product Image"), {"product_image_url": URL, "sku": "1"}, None),  # that is any picture at all
        (image("Product Image"), {"product_image_url": URL, "model_image_url": URL}, "product_image_url"),
        (image("Front"), {"front_url": URL, "front_photo": URL}, None),  # which of the two?
        (image("Front"), {"front": "yes"}, None),  # no address stands in it
        (image("Front"), {"front": ""}, None),
        (text("Prompt"), {"prompt": "in the park"}, "prompt"),
        (text("Prompt"), {"prompt_url": URL}, None),
        (options("Model  Gender", "Female", "Male"), {"gender": "male"}, "gender"),
        (options("Gender", "Female", "Male"), {"model_gender": "Female"}, "model_gender"),
        (text("Title"), {"subtitle": "x", "titles": "y"}, None),
    ],
)
def test_a_column_is_matched_by_its_name_where_that_is_plain(
    desk: Desk, parameter: dict[str, Any], columns: dict[str, str], column: str | None
) -> None:
    found = matched(desk, parameter, **columns)
    assert (None if found is None else found.column) == column


def test_of_two_inputs_that_want_one_column_the_better_match_has_it(desk: Desk) -> None:
    desk.write("rows.csv", f"front_image\n{URL}\n")
    found = match_columns(app(image("Front"), image("Front Image")), desk.read())
    assert {name: match.column for name, match in found.items()} == {"Front Image": "front_image"}
    assert match_columns(app(image("Front Photo"), image("Your Front")), desk.read()) == {}


def test_cells_that_are_no_label_are_mapped_where_one_label_begins_so(desk: Desk) -> None:
    desk.write("rows.csv", "gender\nF\nM\nmale\n\nunisex\n")
    found = match_columns(app(options("Gender", "Female", "Male")), desk.read())
    assert found == {"Gender": ColumnMatch(column="gender", map={"F": "Female", "M": "Male", "unisex": FILL_IN})}
    desk.write("rows.csv", "gender\n" + "".join(f"word {n}\n" for n in range(13)))
    assert match_columns(app(options("Gender", "Female", "Male")), desk.read()) == {}


@pytest.mark.parametrize(("cell", "split"), [(f"{URL}|{URL}", "|"), (f"{URL}; {URL}", ";"), (URL, None)])
def test_several_addresses_in_a_cell_are_parted(desk: Desk, cell: str, split: str | None) -> None:
    desk.write("rows.csv", f"sku,mood_urls\n1,{cell}\n2,\n")
    found = match_columns(app(image("Mood", multiple=True)), desk.read())
    assert found["Mood"] == ColumnMatch(column="mood_urls", split=split, blank=1)


@pytest.mark.parametrize(
    ("rows", "key"),
    [
        ("title,ean,sku\na,1,1\nb,2,2\n", "sku"),
        ("title,ean,sku\na,1,1\nb,2,1\n", "ean"),
        ("title,Article No\na,1\nb,2\n", "Article No"),
        ("title,sku\na,1\nb,\n", None),
        ("title,price\na,1\nb,2\n", None),
    ],
)
def test_the_key_is_guessed_where_a_column_is_called_so_and_can_be_one(desk: Desk, rows: str, key: str | None) -> None:
    desk.write("rows.csv", rows)
    assert guess_key(desk.read()) == key


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ("title,sku\na,1\nb,2\nc,1\nd,1\n", "sku holds '1' more than once: in the rows 2 and 4 and 1 more"),
        ("title,sku\na,1\nb,\n", "sku is blank in row 3"),
        ("title,price\na,1\nb,2\n", None),
    ],
)
def test_why_a_column_that_is_called_like_a_key_is_none_is_said(desk: Desk, rows: str, why: str | None) -> None:
    desk.write("rows.csv", rows)
    assert explain_missing_key(desk.read()) == why


# -- the file


def started(folder: Path, pin: Pin, rows: Path | None, name: str = "catalog.yaml") -> str:
    """The text of the pipeline that init writes there."""
    made = draft(pin, folder / name, name=None, rows=None if rows is None else str(rows))
    refuse_existing_files(made, pin)
    write_files(made, pin)
    assert all(f"{place.rpartition('.')[2]}: " in pipeline_text(made) for place in made.open)
    assert bool(made.open) == (f"{FILL_IN}}}" in pipeline_text(made) or f"key: {FILL_IN}" in pipeline_text(made))
    return (folder / name).read_text(encoding="utf-8")


#: The six recipes: the rows, and what a person who knows the catalog fills in
FILLED = {
    "product_shots": ("beauty-*.csv", {"  Product: {column": "name", "Your Product: {column": "packshot_url"}),
    "premium_catalog": ("apparel.csv", {}),
    "swift_catalog": (
        "knitwear-supplier.csv",
        {"key": "Artikelnummer", "Front: {column": "Bild vorne", "Back: {column": "Bild hinten"},
    ),
    "product_try_on": ("accessories.tsv", {"key": "[style, colour_code]", "Shoes": "Footwear"}),
    "eyewear_video": ("eyewear.ndjson", {"Side: {column": "temple_url, blank: skip_row"}),
    "performance_video": (
        "apparel.parquet",
        {"Product Images: {column": "front_image_url", "Headline: {column": "title"},
    ),
}


@pytest.mark.parametrize("recipe", FILLED)
def test_for_each_of_the_six_apps_only_what_is_marked_has_to_be_filled_in(tmp_path: Path, recipe: str) -> None:
    rows, filled = FILLED[recipe]
    shipped = load_pipeline(ROOT / "pipelines" / f"{recipe}.yaml", environ={}, today=date(2026, 1, 31))
    assert shipped.schema_options.pin is not None
    pin = read_pin(shipped.schema_options.pin)
    body = started(tmp_path, pin, ROOT / "sample_data" / rows)
    file = tmp_path / "catalog.yaml"

    def valid() -> tuple[int, int]:
        pipeline = load_pipeline(file, environ={}, today=date(2026, 1, 31))
        checked = check_rows(map_rows(read_catalog(pipeline), pipeline, pin.app), pipeline, pin.app, service="sandbox")
        return int(checked.jobs["valid"].sum()), checked.jobs.height

    if filled:
        with pytest.raises(UsageError, match=FILL_IN):
            valid()
    for place, value in filled.items():
        assert f"{place}: {FILL_IN}" in body
        body = body.replace(f"{place}: {FILL_IN}", f"{place}: {value}")
    file.write_text(body, encoding="utf-8")
    good, jobs = valid()
    assert 0 < good <= jobs
    assert good == jobs or recipe == "swift_catalog"  # whose bad rows are the supplier's


def test_an_open_picture_is_an_error_and_what_may_stay_away_a_comment(tmp_path: Path) -> None:
    shop = app(image("Front", default=STOCK), image("Logo"), text("Prompt"), options("Style", "A", "B", required=True))
    pin = take_pin(shop, "an-app", taken_from="https://lamina.example", at=datetime(2026, 3, 31, tzinfo=UTC))
    (tmp_path / "rows.csv").write_text("sku,colour\n1,red\n")
    body = started(tmp_path, pin, tmp_path / "rows.csv")
    assert [line.strip() for line in body.splitlines() if FILL_IN in line and not line.startswith("#")] == [
        "Front: {column: FILL_IN}",
        "Style: {column: FILL_IN}",
    ]
    assert "  # Logo: {column: name_of_a_column}\n" in body
    assert "  # Prompt: {column: name_of_a_column}\n" in body
    assert "sandbox's stand-in" not in body


def test_without_rows_each_input_has_a_column_in_a_sheet_to_fill(tmp_path: Path) -> None:
    shop = app(image("Front", default=STOCK), image("Logo"), options("Model  Body", "Standard ", "Plus Size"))
    pin = take_pin(shop, "an-app", taken_from="sandbox", at=datetime(2026, 3, 31, tzinfo=UTC))
    body = started(tmp_path, pin, None)
    assert "  from: catalog.xlsx\n  key: sku\n" in body
    assert "  Front: {column: Front}\n" in body
    assert "  Logo: {column: Logo, blank: app_default}\n" in body
    assert '  "Model  Body": {column: Model Body}\n' in body
    assert FILL_IN not in body.replace(f"# {FILL_IN} marks", "")


def test_nothing_that_is_there_is_lost(tmp_path: Path) -> None:
    at = datetime(2026, 3, 31, tzinfo=UTC)
    pin = take_pin(app(text("Prompt")), "an-app", taken_from="https://lamina.example", at=at)
    (tmp_path / "rows.csv").write_text("sku,prompt\n1,red\n")
    started(tmp_path, pin, tmp_path / "rows.csv")
    with pytest.raises(UsageError, match="such a file already"):
        started(tmp_path, pin, tmp_path / "rows.csv")
    # A second pipeline of the same app shares its pin, unless the app has changed under the first one.
    started(tmp_path, pin, tmp_path / "rows.csv", name="second.yaml")
    changed = take_pin(app(text("Prompt", multiple=True)), "an-app", taken_from="https://lamina.example", at=at)
    with pytest.raises(UsageError, match="the app has changed since"):
        started(tmp_path, changed, tmp_path / "rows.csv", name="third.yaml")
    assert not (tmp_path / "third.yaml").exists()
    stand_in = take_pin(app(text("Prompt")), "an-app", taken_from="sandbox", at=at)
    with pytest.raises(UsageError, match="a pin of the real app"):
        started(tmp_path, stand_in, tmp_path / "rows.csv", name="third.yaml")
    (tmp_path / "sheet.xlsx").write_bytes(b"theirs")
    with pytest.raises(UsageError, match="such a file already"):
        started(tmp_path, pin, None, name="sheet.yaml")


def test_rows_that_cannot_be_read_are_an_error_of_theirs(tmp_path: Path) -> None:
    pin = take_pin(app(text("Prompt")), "an-app", taken_from="x", at=datetime(2026, 3, 31, tzinfo=UTC))
    with pytest.raises(CatalogError, match="nowhere"):
        draft(pin, tmp_path / "a.yaml", name=None, rows=str(tmp_path / "nowhere.csv"))
    (tmp_path / "utf16.csv").write_bytes("sku,prompt\n1,rosé\n".encode("utf-16"))
    assert draft(pin, tmp_path / "a.yaml", name=None, rows=str(tmp_path / "utf16.csv")).encoding == "utf-16"


def test_a_workbook_with_a_title_above_its_table(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.create_sheet("Shoes")
    for line in (["Spring, by Ann"], [], ["Season", "SKU *", "Front URL"], ["26", "001", URL], ["26", "002", URL]):
        book["Shoes"].append(line)
    book.save(tmp_path / "rows.xlsx")
    pin = take_pin(app(image("Front")), "an-app", taken_from="x", at=datetime(2026, 3, 31, tzinfo=UTC))
    body = started(tmp_path, pin, tmp_path / "rows.xlsx#Shoes")
    assert '  from: "rows.xlsx#Shoes"\n  key: "SKU *"\n' in body
    assert "  Front: {column: Front URL}\n" in body
    pipeline = load_pipeline(tmp_path / "catalog.yaml", environ={}, today=date(2026, 1, 31))
    mapped = map_rows(read_catalog(pipeline), pipeline, pin.app)
    assert check_rows(mapped, pipeline, pin.app, service="x").jobs["valid"].to_list() == [True, True]


def test_names_of_files() -> None:
    assert default_name(app(), None) == "catalog-maker"
    assert default_name(app(), "data/Spring 26.xlsx#Shoes") == "spring-26"


@given(st.text(min_size=1).filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text)), st.booleans())
def test_any_text_reads_back_from_the_file(words: str, key: bool) -> None:
    """Names and labels of the service and headers of catalogs hold anything."""
    line = f"a: {{{scalar(words, key=True)}: x}}" if key else f"a: {{b: {scalar(words)}}}"
    tree = parse_yaml(line, name="file")
    assert isinstance(tree, MappingNode)
    inner = tree.entries["a"]
    assert isinstance(inner, MappingNode)
    if key:
        assert list(inner.entries) == [words]
    else:
        node = inner.entries["b"]
        assert isinstance(node, ScalarNode)
        assert substitute_variables(node.text, {}) == words


def test_what_the_service_says_never_becomes_a_line_of_the_file(tmp_path: Path) -> None:
    evil = "x\ninputs: {A: {value: b}}\x1b[2J\u2028\u009b"
    parameter = {"name": evil, "type": evil, "accept": [evil], "options": [evil], "default": evil, "description": evil}
    harm = parse_app({"appId": "an-app", "name": evil, "description": evil, "parameters": [parameter, text("Prompt")]})
    pin = take_pin(harm, "an-app", taken_from="x", at=datetime(2026, 3, 31, tzinfo=UTC))
    (tmp_path / "rows.csv").write_text("sku,prompt\n1,red\n")
    body = started(tmp_path, pin, tmp_path / "rows.csv")
    pipeline = load_pipeline(tmp_path / "catalog.yaml", environ={}, today=date(2026, 1, 31))
    assert [rule.parameter for rule in pipeline.inputs] == ["Prompt"]
    assert all(line.isprintable() for line in body.splitlines())


def test_the_schema_for_editors_stands_where_the_first_line_says(tmp_path: Path) -> None:
    pin = take_pin(app(text("Prompt")), "an-app", taken_from="x", at=datetime(2026, 3, 31, tzinfo=UTC))
    body = started(tmp_path, pin, None)
    named = body.splitlines()[0].partition("$schema=")[2]
    schema = json.loads((tmp_path / named).read_text(encoding="utf-8"))
    assert list(schema["properties"]["inputs"]["properties"]) == ["Prompt"]
