"""The downloader against a server that fails as the web does, and the reader on what it brought."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from livestock.config import REPOSITORY, read_competition
from livestock.data import readers
from livestock.data.readers import clean
from livestock.data.readers.open_images import download_open_images
from livestock.tables import XYXY

COMPETITION = read_competition(REPOSITORY / "competition.yaml")
JPEG = cv2.imencode(".jpg", np.zeros((60, 100, 3), np.uint8))[1].tobytes()
HEADER = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
ROWS = [
    "aa,x,/m/pig,1,0.1,0.5,0.2,0.4,0,0,0,0,0",
    "aa,x,/m/hat,1,0.1,0.5,0.2,0.4,0,0,0,0,0",
    "bb,x,/m/cattle,1,0,1,0,1,0,0,0,0,0",
    "bb,x,/m/cattle,1,0,1,0,1,0,0,1,0,0",
    "gone,x,/m/cattle,1,0,1,0,1,0,0,0,0,0",
    "hats,x,/m/hat,1,0,1,0,1,0,0,0,0,0",
]
TABLES = {
    "/v5/class-descriptions-boxable.csv": b"/m/pig,Pig\n/m/cattle,Cattle\n/m/hat,Hat\n",
    "/v5/validation-annotations-bbox.csv": "\n".join([HEADER, *ROWS, ""]).encode(),
}


class Web(BaseHTTPRequestHandler):
    """Serves the tables and pictures; the first request for `aa` breaks off half way, `gone` is not there."""

    requests: Counter[str] = Counter()

    def do_GET(self) -> None:
        """Answers one request."""
        Web.requests[self.path] += 1
        if "gone" in self.path:
            self.send_error(404)
            return
        content = TABLES.get(self.path, JPEG)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        half = "aa" in self.path and Web.requests[self.path] == 1
        self.wfile.write(content[: len(content) // 2] if half else content)

    def log_message(self, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the server; waits between tries take no time."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    Web.requests.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_pictures_of_the_classes_are_downloaded_and_read(url: str, tmp_path: Path) -> None:
    for _ in range(2):  # the second call brings nothing new
        missing = download_open_images(tmp_path, COMPETITION, tables_url=url, images_url=f"{url}/images")
        assert missing.to_numpy().tolist() == [["gone", "status 404"]]
    assert Web.requests["/images/validation/aa.jpg"] == 2  # broken off once, then whole
    assert Web.requests["/images/validation/bb.jpg"] == 1
    assert Web.requests["/images/validation/gone.jpg"] == 2  # one try a call: it will not be there next time either
    assert Web.requests["/v5/validation-annotations-bbox.csv"] == 1
    assert not any("hats" in path for path in Web.requests)
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["aa.jpg", "bb.jpg"]
    assert (tmp_path / "not_downloaded.csv").read_text() == "image_id,reason\ngone,status 404\n"

    reading = readers.read("open_images", tmp_path, COMPETITION)
    assert reading.boxes[["image_id", "label", *XYXY]].to_numpy().tolist() == [
        ["images/aa.jpg", "pig", 10, 12, 50, 24], ["images/bb.jpg", "cow", 0, 0, 100, 60]]
    assert Counter(reading.left_out["reason"]) == {clean.UNKNOWN_CLASS: 1, clean.CROWD: 1, clean.NO_IMAGE: 1}


def test_the_limit_and_what_cannot_be_had(url: str, tmp_path: Path) -> None:
    download_open_images(tmp_path, COMPETITION, limit=1, tables_url=url, images_url=f"{url}/images")
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["aa.jpg"]
    with pytest.raises(ValueError, match="split: expected one of"):
        download_open_images(tmp_path, COMPETITION, split="valid", tables_url=url, images_url=url)
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:1/.*cannot be downloaded: ConnectionError"):
        download_open_images(tmp_path / "new", COMPETITION, tables_url="http://127.0.0.1:1", images_url=url)
