"""The examples that ship: the sandbox's apps and clips, the sample catalogs and the six pipelines."""

from __future__ import annotations

import json
import re
import uuid
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from lamina_batch.apps.app import App, parse_app
from lamina_batch.catalog.check_rows import CheckedRows, check_rows
from lamina_batch.catalog.mapping import map_rows
from lamina_batch.pipeline.load import load_pipeline
from lamina_batch.pipeline.names import normalise_name
from lamina_batch.sandbox.apps import load_apps
from lamina_batch.sources.read_catalog import read_catalog

if TYPE_CHECKING:
    from lamina_batch.pipeline.spec import Pipeline

ROOT = Path(__file__).parents[2]
SANDBOX = ROOT / "lamina_batch" / "sandbox"
SAMPLES = ROOT / "sample_data"
APPS: dict[str, dict[str, Any]] = {app["appId"]: app for app in json.loads((SANDBOX / "apps.json").read_bytes())}

#: docs/recipes.md, "Recipes": the pipeline, its app's id and the app's name
RECIPES = {
    "product_shots": ("ec7ec3ce-69b4-43c9-8eea-fe9752d679a4", "Product Shots with Mood Board"),
    "premium_catalog": ("bbb17293-5fe7-4645-8c6e-0745bc28254d", "Premium Catalog 1.0"),
    "swift_catalog": ("de5cca6b-73aa-4e27-a714-3339024db15d", "Swift Catalog Generation"),
    "product_try_on": ("a76e85ec-20b4-4fbc-99ad-055423a868a2", "Product Try on"),
    "eyewear_video": ("1afc70fd-cb66-4f44-847d-bdaf7e237be4", "Eyewear Shoot (Multi-Shot 21s Video)"),
    "performance_video": ("ec9b3525-4b72-4083-a6cb-00371672e128", "Performance Marketing Video (V3) Sample"),
}
FULL_SET = "173692dd-0258-41bd-8a56-2cf9bbe89910"
CARTOONIFY = "3f68debe-df0a-4fc9-bdd3-9d45a4160587"
TEST_SYNC = "80d4d454-8844-489f-b903-2ad65a414482"


def shipped(recipe: str, *overrides: str) -> Pipeline:
    file = ROOT / "pipelines" / f"{recipe}.yaml"
    return load_pipeline(file, overrides=overrides, environ={}, today=date(2026, 5, 1))


def served(app_id: str) -> App:
    entry = APPS[app_id]
    return parse_app({key: entry[key] for key in ("appId", "name", "description", "parameters")})


def checked(pipeline: Pipeline) -> CheckedRows:
    app = served(pipeline.app)
    return check_rows(map_rows(read_catalog(pipeline), pipeline, app), pipeline, app, service="sandbox")


def inputs_of(rows: CheckedRows) -> list[str]:
    """What is sent, of each job."""
    return rows.with_inputs(rows.jobs)["inputs"].to_list()


# --- the apps


def test_apps_are_the_six_recipes_and_those_that_are_published() -> None:
    names = {app_id: app["name"] for app_id, app in APPS.items()}
    assert names == {
        **dict(RECIPES.values()),
        FULL_SET: "Full Set Catalog Generation",
        CARTOONIFY: "Cartoonify!",
        TEST_SYNC: "test sync",
    }
    assert {app_id for app_id, app in APPS.items() if not app["standIn"]} == {FULL_SET, CARTOONIFY}


def test_the_sandbox_can_load_them_in_the_files_order() -> None:
    assert list(load_apps(None)) == list(APPS)


@pytest.mark.parametrize("app", APPS.values(), ids=lambda app: app["name"])
def test_parameters_have_the_form_that_the_service_serves(app: dict[str, Any]) -> None:
    names = [parameter["name"] for parameter in app["parameters"]]
    assert len(set(names)) == len(names)
    for parameter in app["parameters"]:
        uuid.UUID(parameter["id"])
        default = parameter.get("default")
        match parameter["type"]:
            case "url":
                assert set(parameter["accept"]) <= {"image", "video"}
                for address in default if isinstance(default, list) else [default] if default else []:
                    assert re.fullmatch(r"https://media\.getmason\.io/api/assetlib/[0-9a-f-]{36}\.(png|jpg)", address)
            case "options":
                assert len(set(parameter["options"])) == len(parameter["options"])
                assert default is None or default in parameter["options"]
            case kind:
                assert kind == "text"
                assert default is None or isinstance(default, str)
        assert isinstance(parameter["required"], bool)
        known = {"id", "name", "type", "required", "accept", "options", "multiple", "default"}
        assert set(parameter) <= known


