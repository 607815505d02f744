"""`python -m compare BASE`: runs the same catalogs with the build of a git revision and the build of this checkout.

It uses both builds through their command line only. Each command must give the same: exit code, manifests, findings,
summaries, what was bought. Last, the build of this checkout runs on the ledger of either build.
"""

from __future__ import annotations

import argparse
import difflib
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from process import TOP, environment, stopping
from warm import Warm

from compare.catalogs import copy_shipped, write_catalog
from compare.outputs import Reader, ids_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: The program of a build's warm process. `lamina_batch` is imported from the build's own tree.
_PROGRAM = """\
import runpy
import sys

sys.path.insert(0, {tree!r})
import lamina_batch
from warm import serve_forks

def main(command):
    if command.get("where"):
        print(lamina_batch.__file__)
    else:
        runpy.run_module("lamina_batch", run_name="__main__")

serve_forks(main)
"""
#: Some catalogs use a service with these faults. `match` makes it certain which executions fail.
_FAULTS = {
    "executions": ("failed:match=/1.jpg", "failed_output:match=/product-image/3.jpg"),
    "runs": ("failed:match=/1.jpg", "failed_output:match=/product-image/3.jpg", "cancelled:match=/2.jpg"),
}
#: seconds that a command may take
_TIMEOUT = 300.0
_KEY = "lma_compare_key_of_nobody"
#: the report shows this many lines of a difference, and this many characters of a line
_LINES, _CHARACTERS = 12, 240

#: The outputs of a command: name -> text.
Outputs = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    name: str
    #: its files; both builds get a copy
    source: Path
    #: the pipeline, relative to the folder
    pipeline: str
    #: how the findings are written
    findings: str
    #: the generation of its service with faults; None: the sandbox that each build embeds
    generation: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Builds:
    base: Warm
    here: Warm
    #: generation -> address of the service with faults
    urls: Mapping[str, str]


def main() -> int:
    """Compare the builds. Returns the exit code: 1 if they differ."""
    options = _options()
    began = time.monotonic()
    folder = Path(options.folder or tempfile.mkdtemp(prefix="lamina-compare-"))
    trees = {"base": folder / "base", "here": TOP}
    _check_out(options.base, trees["base"])
    catalogs = _make(folder / "catalogs", options.catalogs, options.seed)
    different: list[str] = []
    codes: Counter[tuple[str, str]] = Counter()
    with (
        closing(_build(trees["base"], folder)) as base,
        closing(_build(trees["here"], folder)) as here,
        _serving() as urls,
        ThreadPoolExecutor(max_workers=options.jobs) as pool,
    ):
        builds = Builds(base=base, here=here, urls=urls)
        work = {
            pool.submit(_compare, catalog, builds, folder / catalog.name, words=options.words): catalog
            for catalog in catalogs
            if options.only is None or options.only == catalog.name
        }
        for future in as_completed(work):
            report, ends = future.result()
            codes.update(ends)
            if report:
                different.append(work[future].name)
                print("\n".join(report), flush=True)
    for command in dict.fromkeys(name for name, _ in codes):
        counted = ", ".join(f"{code}: {count}" for (name, code), count in sorted(codes.items()) if name == command)
        print(f"{command}: exit codes of this checkout {counted}")
    print(f"{len(work)} catalogs (seed {options.seed}), {len(different)} differ, {time.monotonic() - began:.0f} s")
    if different:
        print(f"the files of both builds for {', '.join(sorted(different)[:5])} … are in {folder}")
        print(f"  repeat: make compare BASE={options.base} SEED={options.seed} ONLY={different[0]}")
    elif not options.folder:
        shutil.rmtree(folder)
    return 1 if different else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="compare", description=__doc__)
    parser.add_argument("base", help="the git revision to compare this checkout with")
    parser.add_argument("--catalogs", type=int, default=200, help="number of generated catalogs (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the generated catalogs (default: %(default)s)")
    parser.add_argument(
        "--jobs", type=int, default=4, help="catalogs at once: a run mostly waits (default: %(default)s)"
    )
    parser.add_argument("--only", help="this catalog alone, such as catalog-17 or swift_catalog")
    parser.add_argument("--words", action="store_true", help="also compare the words of messages")
    parser.add_argument("--folder", help="an empty folder to work in; it is not deleted")
    return parser.parse_args()


def _check_out(revision: str, tree: Path) -> None:
    """Write the files of a git revision into a folder. The repository does not change."""
    tree.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", revision], cwd=TOP, check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(["tar", "-x", "-C", tree], input=archive, check=True)


def _build(tree: Path, folder: Path) -> Warm:
    """Start a process that runs the commands of a tree's build. Raises SystemExit if it imports another tree."""
    program = folder / f"build-{tree.name}.py"
    program.write_text(_PROGRAM.format(tree=str(tree)), encoding="utf-8")
    warm = Warm(str(program))
    result = warm.run(folder=folder, env=environment(), timeout=_TIMEOUT, where=True)
    where = result.stdout.decode().strip()
    if not Path(where).is_relative_to(tree):
        raise SystemExit(f"lamina_batch of {tree} was imported from {where}")
    print(f"lamina_batch: {where}", flush=True)
    return warm


