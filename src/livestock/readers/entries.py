"""Which picture an entry of a list means, by the path that the list has for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from ..archives import normalise, split_name
from .tree import File, part_name, part_of


def picture_path(name: Any) -> str | None:
    """The path that a list has for a picture as files are spelt: NFC, "/" between folders; None for no text.

    Without `.`, `..`, a drive or an address before it.

    >>> picture_path("C:\\\\farm\\\\cam0\\\\1.jpg")
    'farm/cam0/1.jpg'
    """
    if not isinstance(name, str):
        return None
    path = normalise(unquote(name) if "%" in name else name).replace("\\", "/").rpartition("://")[2]
    names = [part for part in PurePosixPath(path).parts if part not in ("/", ".", "..") and not part.endswith(":")]
    return "/".join(names) or None


class Finder:
    """Finds pictures among `image_ids` by the paths that lists have for them."""

    def __init__(self, image_ids: Iterable[str]) -> None:
        self._of_name: dict[str, list[str]] = defaultdict(list)
        for image_id in image_ids:
            self._of_name[image_id.rpartition("/")[2]].append(image_id)

    def find_all(self, names: Iterable[str], file: File) -> dict[str, str | None]:
        """By name the picture that an entry of `file` means: the one of its path, else the only one of its name.

        None where there is none. A picture that one entry has by its path is no other's by name. Raises ValueError
        naming them where an entry could mean several pictures.
        """
        found = {name: self._by_path(name, file) for name in names}
        taken = {image_id for image_id in found.values() if image_id is not None}
        return {name: image_id or self._by_name(name, file, taken) for name, image_id in found.items()}

    def _by_path(self, name: str, file: File) -> str | None:
        """The picture whose path ends as `name` does, the nearest to `file`; None for none.

        Raises ValueError naming them if several are equally near.
        """
        return self._choose([image_id for image_id in self._same_name(name)
                             if f"/{image_id}".endswith(f"/{name}")], name, file)

    def _by_name(self, name: str, file: File, taken: set[str]) -> str | None:
        """The only picture of this name, wherever it lies, that no other entry has by its path; else as `by_path`."""
        return self._choose([image_id for image_id in self._same_name(name) if image_id not in taken], name, file)

    def _same_name(self, name: str) -> list[str]:
        return self._of_name.get(name.rpartition("/")[2], [])

    @staticmethod
    def _choose(found: list[str], name: str, file: File) -> str | None:
        if len(found) < 2:
            return found[0] if found else None
        folder, stem = file.path.rpartition("/")[0], split_name(file.path)[1]
        parts = {part_name(word) for word in stem.replace("-", "_").replace(".", "_").split("_")} - {""}
        of_part = [image_id for image_id in found if part_of(image_id) in parts]
        exact = [image_id for image_id in found if image_id == (f"{folder}/{name}" if folder else name)]
        depth = {image_id: _n_shared(folder, image_id) for image_id in found}
        nearest = [image_id for image_id in found if depth[image_id] == max(depth.values())]
        for chosen in (exact, of_part, nearest):
            if len(chosen) == 1:
                return chosen[0]
        raise ValueError(f"{file.place}: expected file_name {name!r} to mean one picture, found {len(found)}: "
                         f"{', '.join(found[:4])}; give its path below the data there")


def _n_shared(folder: str, path: str) -> int:
    """How many folders two paths have in common from the top."""
    first, second = folder.split("/") if folder else [], path.split("/")[:-1]
    return next((n for n, (one, other) in enumerate(zip(first, second, strict=False)) if one != other),
                min(len(first), len(second)))