@pytest.mark.parametrize("app", APPS.values(), ids=lambda app: app["name"])
def test_nodes_have_ids_of_their_type_and_edges_join_them(app: dict[str, Any]) -> None:
    ids = [node["id"] for node in app["nodes"]]
    assert len(set(ids)) == len(ids)
    for node in app["nodes"]:
        assert re.fullmatch(rf"{node['type']}-\d{{13}}-[0-9a-z]{{9}}", node["id"])
        assert node["output"] in {"image", "video", "text", None}
    assert any(node["output"] for node in app["nodes"])
    assert all({edge["source"], edge["target"]} <= set(ids) for edge in app["edges"])
    makes_films = any(node["output"] == "video" for node in app["nodes"])
    assert app["seconds"]["median"] == (150 if makes_films else 20)


def test_premium_catalog_has_the_parameters_of_the_designs_example() -> None:
    parameters = {parameter.name: parameter.options for parameter in served(RECIPES["premium_catalog"][0]).parameters}
    assert set(parameters) == {"Front", "Back", "Model Gender", "Prompt", "Style", "Aspect Ratio", "Location"}
    assert parameters["Location"] == ("Studio", "Urban", "Park")
    assert parameters["Aspect Ratio"] == ("1:1", "4:5", "3:4", "16:9", "9:16")


def test_full_set_catalog_keeps_the_odd_spaces_of_the_real_app() -> None:
    """docs/lamina-api.md, "Names and labels": two spaces in a name, a space at the end of two labels."""
    app = served(FULL_SET)
    assert [(parameter.name, parameter.options) for parameter in app.parameters] == [
        ("Front", ()),
        ("Back", ()),
        ("Model Gender", ("Male", "Female")),
        (
            "Model  Ethnicity",
            ("Caucasian", "Asian", "African", "Latin American", "South Asian", "Middle Eastern"),
        ),
        ("Model Body type", ("Standard ", "Plus Size", "Muscular")),
        ("Model Hair color", ("Blonde", "Black", "Brunette", "Red hair", "Ginger", "White")),
        ("Model Hair Style", ("Straight ", "Curly")),
    ]
    assert [parameter.default for parameter in app.parameters[:2]] == [
        "https://media.getmason.io/api/assetlib/1b2854fd-e126-4096-9bb0-050583d36ed5.jpg",
        "https://media.getmason.io/api/assetlib/d81ce1a8-4a36-4fcd-b506-3a852670104f.jpg",
    ]
    assert not any(parameter.required for parameter in app.parameters)


def test_cartoonify_is_served_as_the_vendor_shows_it() -> None:
    """docs/lamina-api.md, "Get app"."""
    assert APPS[CARTOONIFY]["parameters"] == [
        {
            "id": "4a45d4c6-808e-45e8-9f7c-6a06953583fb",
            "name": "Upload",
            "type": "url",
            "required": False,
            "accept": ["image"],
            "default": "https://media.getmason.io/api/assetlib/55e99714-d15d-43fe-9e9b-ead418b7ba67.png",
        },
        {
            "id": "1977e11b-d91b-4f65-802c-b37b597fa8d9",
            "name": "Style",
            "type": "options",
            "required": False,
            "options": ["Ghibli", "Simpsons", "Disney / Pixar", "Cyberpunk"],
        },
        {
            "id": "5c237908-e6ed-4d4b-bd1d-6253bf60a8a5",
            "name": "Aspect Ratio",
            "type": "options",
            "required": False,
            "options": ["1:1", "4:3", "3:4", "16:9", "9:16"],
            "default": "1:1",
        },
    ]


