"""What is exported of an image, and the note of it by which what comes back finds its way to the image again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pandas as pd

from ...config import Workspace
from ...exceptions import BadData, MissingResult
from ...files.write import write_json
from ...tables import XYXY, make_boxes

FORMATS = ["cvat", "label-studio", "yolo"]
MANIFEST = "manifest.json"
SUSPECT_COLUMNS = ["label", *XYXY, "confidence", "box_id"]  # what the manifest has of each
HASH_DIGITS = 12  # of the image_id's SHA-256, by which an exported file is known: two images in 10^7 share them
READABLE = 60  # letters of the image_id that are kept in the exported file's name
HASH_AT_END = re.compile(rf"(?<![0-9a-f])([0-9a-f]{{{HASH_DIGITS}}})(?![0-9a-f])")


@dataclass(frozen=True)
class Sheet:
    """An exported image: its file's name, its size in pixels as shown, and boxes tables of people's and of suspects."""

    name: str
    image_id: str
    width: int
    height: int
    human: pd.DataFrame
    suspects: pd.DataFrame

    @property
    def stem(self) -> str:
        """The file's name without its suffix."""
        return PurePosixPath(self.name).stem


@dataclass(frozen=True)
class Exported:
    """What the manifest of an export says of one image; `human_sha256` is of the human boxes that were exported.

    `earlier` are its other exports, the last one first; `is_named` where somebody named the folder of this export.
    """

    image_id: str
    width: int
    height: int
    human_sha256: str
    suspects: pd.DataFrame
    format: str
    earlier: tuple[Exported, ...] = ()
    is_named: bool = False

    @property
    def exports(self) -> list[Exported]:
        """All exports of the image, the last one first."""
        return [self, *self.earlier]


def sheet_name(rank: int, image_id: str, suffix: str) -> str:
    """A file name that is unique, in ASCII, and sorts by rank; the digits at its end are of the `image_id` alone.

    >>> sheet_name(1, "train/[원천]소/cow 1.JPG", ".JPG")
    '0001_train-cow-1_e2989d186bda.jpg'
    """
    path = PurePosixPath(image_id)
    readable = re.sub(r"[^A-Za-z0-9]+", "-", str(path.with_suffix(""))).strip("-")[-READABLE:].strip("-")
    return f"{rank:04d}_{readable or 'image'}_{_image_hash(image_id)}{suffix.lower()}"


def _image_hash(image_id: str) -> str:
    return hashlib.sha256(image_id.encode()).hexdigest()[:HASH_DIGITS]


def boxes_sha256(boxes: pd.DataFrame) -> str:
    """SHA-256 of the labels and corners of one image's boxes, whatever their order."""
    rows = boxes[["label", *XYXY]].sort_values([*XYXY, "label"])
    return hashlib.sha256(rows.to_csv(index=False, float_format="%.3f").encode()).hexdigest()


def write_manifest(sheets: Sequence[Sheet], labels: list[str], format: str, directory: Path, workspace: Workspace
                   ) -> None:
    """Writes `manifest.json` into the export, and a copy into the workspace, which outlives the export's folder."""
    images = {
        sheet.name: {
            "image_id": sheet.image_id, "width": sheet.width, "height": sheet.height,
            "human_sha256": boxes_sha256(sheet.human), "human_boxes": len(sheet.human),
            "suspects": sheet.suspects[SUSPECT_COLUMNS].to_numpy(object).tolist(),
        }
        for sheet in sheets
    }
    content = {"format": format, "labels": labels, "images": images}
    write_json(content, directory / MANIFEST)
    number = len(list(_copies_dir(workspace).glob("*.json")))
    write_json(content, _copies_dir(workspace) / f"{number:04d}_{format}.json")


def _copies_dir(workspace: Workspace) -> Path:
    return workspace.interim_dir / "relabel_exports"


def read_manifests(workspace: Workspace, directory: Path | None = None) -> dict[str, Exported]:
    """All images that were exported, by the digits of their file's name: each image's last export, with its `earlier`.

    `directory` is an export's folder, whose manifest comes after those in the workspace. Raises MissingResult if
    nothing was exported from this workspace, BadData naming a manifest that cannot be read.
    """
    paths = [*sorted(workspace.root.glob(f"relabel_*/{MANIFEST}")), *sorted(_copies_dir(workspace).glob("*.json"))]
    named = directory / MANIFEST if directory is not None else None
    if named is not None and named.is_file():
        paths.append(named)
    if not paths:
        raise MissingResult(f"{workspace.root}: nothing was exported from this workspace; run `livestock relabel "
                            "export` first, or name the workspace with --workspace or the export's folder with "
                            "--exported")
    known: dict[str, Exported] = {}
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            for image in content["images"].values():
                digits = _image_hash(image["image_id"])
                before = known[digits].exports if digits in known else []
                exported = _exported(image, content["format"])
                known[digits] = replace(exported, earlier=tuple(before), is_named=path == named)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadData(f"{path}: expected the manifest of an export, found {type(error).__name__}: {error}; "
                          "export again") from error
    return known


def _exported(image: dict[str, Any], format: str) -> Exported:
    rows = image["suspects"]
    n_columns = len(rows[0]) if rows else len(SUSPECT_COLUMNS)  # the last one was not there at first
    table = pd.DataFrame(rows, columns=SUSPECT_COLUMNS[:n_columns])
    suspects = make_boxes(table.assign(image_id=image["image_id"], source="model"), "suspects")
    return Exported(image["image_id"], int(image["width"]), int(image["height"]), image["human_sha256"], suspects,
                    format)


def find_exported(name: str, known: dict[str, Exported]) -> Exported | None:
    """The exported image that a tool calls `name`: a path, an address or a stem, whatever was put before or behind it.

    Label Studio puts `1a2b3c4d-` before uploaded files and serves local ones as `/data/local-files/?d=...`. The digits
    at the end of the name are what counts; the last ones that are an exported image's.
    """
    address = urlsplit(name.replace("\\", "/"))
    path = parse_qs(address.query).get("d", [address.path])[0]
    found = HASH_AT_END.findall(path.rpartition("/")[2])
    return next((known[digits] for digits in reversed(found) if digits in known), None)
