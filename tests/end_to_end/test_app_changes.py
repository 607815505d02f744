"""An app that changes between two runs: the service is a sandbox process that is stopped and served anew."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest
from process import APP, PATIENCE, Cli, Service, environment, lasting_port, row, stopping, write_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

App = dict[str, Any]


class Shop:
    """A service whose author is at work. It stays where it is and keeps what it accepted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "service"
        self.port = lasting_port()
        shipped = json.loads(files("lamina_batch").joinpath("sandbox/apps.json").read_text(encoding="utf-8"))
        self.app: App = next(app for app in shipped if app["appId"] == APP)

    def parameter(self, name: str) -> App:
        found: App = next(p for p in self.app["parameters"] if p["name"] == name)
        return found

    @contextmanager
    def open(self) -> Iterator[Cli]:
        """The command line, told of the service with the app as it is now."""
        apps = self.folder / "apps-of-the-service.json"
        apps.write_text(json.dumps([self.app]), encoding="utf-8")
        options = (
            "--apps",
            str(apps),
            "--data",
            str(self.data),
            "--limit",
            "100000",
            "--window",
            "3",
            "--speed",
            "100",
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "lamina_batch", "sandbox", "--port", str(self.port), *options],
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        with stopping(process):
            assert process.stderr is not None
            url = process.stderr.readline().split()[-1].rstrip("/")
            assert url.endswith(f":{self.port}"), url
            yield Cli(folder=self.folder, env=environment(LAMINA_API_KEY="lma_test_key_of_nobody", LAMINA_BASE_URL=url))
            process.terminate()
            process.communicate(timeout=PATIENCE)

    @property
    def started(self) -> int:
        return len(Service(url="", data=self.data).accepted)


@pytest.fixture
def shop(project: Path) -> Shop:
    write_rows(project, [row(1), row(2, gender="Male"), row(3)])
    return Shop(project)


def rename_female(shop: Shop) -> None:
    shop.parameter("Model Gender")["options"] = ["Feminine", "Male"]


def test_a_used_label_that_is_gone_stops_every_command_before_it_spends(shop: Shop) -> None:
    """Without a pin, the contract of the last run is what the app is held against."""
    pipeline = shop.folder / "p.yaml"
    with shop.open() as at:
        at("run", "p.yaml")
    assert shop.started == 3
    write_rows(shop.folder, [row(n, **({"gender": "Male"} if n == 2 else {})) for n in range(1, 6)])
    rename_female(shop)
    with shop.open() as at:
        for command in ("run", "validate"):
            ran = at(command, "p.yaml", code=8)
            assert "'Model Gender' has no label 'Female' any more; it is probably 'Feminine' now" in ran.err
            assert "used by inputs.Model Gender.default, rows 2, 4, 5, 6" in ran.err
            assert "--set schema.on_drift=warn" in ran.err
        diff = at("apps", "diff", "p.yaml", code=8)
        assert diff.out.startswith("breaks this pipeline: 'Model Gender' has no label 'Female' any more")
        # Warned of, it goes on, and finds what the mapping finds.
        warned = at("run", "p.yaml", "--set", "schema.on_drift=warn", code=2)
        assert "'Female' is not a label of 'Model Gender'" in warned.err
        assert shop.started == 3, "nothing was submitted"
        mended = "{column: gender, map: {Female: Feminine}, default: Feminine}"
        text = pipeline.read_text(encoding="utf-8")
        pipeline.write_text(text.replace("{column: gender, default: Female}", mended), encoding="utf-8")
        # What is mended is not broken any more, and after that run nothing is left to say.
        assert "the app has changed since the last run" in at("run", "p.yaml").err
        assert "no changes since the last run" in at("apps", "diff", "p.yaml").err


def test_additive_changes_are_said_and_nothing_is_stopped(shop: Shop) -> None:
    with shop.open() as at:
        at("run", "p.yaml")
    shop.parameter("Location")["options"].append("Beach")
    shop.parameter("Style")["default"] = "Minimal"
    with shop.open() as at:
        ran = at("run", "p.yaml")
        assert "note: the app has changed since the last run: 'Location' has a new label 'Beach'" in ran.err
        assert "the app's own default for 'Style' is \"Minimal\" now, and was none: every row takes it" in ran.err
    assert shop.started == 3


def test_a_contract_is_accepted_once_for_all_with_on_drift_warn(shop: Shop) -> None:
    """What no mending of the pipeline changes: a label of another spacing, with which everything is bought again."""
    with shop.open() as at:
        at("run", "p.yaml")
    shop.parameter("Model Gender")["options"] = ["Female ", "Male"]
    with shop.open() as at:
        assert "it is probably 'Female ' now" in at("run", "p.yaml", code=8).err
        assert shop.started == 3
        at("run", "p.yaml", "--set", "schema.on_drift=warn")
        assert shop.started == 5
        assert "has changed" not in at("plan", "p.yaml").err


def test_a_pin_is_what_the_app_is_held_against(shop: Shop) -> None:
    pin = shop.folder / "schemas" / "apps" / f"{APP}.json"
    pipeline = shop.folder / "p.yaml"
    pipeline.write_text(f"{pipeline.read_text(encoding='utf-8')}schema: {{pin: schemas/apps/{APP}.json}}\n")
    with shop.open() as at:
        assert at("apps", "pin", APP).out == f"schemas/apps/{APP}.json\n"
    taken = json.loads(pin.read_text(encoding="utf-8"))
    assert taken["taken_from"] == f"http://127.0.0.1:{shop.port}"
    assert taken["parameters"] == shop.app["parameters"]

    # Neither a key nor the network: the service is not even up.
    nobody = Cli(folder=shop.folder, env=environment())
    write_rows(shop.folder, [row(1), row(2, gender="F")])
    offline = nobody("validate", "p.yaml", "--offline", code=3)
    assert "checked against the pin of" in offline.err
    assert "'F' is not a label of 'Model Gender'" in offline.out
    write_rows(shop.folder, [row(1)])
    schema = json.loads(nobody("apps", "schema", APP, "--pin", str(pin)).out)
    assert "Model Gender" in schema["properties"]["inputs"]["properties"]

    shop.app["parameters"].append({"name": "Brand", "type": "text", "required": True})
    with shop.open() as at:
        ran = at("run", "p.yaml", code=8)
        assert "the input 'Brand' (text) is new, and must be given" in ran.err
        assert f"lamina-batch apps pin {APP} -o {pin}" in ran.err
        assert "could break a pipeline: the input 'Brand'" in at("apps", "diff", APP, code=8).out
        assert "changed: the input 'Brand' (text) is new, and must be given" in at("apps", "pin", APP).err
        # Accepted, it is an error of the pipeline like any other.
        assert "needs 'Brand'" in at("run", "p.yaml", code=2).err
        text = pipeline.read_text(encoding="utf-8")
        pipeline.write_text(text.replace("inputs:\n", "inputs:\n  Brand: {value: Lumen}\n"), encoding="utf-8")
        at("run", "p.yaml")


def test_a_pin_of_the_stand_in_says_nothing_about_the_real_app(project: Path, at: Cli) -> None:
    with (project / "p.yaml").open("a", encoding="utf-8") as pipeline:
        pipeline.write("schema: {pin: pin.json}\n")
    at("apps", "pin", APP, "-o", "pin.json", "--sandbox")
    refused = at("run", "p.yaml", code=2)
    assert "this pin was taken from the sandbox" in refused.err
    assert f"lamina-batch apps pin {APP} -o {project / 'pin.json'}`" in refused.err
    assert "no changes since the pin" in at("apps", "diff", "p.yaml", "--sandbox").err
