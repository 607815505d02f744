"""Every code block of README.md and docs/ is executed, page by page, in the order in which a reader meets them."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from process import PATIENCE, environment

from docs.markdown import DIRECTIVES, NO_CODE, PAGES, Block, blocks, indented, name_of
from docs.readers import PREPARED, prepare
from docs.runners import QUICK, RUNNERS, Page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: One block in so many may say why it is not run.
MOST_NOT_RUN = 10

ADVICE = f"""
Every code block of README.md and docs/ is executed by this test, page by page, as it stands. Yours may
  - use what every reader has (tests/docs/readers.py): the project's pipelines/, sample_data/ and schemas/, a
    `catalog.yaml` with `products.csv` (keys 00123 to 00127), and a quick sandbox as the service of their key;
  - get what the readers of this page have done before: a function in PREPARED of tests/docs/readers.py;
  - be of a language with a runner in tests/docs/runners.py ({", ".join(RUNNERS)}), or add one;
  - be a ```{NO_CODE} block, if it is no code but a diagram or what a program prints;
  - have HTML comments right before it, such as <!-- exits: 3 --> or <!-- file: catalog.yaml -->:
""" + "".join(f"      <!-- {word} -->  {meaning}\n" for word, meaning in DIRECTIVES.items())


@pytest.fixture(scope="session")
def quick_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a sandbox process for all pages."""
    data = tmp_path_factory.mktemp("service")
    command = [sys.executable, "-m", "lamina_batch", "sandbox", "--port", "0", "--data", str(data), *QUICK]
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    yield "http://" + line.partition("http://")[2].split()[0].rstrip("/")
    process.terminate()
    process.communicate(timeout=PATIENCE)


@pytest.fixture
def page(tmp_path: Path, quick_service: str) -> Iterator[Page]:
    folder, aside = tmp_path / "reader", tmp_path / "aside"
    folder.mkdir()
    aside.mkdir()
    env = environment(LAMINA_API_KEY="lma_key_of_a_reader", LAMINA_BASE_URL=quick_service)
    one = Page(folder=folder, aside=aside, env=env)
    prepare(one)
    yield one
    one.close()


CODE = {file: [block for block in blocks(file) if block.language != NO_CODE] for file in PAGES}
#: those that take longest first
WITH_CODE = [file for _, file in sorted((-len(CODE[file]), file) for file in PAGES if CODE[file])]


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("file", WITH_CODE, ids=name_of)
def test_the_code_of_a_page_runs(file: Path, page: Page) -> None:
    if name_of(file) in PREPARED:
        PREPARED[name_of(file)](page)
    for block in CODE[file]:
        if "not run" in block.said:
            continue
        wrong = _wrong(block, page)
        if wrong is not None:
            pytest.fail(f"{block.where}: this {block.runner} block: {wrong}\n{ADVICE}", pytrace=False)


def _wrong(block: Block, page: Page) -> Exception | None:
    try:
        RUNNERS[block.runner](block, page)
        if "file" in block.said:
            (page.folder / block.said["file"]).write_text(block.text, encoding="utf-8")
    except Exception as error:  # noqa: BLE001  # whatever it is, its author is told what to do
        return error
    return None


@pytest.mark.parametrize("file", PAGES, ids=name_of)
def test_code_says_what_it_is(file: Path) -> None:
    for line in indented(file):
        pytest.fail(f"{name_of(file)}:{line}: code that is only indented: fence it with ```\n{ADVICE}", pytrace=False)
    for block in blocks(file):
        known = block.runner in {*RUNNERS, NO_CODE} or "not run" in block.said
        assert known, f"{block.where}: no runner for {block.runner!r}\n{ADVICE}"
        if block.language == NO_CODE:
            assert not re.search(r"^ *(\$ |lamina-batch |make |pip )", block.text, re.MULTILINE), (
                f"{block.where}: this looks like commands, and those are run\n{ADVICE}"
            )


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    code = [block for found in CODE.values() for block in found]
    marked = [block for block in code if "not run" in block.said]
    assert [block.where for block in marked if len(block.said["not run"]) < 10] == []
    assert len(marked) * MOST_NOT_RUN <= len(code), _list(marked)


def _list(marked: list[Block]) -> str:
    return "".join(f"\n{block.where}: {block.said['not run']}" for block in marked)
