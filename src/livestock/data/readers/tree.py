"""The files of a data folder as one tree: each zip counts as unpacked where it lies."""

from __future__ import annotations

import functools
import os
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from ..archives import IMAGE_SUFFIXES, list_members, normalise, read_bytes, split_name
from ..zips import open_zip
from .report import Report

OTHER_FORMAT = "picture of a format that is not read: left out"
NESTED = "archive that is not read: unpack it first"
UNPACKED = "archive that lies unpacked beside it: the unpacked files are read"
SYSTEM_FILES = "files that a system or a tool leaves behind (._*, __MACOSX, .ipynb_checkpoints): not read"
RESULTS = "folder of a run's results: not read"
BAD_NAME = "file whose name is not UTF-8: left out, rename it"
LOOP = "link that leads back to a folder above it: not followed"

OTHER_PICTURES = {".gif", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".psd", ".raw", ".dng"}
OTHER_ARCHIVES = {".7z", ".rar", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".alz", ".egg"}
PART_OF_ARCHIVE = re.compile(r"\.(zip\.part\d*|zip\.\d{3}|z\d\d|7z\.\d{3})$", re.IGNORECASE)
SYSTEM_NAMES = {"__macosx", ".ipynb_checkpoints", "@eadir", ".git", ".ds_store", "thumbs.db", "desktop.ini"}
RESULT_FOLDERS = {"interim", "yolo", "runs", "weights", "formats"}  # of a workspace, in which data may lie as well
PARTS = {  # what exporters call the parts of a data set, without case and the digits behind it (train2017)
    **dict.fromkeys(["train", "training"], "train"),
    **dict.fromkeys(["val", "valid", "validation", "dev"], "valid"),
    **dict.fromkeys(["test", "testing", "test-dev"], "test"),
}
_PART, _KIND = "|".join(sorted(PARTS, key=len, reverse=True)), "images?|imgs?|labels?|annotations?|data|set|pictures"
PART_IN_NAME = re.compile(  # test_images, images-test, testset, obj_Test_data
    rf"(obj[_-])?(?P<before>{_PART})[_-]?({_KIND})|({_KIND})[_-](?P<behind>{_PART})")


class File(NamedTuple):
    """A file: its `path` below the data folder (NFC, "/" between folders), and where its bytes are."""

    path: str
    archive: str  # a folder or a zip
    member: str  # the name by which `archives.read_bytes` finds it there

    @property
    def place(self) -> str:
        """How reports and errors name it."""
        return f"{self.archive}/{self.member}"

    def read(self) -> bytes:
        """Its content. Raises BadData naming it if it cannot be read."""
        return read_bytes(self.archive, self.member)


def list_files(root: Path, report: Report, skip: Collection[Path] = ()) -> list[File]:
    """All files below a folder, or in one zip, in the order of their paths.

    The files of a zip have the paths that they would have if it were unpacked where it lies. Where files of several
    zips of a folder would meet at one path, or meet another file there, each of these zips counts as unpacked into a
    folder of its own name. A zip whose pictures lie unpacked beside it is passed over. Folders in `skip` and folders
    of results of an earlier run are not read. Whatever is passed over has a line in `report`.

    Raises BadData naming the archive for a zip that is refused (see `archives.list_members`).
    """
    if root.is_file():
        return sorted(_members(root, "", report))
    here, zips = _walk(root, report, {path.resolve() for path in skip})
    by_path = {file.path: file for file in here}
    packed: dict[str, dict[str, list[File]]] = defaultdict(dict)
    for file in zips:
        folder = file.path.rpartition("/")[0]
        members = _members(Path(file.archive, file.member), folder, report)
        if _is_unpacked(file, members, by_path, list(packed[folder].values())):
            report.add(UNPACKED, file.place)
        else:
            packed[folder][file.path] = members
    for group in packed.values():
        counts = Counter(member.path for members in group.values() for member in members)
        if any(n > 1 or path in by_path for path, n in counts.items()):
            group = {zip_path: [_in_own_folder(member, zip_path) for member in members]
                     for zip_path, members in group.items()}
        by_path.update((member.path, member) for members in group.values() for member in members)
    return sorted(by_path.values())


def _walk(root: Path, report: Report, skip: set[Path]) -> tuple[list[File], list[File]]:
    """The files below a folder without zips, and the zips; links to folders are followed, once each."""
    files, zips = list[File](), list[File]()
    n_system, seen = 0, set[str]()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            report.add(LOOP, folder)
            folders.clear()
            continue
        seen.add(real)
        for name in list(folders):
            path = Path(folder, name)
            is_results = _is_workspace(path) or _is_workspace(Path(folder)) and name in RESULT_FOLDERS
            if is_results or name.casefold() in SYSTEM_NAMES or path.resolve() in skip:
                folders.remove(name)
                if name.casefold() not in SYSTEM_NAMES:
                    report.add(RESULTS, str(path))
        below = Path(folder).relative_to(root).as_posix()
        for name in names:
            raw = name if below == "." else f"{below}/{name}"
            if not _is_text(raw):
                report.add(BAD_NAME, f"{root}/{raw}")
            elif _is_of_system(name):
                n_system += _is_picture(name)
            else:
                (zips if name.lower().endswith(".zip") else files).append(File(normalise(raw), str(root), raw))
    if n_system:
        report.add(SYSTEM_FILES, str(root), "", f"{n_system} that are named like pictures")
    return files, sorted(zips)


