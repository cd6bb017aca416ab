"""What a file is that should hold weights and does not, in words that say what to do; only its bytes are looked at."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

HEAD_BYTES = 1024
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how torch.save began until 1.6: a pickle of a number
STARTS = {
    LEGACY: "a file of PyTorch before 1.6: load it where you trust it, torch.save it again, and give that",
    b"\x80": "a bare pickle: load it where you trust it, torch.save it again, and give that",
    b"version https://git-lfs": "a Git LFS pointer, some lines of text in place of the weights: run `git lfs pull` in "
                                "its repository, or download the file itself",
    b"\x89HDF\r\n": "an HDF5 file, of Keras most likely: this project reads YOLOv5's weights",
    b"\x1f\x8b": "a file compressed with gzip: unpack it, and give what is in it",
    b"Rar!": "a RAR archive: unpack it, and give what is in it",
    b"7z\xbc\xaf": "a 7z archive: unpack it, and give what is in it",
}
ZIP_START = b"PK\x03\x04"
WEB_PAGE = re.compile(rb"^(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|\?xml|!--)", re.IGNORECASE)
TEXT = re.compile(rb"^[\t\n\r\x20-\x7e]+$")


def describe_wrong_file(path: Path, suffix: str = ".pt") -> str:
    """What a file is instead of weights of this suffix, and what to do; empty where its bytes do not tell.

    Raises OSError for a file that cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    n_bytes = path.stat().st_size
    if not head:
        return "an empty file: the download or the copy did not come to its end; fetch it again"
    if WEB_PAGE.match(head):
        return "a web page: a log-in or the page about the file, saved in its place; download the file itself"
    for start, what in STARTS.items():
        if head.startswith(start):
            return what
    if head.startswith(ZIP_START):
        return _describe_zip(path, n_bytes, suffix)
    if suffix != ".safetensors" and head[8:9] == b"{" and 0 < int.from_bytes(head[:8], "little") < n_bytes:
        return "a safetensors file: give it a name that ends in .safetensors"
    if TEXT.match(head):
        return f"text that begins with {head[:40].decode('ascii')!r}: download the weights themselves"
    return ""


def _describe_zip(path: Path, n_bytes: int, suffix: str) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return (f"a zip that ends early, after {n_bytes:,} bytes: the download or the copy was cut off; fetch it again")
    except (NotImplementedError, OSError, ValueError):
        return ""  # who reads it says what is wrong
    inner = {name.split("/", 1)[-1] for name in names}
    if suffix != ".torchscript" and ("constants.pkl" in inner or any(name.startswith("code/") for name in inner)):
        return ("a TorchScript file, which is a program and is not run: give the checkpoint that it was made from, or "
                "weights in .safetensors or .onnx")
    if suffix not in (".pt", ".torchscript") and "data.pkl" in inner:
        return "a checkpoint of torch.save: give it a name that ends in .pt"
    weights = [name for name in names if name.endswith((".pt", ".safetensors", ".onnx"))]
    if weights:
        return f"an archive with {weights[0]} in it: unpack it, and give that file"
    return ""


def describe_classes(names: set[str]) -> str:
    """Of which model the classes are that a checkpoint names, where that is known and not YOLOv5's detection model.

    >>> describe_classes({"ultralytics.nn.tasks.DetectionModel"})[:20]
    'weights of YOLOv8 or'
    """
    if known := sorted(name for name in names if name.startswith("ultralytics.")):
        model = next((name for name in known if ".tasks." in name), known[0])
        return (f"weights of YOLOv8 or a later model, or of a YOLOv5 whose name ends in u ({model}): this project "
                "reads YOLOv5's own, such as yolov5m6.pt from its release v7.0")
    tasks = {"SegmentationModel": "segmentation", "ClassificationModel": "classification"}
    for name in sorted(names):
        if task := tasks.get(name.rsplit(".", 1)[-1]):
            return f"a {task} model ({name}): give a detection model of YOLOv5"
    return ""
