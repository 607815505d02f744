"""The apps that the sandbox serves: apps.json, or a file of the same form that a developer wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OutputKind = Literal["image", "video", "text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """What decides whether an input is valid (API.md 3)."""

    name: str
    type: Literal["text", "options", "url"]
    required: bool
    options: tuple[str, ...]
    default: object
    multiple: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A node whose result comes back. Its id is the node's (API.md 2.3)."""

    output_id: str
    label: str
    kind: OutputKind


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxApp:
    app_id: str
    name: str
    description: str | None
    is_public: bool
    parameters: tuple[Parameter, ...]
    outputs: tuple[Output, ...]
    #: the parameters exactly as written: what is served
    served_parameters: tuple[Mapping[str, Any], ...]
    #: the nodes and edges of the workflow as served
    workflow: Mapping[str, Any]
    #: durations are lognormal around this many seconds ...
    median_seconds: float
    #: ... with this spread; 0: all the same
    sigma: float


def load_apps(path: Path | None) -> dict[str, SandboxApp]:
    """The apps by id, in the file's order. Raises ValueError that names the file, the app and what is wrong."""
    if path is None:
        return _parse(resources.files("lamina_batch.sandbox").joinpath("apps.json").read_bytes(), "apps.json")
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: the file of apps cannot be read: {error.strerror}") from error
    return _parse(text, str(path))


def _parse(text: bytes, where: str) -> dict[str, SandboxApp]:
    try:
        listed = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where}: not JSON: {error}") from error
    if not isinstance(listed, list) or not listed:
        raise ValueError(f"{where}: a list of apps is expected; docs/sandbox.md shows one")
    apps: dict[str, SandboxApp] = {}
    for number, entry in enumerate(listed, start=1):
        try:
            app = _app(entry)
        except KeyError as error:
            raise ValueError(f"{where}: app {number}: {error.args[0]} is missing") from error
        except (TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{where}: app {number}: {error}") from error
        if app.app_id in apps:
            raise ValueError(f"{where}: app {number}: the appId {app.app_id} stands there twice")
        apps[app.app_id] = app
    return apps


def _app(entry: Mapping[str, Any]) -> SandboxApp:
    # The workflow labels a node with its type; the label that people know comes with the output (API.md 2.3, 2.4).
    nodes = [{"id": str(node["id"]), "type": str(node["type"]), "label": str(node["type"])} for node in entry["nodes"]]
    outputs = tuple(_output(node) for node in entry["nodes"] if node["output"] is not None)
    if not outputs:
        raise ValueError("no node has an output, so that nothing would ever come back")
    if len({output.output_id for output in outputs}) < len(outputs):
        raise ValueError("two nodes share an id")
    return SandboxApp(
        app_id=str(entry["appId"]),
        name=str(entry["name"]),
        description=_description(entry),
        is_public=bool(entry.get("isPublic", True)),
        parameters=tuple(_parameter(parameter) for parameter in entry["parameters"]),
        outputs=outputs,
        served_parameters=tuple(entry["parameters"]),
        workflow={"nodes": nodes, "edges": list(entry.get("edges", ()))},
        median_seconds=float(entry["seconds"]["median"]),
        sigma=float(entry["seconds"]["sigma"]),
    )


def _description(entry: Mapping[str, Any]) -> str | None:
    description: str | None = entry.get("description")
    if not entry.get("standIn"):
        return description
    return f"{description} ({_STAND_IN})" if description else f"({_STAND_IN})"


_STAND_IN = "sandbox: the real list of parameters is not public, this one is a plausible stand-in"


def _parameter(entry: Mapping[str, Any]) -> Parameter:
    if entry["type"] not in {"text", "options", "url"}:
        raise ValueError(f"parameter {entry['name']!r}: the type is text, options or url, not {entry['type']!r}")
    if entry["type"] == "options" and not entry.get("options"):
        raise ValueError(f"parameter {entry['name']!r}: options are missing")
    return Parameter(
        name=entry["name"],
        type=entry["type"],
        required=entry["required"] is True,
        options=tuple(entry.get("options", ())),
        default=entry.get("default"),
        multiple=entry.get("multiple") is True,
    )


def _output(node: Mapping[str, Any]) -> Output:
    if node["output"] not in get_args(OutputKind):
        raise ValueError(f"node {node['id']!r}: output is image, video, text or null, not {node['output']!r}")
    if "/" in node["id"]:
        raise ValueError(f"node {node['id']!r}: an id cannot hold a slash, it is part of the output's URL")
    return Output(output_id=node["id"], label=node["label"], kind=node["output"])