def _is_workspace(path: Path) -> bool:
    return (path / "lineage.jsonl").is_file() or (path / "interim" / "steps").is_dir()  # the latter before 0.2


def _members(path: Path, folder: str, report: Report) -> list[File]:
    """The files of a zip as if unpacked into `folder`."""
    before, files, n_system = f"{folder}/" if folder else "", [], 0
    for member in list_members(path):
        if _is_of_system(member.name):
            n_system += _is_picture(member.name)
        else:
            files.append(File(before + member.name, str(path), member.raw))
    if n_system:
        report.add(SYSTEM_FILES, str(path), "", f"{n_system} that are named like pictures")
    return files


def _in_own_folder(file: File, zip_path: str) -> File:
    folder, _, name = zip_path.rpartition("/")
    below = file.path.removeprefix(f"{folder}/") if folder else file.path
    return file._replace(path=f"{zip_path[:-4]}/{below}" if name else file.path)


def _is_unpacked(zipped: File, members: list[File], open_files: dict[str, File], others: list[list[File]]) -> bool:
    """Whether the pictures of a zip lie beside it, here or in a folder of its name, or in another zip there.

    Pictures are compared by size and checksum. A zip without pictures is unpacked if all its files are there, whatever
    was changed in them since.
    """
    pictures = [member for member in members if _is_picture(member.path)]
    in_others = {member.path: member for other in others for member in other}
    for member in pictures or members:
        unpacked = [open_files.get(member.path), open_files.get(_in_own_folder(member, zipped.path).path)]
        if not pictures and any(unpacked):
            continue
        if not any(file and _is_same(file, member) for file in [*unpacked, in_others.get(member.path)]):
            return False
    return bool(members)


def _is_same(first: File, second: File) -> bool:
    return _size_and_checksum(first) == _size_and_checksum(second)


def _size_and_checksum(file: File) -> tuple[int, int]:
    if (zipped := open_zip(file.archive)) is not None:
        info = zipped.file.getinfo(file.member)
        return info.file_size, info.CRC
    content = file.read()
    return len(content), zlib.crc32(content)


def note_unread(files: Iterable[File], report: Report) -> None:
    """Notes pictures and archives of kinds that no reader opens; zips within zips are among them."""
    for file in files:
        suffix = split_name(file.path)[2]
        if suffix in OTHER_PICTURES:
            report.add(OTHER_FORMAT, file.place, file.path)
        elif suffix in OTHER_ARCHIVES or suffix == ".zip" or PART_OF_ARCHIVE.search(file.path):
            report.add(NESTED, file.place)


def pictures_among(files: Iterable[File]) -> list[File]:
    """Those that are named like pictures of a format that is read."""
    return [file for file in files if _is_picture(file.path)]


def part_of(path: str) -> str:
    """The part of a data set that a file belongs to by the first of its folders that says so: train, valid, test or "".

    >>> part_of("farm/valid/images/a.jpg"), part_of("images/test2017/a.jpg"), part_of("a.jpg")
    ('valid', 'test', '')
    >>> part_of("obj_Test_data/a.jpg"), part_of("test_images/a.jpg"), part_of("testing_ground/a.jpg")
    ('test', 'test', '')
    """
    return _part_of_folder(path.rpartition("/")[0])


@functools.lru_cache(maxsize=4096)
def _part_of_folder(folder: str) -> str:
    return next((part for name in folder.split("/") if (part := part_name(name))), "")


def part_name(name: str) -> str:
    """The part that one folder's name, or one word of a file's name, stands for, or "".

    >>> [part_name(name) for name in ("train2017", "val", "1. Validation", "barn")]
    ['train', 'valid', 'valid', '']
    """
    plain = re.sub(r"^\d+\W*|\W*\d*$", "", name.casefold())
    found = PART_IN_NAME.fullmatch(plain)
    return PARTS.get(plain) or (PARTS[found["before"] or found["behind"]] if found else "")


def _is_picture(name: str) -> bool:
    return split_name(name)[2] in IMAGE_SUFFIXES


def _is_of_system(path: str) -> bool:
    if "._" not in path and not any(name in path.lower() for name in SYSTEM_NAMES):
        return False
    return any(name.startswith("._") or name.casefold() in SYSTEM_NAMES for name in path.split("/"))


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
