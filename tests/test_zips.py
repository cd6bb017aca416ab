"""The quick ways to sizes and bytes say what Pillow and zipfile say, or nothing."""

from __future__ import annotations

import io
import zlib
from pathlib import Path, PurePosixPath
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from livestock.data import pictures, zips
from livestock.data.archives import image_size, read_bytes, split_name

NOISE = np.random.default_rng(0).integers(0, 255, (160, 160, 3), np.uint8)
MARKERS = [0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC8, 0xC9, 0xD8, 0xDA, 0xDB, 0xDD, 0xE0, 0xE1, 0xE2, 0xEE, 0xFE, 0xFF, 0x00]


def jpeg(width: int = 90, height: int = 60, mode: str = "RGB", turned: int = 0, **options: object) -> bytes:
    """A JPEG of noise, with an EXIF orientation if `turned`."""
    exif, content = Image.Exif(), io.BytesIO()
    if turned:
        exif[0x0112] = turned
        options["exif"] = exif
    Image.fromarray(NOISE[:height, :width]).convert(mode).save(content, "JPEG", **options)
    return content.getvalue()


def ask_pillow(content: bytes) -> tuple[int, int] | None:
    """What `measure` says, None for what it refuses."""
    try:
        return pictures.measure(io.BytesIO(content))
    except pictures.ERRORS:
        return None


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"comment": b"barn"}, {"restart_marker_rows": 1},
                                     {"dpi": (300, 300)}], ids=str)
def test_plain_headers_are_read_without_pillow(mode: str, options: dict[str, object]) -> None:
    found = pictures.jpeg_size(jpeg(90, 60, mode, **options))
    assert found == (None if mode == "CMYK" else (90, 60))  # CMYK has Adobe's part, which is left to Pillow


def test_a_turned_picture_is_left_to_pillow(tmp_path: Path) -> None:
    content = jpeg(turned=6)
    assert pictures.jpeg_size(content) is None
    (tmp_path / "a.jpg").write_bytes(content)
    assert image_size(str(tmp_path), "a.jpg") == (60, 90)


def segment(marker: int, content: bytes, stated: int | None = None) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2 if stated is None else stated).to_bytes(2, "big") + content


def frame(bits: int, height: int, width: int, layers: int, n_own: int) -> bytes:
    return bytes([bits]) + height.to_bytes(2, "big") + width.to_bytes(2, "big") + bytes([layers]) + bytes(3 * n_own)


JFIF = b"JFIF\0\1\1\0\0\1\0\1\0\0"
PLAIN = [segment(0xE0, JFIF), segment(0xDB, bytes(65)), segment(0xC0, frame(8, 60, 90, 3, 3)), segment(0xC4, bytes(9)),
         segment(0xDA, bytes(10))]
ODD_FRAMES = [frame(12, 60, 90, 3, 3), frame(8, 0, 90, 3, 3), frame(8, 60, 0, 3, 3), frame(8, 65535, 65535, 3, 3),
              frame(8, 50, 70, 1, 1), frame(8, 50, 70, 2, 2), frame(8, 50, 70, 4, 4), frame(8, 50, 70, 3, 2),
              frame(8, 50, 70, 3, 3) + b"\1", b"\10\0", b""]
ODD = [
    b"", b"\0", b"\xff",
    *(segment(marker, odd) for marker in (0xC0, 0xC2, 0xC3) for odd in ODD_FRAMES),
    *(segment(0xDB, bytes([first]) + bytes(n)) for first in (0, 15, 16, 255) for n in (0, 63, 64, 65, 128, 129)),
    *(segment(0xE0, JFIF[:n]) for n in range(len(JFIF))),
    *(segment(marker, bytes(9), stated) for marker in MARKERS for stated in (None, 0, 1, 2, 5, 12, 500)),
]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("start", [b"\xff\xd8", b"", b"\xff\xd9", b"\0\xff\xd8"])
def test_odd_headers_are_read_as_pillow_reads_them_or_not_at_all(start: bytes) -> None:
    assert pictures.jpeg_size(start + b"".join(PLAIN)) == ((90, 60) if start == b"\xff\xd8" else None)
    for odd in ODD:
        for place in range(len(PLAIN)):
            for others in (PLAIN[place:], PLAIN[place + 1 :]):
                content = start + b"".join([*PLAIN[:place], odd, *others])
                assert pictures.jpeg_size(content) in (None, ask_pillow(content)), content