@contextmanager
def _serving() -> Iterator[Mapping[str, str]]:
    """Serve `_FAULTS`. Both builds use the same services, because a job's hash includes the service's address."""
    with ExitStack() as stack:
        urls: dict[str, str] = {}
        for generation, faults in _FAULTS.items():
            words = ["sandbox", "--port", "0", "--speed", "40", "--limit", "1000000", "--generation", generation]
            words += [word for fault in faults for word in ("--fault", fault)]
            process = subprocess.Popen(
                [sys.executable, "-m", "lamina_batch", *words],
                cwd=TOP,
                env=environment(),
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(stopping(process))
            assert process.stderr is not None
            urls[generation] = "http://" + process.stderr.readline().partition("http://")[2].split()[0].rstrip("/")
        yield urls


def _make(folder: Path, count: int, seed: int) -> list[Catalog]:
    shipped = folder / "shipped"
    copy_shipped(shipped, TOP)
    catalogs = [
        Catalog(name=file.stem, source=shipped, pipeline=f"pipelines/{file.name}", findings="csv")
        for file in sorted((shipped / "pipelines").glob("*.yaml"))
    ]
    for number in range(1, count + 1):
        source = folder / f"catalog-{number}"
        generation = {3: "executions", 7: "runs"}.get(number % 8)
        write_catalog(source, seed=seed, number=number, pins=TOP / "schemas" / "apps", pinned=generation is None)
        findings = ("csv", "csv", "xlsx", "ndjson")[number % 4]
        catalogs.append(
            Catalog(name=source.name, source=source, pipeline="p.yaml", findings=findings, generation=generation)
        )
    return catalogs


# -- one catalog -------------------------------------------------------------------------------------------------------


def _compare(catalog: Catalog, builds: Builds, folder: Path, *, words: bool) -> tuple[list[str], list[tuple[str, str]]]:
    """Run a catalog with both builds. Returns the report's lines, and the exit code of each command of this checkout.

    It deletes the files of a catalog without differences.
    """
    reader = Reader(known_ids=ids_in(catalog.source), words=words)
    outputs_of: list[dict[str, Outputs]] = []
    for name, build in (("base", builds.base), ("here", builds.here)):
        # Outputs contain paths, so both builds run in the same folder.
        work = folder / "work"
        shutil.copytree(catalog.source, work)
        outputs_of.append(_run_commands(catalog, build, builds, work, reader))
        work.rename(folder / name)
    base, here = outputs_of
    report = [line for command in base for line in _diff(catalog, command, base[command], here[command])]
    if not report:
        shutil.rmtree(folder)
    crash = {True: " and a crash", False: ""}
    ends = [(name, out["exit code"] + crash[out["stderr"].startswith("crashed")]) for name, out in here.items()]
    return report, ends


def _run_commands(catalog: Catalog, build: Warm, builds: Builds, folder: Path, reader: Reader) -> dict[str, Outputs]:
    """Run each command with `build`. Returns the outputs of each command."""
    pipeline = catalog.pipeline
    service: tuple[str, ...] = ("--sandbox",)
    if catalog.generation is not None:
        service = ("--base-url", builds.urls[catalog.generation], "--set", "run.poll.min_interval=1s")
    findings = f"findings.{catalog.findings}"
    commands: tuple[tuple[str, Warm, tuple[str, ...]], ...] = (
        ("validate", build, ("validate", pipeline)),
        ("validate --findings", build, ("validate", pipeline, "--findings", findings)),
        ("plan", build, ("plan", pipeline, "--explain")),
        ("run", build, ("run", pipeline, "--json", "--log-format", "json")),
        ("second run", build, ("run", pipeline, "--json")),
        ("status", build, ("status", pipeline)),
        ("results", build, ("results", pipeline)),
        ("results -o", build, ("results", pipeline, "-o", "long.csv", "--layout", "long", "--include-removed")),
        ("run of this checkout on the ledger", builds.here, ("run", pipeline, "--json")),
    )
    outputs_of: dict[str, Outputs] = {}
    for name, warm, words in commands:
        before = _stamps(folder)
        result = warm.run(*words, *service, folder=folder, env=environment(LAMINA_API_KEY=_KEY), timeout=_TIMEOUT)
        outputs = outputs_of[name] = {
            "exit code": str(result.returncode),
            "stdout": reader.stdout(result.stdout.decode()),
            "stderr": reader.stderr(result.stderr.decode()),
        }
        for path, stamp in _stamps(folder).items():
            if before.get(path) != stamp:
                outputs[reader.name(str(path.relative_to(folder)))] = reader.file(path)
        for accepted in folder.rglob("service/executions.jsonl"):
            outputs["what was bought"] = reader.sent(accepted)
    return outputs_of


def _stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    """The files of a folder, each with a value that changes when it is written; without the sandbox's own files.

    The value of a ledger never changes: a newer build may migrate it when it opens it.
    """
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file.parent.name != "service")
    return {
        file: (0, 0) if file.name == "ledger.sqlite" else (file.stat().st_mtime_ns, file.stat().st_size)
        for file in files
    }


def _diff(catalog: Catalog, command: str, base: Outputs, here: Outputs) -> list[str]:
    report: list[str] = []
    for name in sorted({*base, *here}):
        if (one := base.get(name)) == (other := here.get(name)):
            continue
        report.append(f"{catalog.name}: {command}: {name}")
        if one is None or other is None:
            report.append(f"  written by {'here' if one is None else 'base'} only")
            continue
        lines = list(difflib.unified_diff(one.splitlines(), other.splitlines(), n=0, lineterm=""))[2:]
        changed = [line for line in lines if not line.startswith("@@")] or ["  (line ends differ)"]
        report += [f"  {line[:_CHARACTERS]}" for line in changed[:_LINES]]
        if len(changed) > _LINES:
            report.append(f"  … and {len(changed) - _LINES} more lines")
    return report


if __name__ == "__main__":
    sys.exit(main())
