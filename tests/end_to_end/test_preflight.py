"""`validate --check-images`: pictures that are not there are findings before anything is spent."""

from __future__ import annotations

import io
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from PIL import Image
from process import read_manifest, row, write_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from process import Cli, Service


@contextmanager
def shop(folder: Path, asked: list[str]) -> Iterator[str]:
    """A web server over the files of a folder; gives its URL. `asked` gets the paths, as they are asked for."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

        def log_request(self, *_: object) -> None:
            asked.append(self.path)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_pictures_that_are_not_there_are_findings_and_nothing_is_spent(
    tmp_path: Path, project: Path, at: Cli, service: Service
) -> None:
    files = tmp_path / "shop"
    files.mkdir()
    picture = io.BytesIO()
    Image.effect_noise((800, 600), 80).convert("RGB").save(picture, "JPEG")
    (files / "good.jpg").write_bytes(picture.getvalue())
    (files / "page.jpg").write_text("<!doctype html><title>Sign in</title>", encoding="utf-8")
    asked: list[str] = []
    with shop(files, asked) as url:
        names = ["good", "good", "gone", "page"]
        write_rows(project, [row(at, front=f"{url}/{name}.jpg") for at, name in enumerate(names)])
        ran = at("validate", "p.yaml", "--check-images", "--findings", "found.csv", code=3)
    assert sorted(asked) == ["/gone.jpg", "/good.jpg", "/page.jpg"]
    found = [(one["row"], one["column"], one["code"], one["severity"]) for one in read_manifest(project / "found.csv")]
    assert found == [("4", "front", "url_not_found", "error"), ("5", "front", "web_page", "error")]
    assert f"row 4 (00002): column 'front': '{url}/gone.jpg' is not there: HTTP 404" in ran.out
    # The constant `Back` stands for a picture only.
    assert "note: image and video URLs asked, each once: 3\n" in ran.err
    assert "names for examples (images.example.com): 1;" in ran.err
    assert "4 rows checked against 'Premium Catalog 1.0', 2 invalid" in ran.err
    assert service.accepted == []


def test_the_samples_name_no_real_pictures_and_the_sandbox_says_so(cli: Cli, project: Path) -> None:
    ran = cli("validate", "p.yaml", "--sandbox", "--check-images")
    assert "note: image and video URLs asked, each once: 0\n" in ran.err
    assert "the sandbox takes them as they are, and the real service would find nothing there" in ran.err
    assert ran.out == ""
