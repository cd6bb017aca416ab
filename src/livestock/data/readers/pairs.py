"""Where the label of an image lies, by its path: beside it, or in the matching folder of labels."""

from __future__ import annotations

import functools
import re

from ..archives import split_name

LABEL_FOLDERS = {  # what a folder of images is called, and what the folder of their labels beside it is
    "images": ["labels", "annotations", "label"],
    "image": ["label", "labels", "annotation"],
    "imgs": ["labels", "annotations"],
    "img": ["labels", "label", "ann", "annotations"],
    "jpegimages": ["annotations", "labels"],
}
# AI Hub's folders and archives of sources and of labels are called alike but for these words.
SIDES = re.compile(r"^\d+\W*(?=[\[(]?(원천|라벨))|[\[(]?(원천|라벨링|라벨)(데이터)?[\])]?|^(ts|tl|vs|vl)(?=[_\-.\d])")

Place = tuple[str, str]  # a folder as `_neutral` spells it, and a stem


def label_place(path: str) -> Place:
    """Where a label is: what `label_places` of its image holds."""
    return _neutral(path.rpartition("/")[0]), split_name(path)[1]


def label_places(path: str) -> list[Place]:
    """Where the label of an image may be, the likeliest first.

    As YOLO has it, the last folder `images` is `labels` instead; then beside the image; then a folder of labels that
    holds the image's folders.

    >>> label_places("farm/images/a.jpg")[:2]
    [('farm/labels', 'a'), ('farm/annotations', 'a')]
    """
    folder, stem = path.rpartition("/")[0], split_name(path)[1]
    return [(place, stem) for place in _label_folders(folder)]


@functools.lru_cache(maxsize=4096)
def _label_folders(folder: str) -> list[str]:
    names = _neutral(folder).split("/") if folder else []
    found = [names[:at] + [other] + names[at + 1 :] for at in reversed(range(len(names)))
             for other in LABEL_FOLDERS.get(names[at], [])]
    above = [names[:at] + [other] + names[at:] for at in range(len(names)) for other in ("labels", "annotations")]
    return list(dict.fromkeys("/".join(each) for each in [*found, names, *above]))


@functools.lru_cache(maxsize=4096)
def _neutral(folder: str) -> str:
    """A folder without case and without AI Hub's words for the two sides."""
    return "/".join(SIDES.sub("", name) for name in folder.casefold().split("/"))