def test_test_sync_has_two_outputs_of_one_label_and_a_node_without_output() -> None:
    """docs/lamina-api.md, "Get workflow" and "Start execution"."""
    app = APPS[TEST_SYNC]
    assert [(node["id"], node["label"]) for node in app["nodes"] if node["output"]] == [
        ("aiDesignerNode-1773051929782-5yzqjkwpm", "AI Designer"),
        ("aiDesignerNode-1773132653203-v9hn959pe", "AI Designer"),
    ]
    assert [node["id"] for node in app["nodes"] if not node["output"]] == ["klingVideoNode-1773149496212-nm2mjjfxi"]
    assert app["edges"] == [
        {
            "source": "aiDesignerNode-1773051929782-5yzqjkwpm",
            "target": "aiDesignerNode-1773132653203-v9hn959pe",
        }
    ]


# --- the clips


@pytest.mark.parametrize("clip", sorted((SANDBOX / "clips").iterdir()), ids=lambda clip: clip.name)
def test_clips_are_small_films_that_play_before_they_are_whole(clip: Path) -> None:
    content = clip.read_bytes()
    assert len(content) < 40_000
    assert content[4:8] == b"ftyp"
    assert b"avc1" in content, "H.264"
    # "faststart": the index stands before the pictures.
    assert 0 < content.index(b"moov") < content.index(b"mdat")


# --- the catalogs


def test_apparel_is_the_same_in_csv_and_parquet() -> None:
    text = pl.read_csv(SAMPLES / "apparel.csv", infer_schema=False)
    typed = pl.read_parquet(SAMPLES / "apparel.parquet")
    assert text.columns == typed.columns
    casts = [pl.col(name).cast(typed.schema[name]) for name in ("price", "stock")]
    assert text.with_columns(*casts, pl.col("launch_date").str.to_date()).equals(typed)


def test_apparel_is_as_awkward_as_a_real_export() -> None:
    """What the end-to-end tests rely on, so that a tidied file does not quietly test less."""
    frame = pl.read_csv(SAMPLES / "apparel.csv", infer_schema=False)
    assert len(frame) >= 36
    assert frame["sku"].is_unique().all()
    assert frame["sku"].str.starts_with("00").all()
    text = (SAMPLES / "apparel.csv").read_text(encoding="utf-8")
    assert '""' in text, "a quoted quote"
    assert frame["title"].str.contains(",").any()
    assert frame["description"].str.contains("\n").any()
    assert frame["title"].str.contains(r"[^\x00-\x7F]").any()
    for column in ("colour", "gender", "back_image_url"):
        assert frame[column].is_null().any(), column


def test_the_suppliers_file_is_neither_utf8_nor_unix() -> None:
    content = (SAMPLES / "knitwear-supplier.csv").read_bytes()
    assert content.count(b"\n") == content.count(b"\r\n") == 27
    with pytest.raises(UnicodeDecodeError):
        content.decode()
    assert "Weiß" in content.decode("cp1252")


# --- the pipelines


