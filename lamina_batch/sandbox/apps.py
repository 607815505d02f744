"""The apps that the sandbox serves: apps.json, or a file of the same form that a developer wrote."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal, get_args

from lamina_batch.sandbox.api_versions import DetailsForm

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

#: how durations are spread
DurationShape = Literal["lognormal", "uniform", "bimodal"]

OutputKind = Literal["image", "video", "text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxParameter:
    """What decides whether an input is valid (docs/lamina-api.md, "Parameters")."""

    name: str
    #: the author's alias for the name, which the runs generation takes as well (docs/lamina-api.md,
    #: "Inputs and app fields of runs")
    key: str
    parameter_id: str | None
    type: Literal["text", "options", "url"]
    required: bool
    options: tuple[str, ...]
    default: object
    multiple: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOutput:
    """A node whose result comes back. Its id is the node's (docs/lamina-api.md, "Get workflow")."""

    output_id: str
    label: str
    kind: OutputKind


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxApp:
    """An app that the sandbox serves."""

    app_id: str
    name: str
    description: str | None
    is_public: bool
    parameters: tuple[SandboxParameter, ...]
    outputs: tuple[SandboxOutput, ...]
    #: what is served of the parameters: exactly what was written, or the form of the runs generation
    served_parameters: tuple[Mapping[str, Any], ...]
    #: how the runs generation writes what is wrong with inputs
    details_form: DetailsForm
    #: the nodes and edges of the workflow as served
    workflow: Mapping[str, Any]
    #: durations lie around this many seconds ...
    median_seconds: float
    #: ... lognormally, with this spread; 0: all the same
    sigma: float
    #: ... or uniformly, or most of them there and some ten times as long
    shape: DurationShape = "lognormal"


def load_apps(path: Path | None, *, runs: bool = False) -> dict[str, SandboxApp]:
    """The apps by id, in the file's order. `runs`: as the runs generation has them.

    Raises ValueError that names the file, the app and what is wrong.
    """
    if path is None:
        return _parse(
            resources.files("lamina_batch.sandbox").joinpath("apps.json").read_bytes(), "apps.json", runs=runs
        )
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: the file of apps cannot be read: {error.strerror}") from error
    return _parse(text, str(path), runs=runs)