@settings(max_examples=200, deadline=None)
@given(mode=st.sampled_from(["RGB", "L", "CMYK"]), turned=st.integers(0, 8), progressive=st.booleans(),
       changes=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=3),
       padding=st.integers(0, 2), end=st.integers(0, 900))
@pytest.mark.filterwarnings("ignore::UserWarning")  # of EXIF that is damaged
def test_damaged_pictures_are_read_as_pillow_reads_them_or_not_at_all(
    mode: str, turned: int, progressive: bool, changes: list[tuple[int, int]], padding: int, end: int
) -> None:
    content = bytearray(jpeg(mode=mode, turned=turned, progressive=progressive))
    for place, value in changes:
        content[place] = value
    content[2:2] = b"\xff" * padding
    for head in (bytes(content), bytes(content[:end])):
        assert pictures.jpeg_size(head) in (None, ask_pillow(head))


def decode_with_pillow(content: bytes) -> np.ndarray | None:
    """What `decode` makes of it without its short cut, None for what it refuses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "_decode_plain", lambda content: None)
        try:
            return pictures.decode(io.BytesIO(content))
        except pictures.ERRORS:
            return None


@settings(max_examples=200, deadline=None)
@given(mode=st.sampled_from(["RGB", "L", "CMYK"]), turned=st.sampled_from([0, 0, 0, 6]), progressive=st.booleans(),
       subsampling=st.integers(0, 2), size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
       changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=2), end=st.floats(0.2, 1))
@pytest.mark.filterwarnings("ignore::UserWarning")  # of EXIF that is damaged
def test_what_opencv_decodes_is_what_pillow_decodes(
    mode: str, turned: int, progressive: bool, subsampling: int, size: tuple[int, int],
    changes: list[tuple[float, int]], end: float,
) -> None:
    whole = bytearray(jpeg(*size, mode=mode, turned=turned, progressive=progressive, subsampling=subsampling))
    cut = bytes(whole[: int(end * (len(whole) - 1))])
    assert pictures._decode_plain(cut) is None
    found = pictures._decode_plain(bytes(whole))
    assert (found is None) == (turned > 0 or mode == "CMYK")
    if found is not None:
        np.testing.assert_array_equal(found, decode_with_pillow(bytes(whole)))
    for place, value in changes:
        whole[int(place * (len(whole) - 1))] = value
    found, expected = pictures._decode_plain(bytes(whole)), decode_with_pillow(bytes(whole))
    if found is not None and expected is not None:  # of damaged scans Pillow refuses some more, about one in 300
        np.testing.assert_array_equal(found, expected)


def test_two_pictures_in_one_file_are_left_to_pillow() -> None:
    """A download that began anew where it had stopped: decoded, its lower part would be grey."""
    content = jpeg(160, 160)
    assert pictures._decode_plain(content[: len(content) // 2] + content) is None
    with pytest.raises(OSError, match="broken data"):
        pictures.decode(io.BytesIO(content[: len(content) // 2] + content))


def test_a_plain_picture_needs_no_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    content = jpeg(90, 60)
    expected = decode_with_pillow(content)
    monkeypatch.setattr(pictures.Image, "open", None)
    np.testing.assert_array_equal(pictures.decode(io.BytesIO(content)), expected)


def ask_zipfile(path: Path, name: str, size: int | None = None) -> bytes | str:
    """What a member starts with by zipfile, or its complaint."""
    try:
        with ZipFile(path) as archive, archive.open(name) as file:
            return file.read(archive.getinfo(name).file_size + 1 if size is None else size)
    except zips.ZIP_ERRORS as error:
        return str(error)


@pytest.mark.parametrize("method", [ZIP_STORED, ZIP_DEFLATED])
def test_plain_members_are_read_at_once(tmp_path: Path, method: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path, content = tmp_path / "a.zip", jpeg(160, 160, quality=95)
    with ZipFile(path, "w", method) as archive:
        archive.writestr("소.jpg", content)
        archive.writestr("empty", b"")
    monkeypatch.setattr(ZipFile, "open", None)
    assert read_bytes(str(path), "소.jpg") == content
    assert read_bytes(str(path), "empty") == b""
    assert image_size(str(path), "소.jpg") == (160, 160)


@pytest.mark.parametrize("method", [ZIP_STORED, ZIP_DEFLATED])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=3),
       in_headers=st.booleans())
def test_damaged_members_are_read_as_zipfile_reads_them_or_not_at_all(
    tmp_path: Path, method: int, changes: list[tuple[float, int]], in_headers: bool
) -> None:
    path, head = tmp_path / "a.zip", jpeg(160, 160, quality=90)[:6000]
    with ZipFile(path, "w", method) as archive:
        for name in ("b.jpg", "소.jpg"):
            archive.writestr(name, head)
        starts = [info.header_offset for info in archive.infolist()]
    content = bytearray(path.read_bytes())
    for share, value in changes:
        content[starts[int(share * 2)] + int(share * 2 % 1 * 40) if in_headers else int(share * len(content))] = value
    path.write_bytes(content)
    try:
        zipped = zips.open_zip(str(path))
    except ValueError:
        return
    assert zipped is not None
    for name in zipped.file.namelist():
        assert (quick := zips.read_quickly(zipped, name)) is None or quick == ask_zipfile(path, name)
        assert (quick := zips.read_head(zipped, name)) == b"" or ask_zipfile(path, name, len(quick)) == quick


def test_damage_in_a_small_picture_is_found_by_its_sum(tmp_path: Path) -> None:
    path, content = tmp_path / "a.zip", jpeg(20, 20)
    with ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", content)
        archive.writestr("b.jpg", bytes(10_000))
    assert len(content) < zips.HEAD_BYTES
    path.write_bytes(path.read_bytes().replace(content, content[:-3] + b"\0" + content[-2:]))
    with pytest.raises(ValueError, match=r"a\.jpg: expected a picture.* Bad CRC"):
        image_size(str(path), "a.jpg")


def test_members_that_overlap_are_left_to_zipfile(tmp_path: Path) -> None:
    """One that says it has the next one's bytes too; newer versions of zipfile refuse it."""
    path = tmp_path / "a.zip"
    with ZipFile(path, "w") as archive:
        archive.writestr("a", b"a" * 10)
        archive.writestr("b", b"b" * 10)
        whole = b"a" * 10 + b"PK\3\4"
        info = archive.getinfo("a")
        info.file_size = info.compress_size = len(whole)
        info.CRC = zlib.crc32(whole)
    zipped = zips.open_zip(str(path))
    assert zipped is not None
    assert zips.read_quickly(zipped, "a") is None
    assert zips.read_quickly(zipped, "b") == b"b" * 10


@settings(max_examples=500)
@given(name=st.text(alphabet="a.B/소\\ ", max_size=12))
def test_names_are_split_as_paths_are(name: str) -> None:
    path = PurePosixPath(name)
    assert split_name(name) == (path.name, path.stem, path.suffix.lower())


def test_the_smallest_read_is_zipfiles() -> None:
    """Below it zipfile has seen a member whole and checks its sum, so that the quick way must not answer."""
    from zipfile import ZipExtFile

    assert zips.HEAD_BYTES >= ZipExtFile.MIN_READ_SIZE