def test_every_recipe_has_a_pipeline_and_a_section_in_the_docs() -> None:
    assert {file.stem for file in (ROOT / "pipelines").glob("*.yaml")} == set(RECIPES)
    recipes = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for recipe, (app_id, name) in RECIPES.items():
        assert f"App `{app_id}`, {name} (stand-in list)." in recipes
        assert f"run pipelines/{recipe}.yaml --sandbox" in re.sub(" +", " ", recipes)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_pipeline_names_its_app_its_sources_and_parameters_that_exist(recipe: str) -> None:
    pipeline = shipped(recipe)
    assert pipeline.app == RECIPES[recipe][0]
    for source in pipeline.rows.sources:
        assert sorted(Path("/").glob(source.removeprefix("/"))), source
    parameters = {normalise_name(parameter.name): parameter for parameter in served(pipeline.app).parameters}
    used = {normalise_name(rule.parameter) for rule in pipeline.inputs} | {
        normalise_name(name) for name in pipeline.matrix
    }
    assert used <= set(parameters)
    assert {name for name, parameter in parameters.items() if parameter.must_supply} <= used
    for name, labels in pipeline.matrix.items():
        assert set(labels) <= set(parameters[normalise_name(name)].options)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_pipeline_starts_with_the_line_that_editors_need(recipe: str) -> None:
    lines = (ROOT / "pipelines" / f"{recipe}.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# yaml-language-server: $schema=../schemas/pipeline.schema.json"
    assert (ROOT / "schemas" / "pipeline.schema.json").is_file()


@pytest.mark.parametrize("recipe", RECIPES)
def test_results_stand_in_the_out_folder_under_the_pipelines_name(recipe: str) -> None:
    pipeline = shipped(recipe)
    assert pipeline.name == recipe.replace("_", "-")
    for manifest in pipeline.results.manifest:
        assert (manifest.parent, manifest.stem) == (ROOT / "out", pipeline.name)


# --- the rows of the pipelines, as docs/recipes.md counts them


@pytest.mark.parametrize(
    ("recipe", "jobs", "contents"),
    [
        ("product_shots", 19, 18),
        ("premium_catalog", 68, 68),
        ("product_try_on", 34, 34),
        ("eyewear_video", 10, 10),
        ("performance_video", 16, 16),
    ],
)
def test_every_row_of_the_other_five_is_good(recipe: str, jobs: int, contents: int) -> None:
    rows = checked(shipped(recipe))
    assert rows.findings.is_empty()
    assert rows.notes == ()
    assert (rows.jobs.height, rows.jobs["content"].n_unique()) == (jobs, contents)


def test_the_parquet_twin_of_the_apparel_buys_nothing_again() -> None:
    twin = shipped("premium_catalog", "rows.from=../sample_data/apparel.parquet")
    assert checked(twin).jobs.equals(checked(shipped("premium_catalog")).jobs)


def test_a_garment_without_a_back_sends_a_shorter_list_of_pictures() -> None:
    inputs = [json.loads(text) for text in inputs_of(checked(shipped("performance_video")))]
    backless = [job for job in inputs if "Positano" in job["Headline"]]
    assert {job["Product Images"] for job in backless} == {"https://images.example.com/apparel/00507_front.jpg"}
    assert all(len(job["Product Images"]) == 2 for job in inputs if job not in backless)


def test_the_label_no_stays_text() -> None:
    assert {json.loads(text)["Captions"] for text in inputs_of(checked(shipped("performance_video")))} == {"No"}


def test_each_bad_cell_of_the_suppliers_file_is_named() -> None:
    """The rows that sample_data/README.md lists, and no others; the rest is sent in the app's own spelling."""
    rows = checked(shipped("swift_catalog"))
    findings = rows.findings.select("row", "column", "value", "code", "severity")
    assert findings.filter(severity="error").drop("severity").rows() == [
        ("10", "Model Figur", "Plus-Size", "invalid_option"),
        ("12", "Geschlecht", "Kinder", "invalid_option"),
        ("13", "Bild vorne", "", "blank_image"),
        ("14", "Bild vorne", "IMG_4471.JPG", "invalid_url"),
        ("14", "Bild hinten", "IMG_4472.JPG", "invalid_url"),
        ("17", "Artikelnummer", "GS-0430/01", "duplicate_key"),
        ("18", "Artikelnummer", "GS-0430/01", "duplicate_key"),
        ("19", "Artikelnummer", "", "blank_key"),
        ("22", "Bild vorne", "ftp://bilder.example.com/strick/gs-0435-01_v.jpg", "invalid_url"),
        ("26", "Geschlecht", "Unisex", "invalid_option"),
        ("26", "Model Typ", "Kaukasisch", "invalid_option"),
        ("26", "Model Figur", "Standart", "invalid_option"),
    ]
    (near,) = rows.findings.filter(value="Plus-Size")["hint"]
    assert near.startswith("did you mean 'Plus Size'?")
    good = rows.with_inputs(rows.jobs).filter("valid")
    assert (rows.jobs.height, good.height) == (25, 16)
    twins = good.filter(key="GS-0437/01")
    assert twins["row"].to_list() == [24, 25]
    assert twins["content"].n_unique() == 1
    body_types = {json.loads(text)["Model Body type"] for text in good["inputs"]}
    assert body_types == {"Standard ", "Plus Size", "Muscular"}
    ethnicities = {json.loads(text)["Model  Ethnicity"] for text in good["inputs"]}
    assert "Latin American" in ethnicities