def _parse(text: bytes, where: str, *, runs: bool) -> dict[str, SandboxApp]:
    try:
        listed = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where}: not JSON: {error}") from error
    if not isinstance(listed, list) or not listed:
        raise ValueError(f"{where}: a list of apps is expected; docs/sandbox.md shows one")
    apps: dict[str, SandboxApp] = {}
    for number, entry in enumerate(listed, start=1):
        try:
            app = _app(entry, number=number, runs=runs)
        except KeyError as error:
            raise ValueError(f"{where}: app {number}: {error.args[0]} is missing") from error
        except (TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{where}: app {number}: {error}") from error
        if app.app_id in apps:
            raise ValueError(f"{where}: app {number}: the appId {app.app_id} stands there twice")
        apps[app.app_id] = app
    return apps


def _app(entry: Mapping[str, Any], *, number: int, runs: bool) -> SandboxApp:
    # The workflow labels a node with its type; the label that people know comes with the output (docs/lamina-api.md,
    # "Get workflow" and "Start execution").
    nodes = [{"id": str(node["id"]), "type": str(node["type"]), "label": str(node["type"])} for node in entry["nodes"]]
    outputs = tuple(_output(node) for node in entry["nodes"] if node["output"] is not None)
    if not outputs:
        raise ValueError("no node has an output, so that nothing would ever come back")
    if len({output.output_id for output in outputs}) < len(outputs):
        raise ValueError("two nodes share an id")
    parameters = tuple(_parameter(parameter, key) for parameter, key in _with_keys(entry["parameters"]))
    served: tuple[Mapping[str, Any], ...] = tuple(entry["parameters"])
    of_runs = _runs_section(entry, parameters)
    if runs:
        parameters = tuple(_runs_parameter(parameter, of_runs.get("defaults", {})) for parameter in parameters)
        served = tuple(
            _runs_parameter_body(written, parameter) for written, parameter in zip(served, parameters, strict=True)
        )
    return SandboxApp(
        app_id=str(entry["appId"]),
        name=str(entry["name"]),
        description=_description(entry),
        is_public=bool(entry.get("isPublic", True)),
        parameters=parameters,
        outputs=outputs,
        served_parameters=served,
        # The sources disagree, so the apps do: by turns, unless the file says which.
        details_form=of_runs.get("details", "array" if number % 2 else "nested"),
        workflow={"nodes": nodes, "edges": list(entry.get("edges", ()))},
        median_seconds=float(entry["seconds"]["median"]),
        sigma=float(entry["seconds"]["sigma"]),
        shape=_shape(entry["seconds"].get("shape", "lognormal")),
    )


def _shape(written: object) -> DurationShape:
    shapes: tuple[DurationShape, ...] = get_args(DurationShape)
    for shape in shapes:
        if written == shape:
            return shape
    raise ValueError(f"seconds: shape is {' or '.join(shapes)}, not {written!r}")


def _runs_section(entry: Mapping[str, Any], parameters: tuple[SandboxParameter, ...]) -> Mapping[str, Any]:
    """What an app says of the runs generation alone."""
    section: Mapping[str, Any] = entry.get("runs", {})
    if unknown := set(section) - {"defaults", "details"}:
        raise ValueError(f"runs: it takes defaults and details, not {min(unknown)!r}")
    if unknown := set(section.get("defaults", {})) - {parameter.name for parameter in parameters}:
        raise ValueError(f"runs: defaults: no parameter has the name {min(unknown)!r}")
    if section.get("details", "array") not in get_args(DetailsForm):
        raise ValueError(f"runs: details is array or nested, not {section['details']!r}")
    return section


def _with_keys(entries: list[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Each parameter with its key: the one that is written, else one as the service's authors make them
    (docs/lamina-api.md, "Known apps").
    """
    seen: Counter[str] = Counter()
    for entry in entries:
        key = entry.get("key") or _default_key(entry)
        seen[key] += 1
        yield entry, key if seen[key] == 1 else f"{key}_{seen[key]}"


def _default_key(entry: Mapping[str, Any]) -> str:
    words = re.sub("[^a-z0-9]+", "_", str(entry["name"]).lower()).strip("_") or "input"
    if entry["type"] != "url":
        return f"{words}_text"
    if entry.get("multiple"):
        return f"{words}_urls"
    return f"{words}_video_url" if entry.get("accept") == ["video"] else f"{words}_image_url"


def _runs_parameter(parameter: SandboxParameter, defaults: Mapping[str, Any]) -> SandboxParameter:
    """Each is required: what may be left out is what has a default (docs/lamina-api.md, "Required and default")."""
    return replace(parameter, required=True, default=defaults.get(parameter.name, parameter.default))


def _runs_parameter_body(written: Mapping[str, Any], parameter: SandboxParameter) -> Mapping[str, Any]:
    default = {} if parameter.default is None else {"default": parameter.default}
    return {
        **written,
        "key": parameter.key,
        "required": True,
        "multiple": parameter.multiple,
        "description": written.get("description"),
        **default,
    }


def _description(entry: Mapping[str, Any]) -> str | None:
    description: str | None = entry.get("description")
    if not entry.get("standIn"):
        return description
    return f"{description} ({_STAND_IN})" if description else f"({_STAND_IN})"


_STAND_IN = "sandbox: the real list of parameters is not public, this one is a plausible stand-in"


def _parameter(entry: Mapping[str, Any], key: str) -> SandboxParameter:
    if entry["type"] not in {"text", "options", "url"}:
        raise ValueError(f"parameter {entry['name']!r}: the type is text, options or url, not {entry['type']!r}")
    if entry["type"] == "options" and not entry.get("options"):
        raise ValueError(f"parameter {entry['name']!r}: options are missing")
    return SandboxParameter(
        name=entry["name"],
        key=key,
        parameter_id=entry.get("id"),
        type=entry["type"],
        required=entry["required"] is True,
        options=tuple(entry.get("options", ())),
        default=entry.get("default"),
        multiple=entry.get("multiple") is True,
    )


def _output(node: Mapping[str, Any]) -> SandboxOutput:
    if node["output"] not in get_args(OutputKind):
        raise ValueError(f"node {node['id']!r}: output is image, video, text or null, not {node['output']!r}")
    if "/" in node["id"]:
        raise ValueError(f"node {node['id']!r}: an id cannot hold a slash, it is part of the output's URL")
    return SandboxOutput(output_id=node["id"], label=node["label"], kind=node["output"])
