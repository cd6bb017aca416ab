"""Bytes come out of zips and folders alike, and nothing that climbs out of them is let in."""

from __future__ import annotations

import io
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
from PIL import Image

from livestock.archives import image_size, list_members, read_bytes, read_image

KOREAN = "돼지/사진.jpg"


def picture(width: int = 40, height: int = 20, mode: str = "RGB", form: str = "PNG", turned: int = 0) -> bytes:
    """A picture that is red at the left and blue at the right, with an EXIF orientation if `turned`."""
    array = np.zeros((height, width, 3), np.uint8)
    array[:, : width // 2, 0] = array[:, width // 2 :, 2] = 255
    exif, content = Image.Exif(), io.BytesIO()
    if turned:
        exif[0x0112] = turned
    Image.fromarray(array).convert(mode).save(content, form, exif=exif)
    return content.getvalue()


def raw_zip(path: Path, name: bytes, utf8_flag: bool, content: bytes = b"x", encrypted: bool = False) -> Path:
    """A zip whose one member's name is these bytes, as foreign tools write it."""
    placeholder = "z" * len(name)
    with ZipFile(path, "w") as archive:
        archive.writestr(placeholder, content)
    data = bytearray(path.read_bytes().replace(placeholder.encode(), name))
    flags = (0x800 if utf8_flag else 0) | (0x1 if encrypted else 0)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset : data.index(mark) + offset + 2] = flags.to_bytes(2, "little")
    path.write_bytes(bytes(data))
    return path


@pytest.mark.parametrize(
    ("encoded", "flag"),
    [(KOREAN.encode("cp949"), False), (KOREAN.encode(), False), (KOREAN.encode(), True),
     (unicodedata.normalize("NFD", KOREAN).encode(), True)],
    ids=["cp949", "utf-8 without flag", "utf-8 with flag", "decomposed"],
)
def test_korean_names_in_every_spelling(tmp_path: Path, encoded: bytes, flag: bool) -> None:
    path = raw_zip(tmp_path / "a.zip", encoded, flag, b"content")
    (member,) = list_members(path)
    assert member.name == KOREAN
    assert read_bytes(str(path), member.raw) == b"content"


def test_utf8_comes_before_cp949(tmp_path: Path) -> None:
    """These bytes mean something in both: three syllables of nonsense in cp949."""
    name = "축사"
    assert name.encode().decode("cp949") != name
    (member,) = list_members(raw_zip(tmp_path / "a.zip", name.encode(), False, b"content"))
    assert member.name == name


def test_a_folder_reads_like_a_zip(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/a.txt").write_bytes(b"1234")
    (member,) = list_members(tmp_path)
    assert (member.name, member.size) == ("deep/a.txt", 4)
    assert read_bytes(str(tmp_path), member.raw) == b"1234"


@pytest.mark.parametrize("name", [b"../x.jpg", b"a/../../x.jpg", b"/x.jpg", b"C:/x.jpg", b"..\\x.jpg"])
def test_names_that_climb_out_are_refused(tmp_path: Path, name: bytes) -> None:
    with pytest.raises(ValueError, match=r"a\.zip: member .*leaves the archive's folder"):
        list_members(raw_zip(tmp_path / "a.zip", name, utf8_flag=True))


def test_encrypted_and_oversized_members_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"e\.zip: member 'a\.jpg' is encrypted"):
        list_members(raw_zip(tmp_path / "e.zip", b"a.jpg", utf8_flag=False, encrypted=True))
    with ZipFile(tmp_path / "bomb.zip", "w", ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", bytes(2000))
    with pytest.raises(ValueError, match=r"bomb\.zip: member 'a\.jpg': 2,000 bytes, more than 1,000"):
        list_members(tmp_path / "bomb.zip", max_bytes=1000)


def test_what_is_no_zip_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK not really")
    with pytest.raises(ValueError, match=r"a\.zip: expected a zip archive"):
        list_members(tmp_path / "a.zip")


def test_a_missing_or_broken_member_is_named(tmp_path: Path) -> None:
    path = raw_zip(tmp_path / "a.zip", b"a.jpg", utf8_flag=False, content=b"12345678")
    with pytest.raises(ValueError, match=r"a\.zip: b\.jpg: cannot be read"):
        read_bytes(str(path), "b.jpg")
    path.write_bytes(path.read_bytes().replace(b"12345678", b"1234567X"))
    with pytest.raises(ValueError, match=r"a\.zip: a\.jpg: cannot be read: Bad CRC"):
        read_bytes(str(path), "a.jpg")


@pytest.mark.parametrize(("mode", "form"), [("RGB", "JPEG"), ("RGB", "PNG"), ("RGBA", "PNG"), ("L", "JPEG")])
@pytest.mark.parametrize("turned", [0, 1, 3, 6, 8])
def test_the_header_says_what_the_picture_is(tmp_path: Path, mode: str, form: str, turned: int) -> None:
    (tmp_path / "a.img").write_bytes(picture(mode=mode, form=form, turned=turned))
    read = read_image(str(tmp_path), "a.img")
    assert read.dtype == np.uint8
    assert read.shape[:2] == image_size(str(tmp_path), "a.img")[::-1]
    assert read.shape == ((40, 20, 3) if turned in (6, 8) else (20, 40, 3))


def test_colours_are_red_green_blue(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    read = read_image(str(tmp_path), "a.png")
    assert read[5, 5].tolist() == [255, 0, 0]
    assert read[5, 35].tolist() == [0, 0, 255]


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a\.jpg: expected a picture that can be decoded"):
        read_image(str(tmp_path), "a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg: expected a picture, found no readable header"):
        image_size(str(tmp_path), "a.jpg")


def test_many_threads_read_one_zip(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    contents = {f"{i}.bin": np.random.default_rng(i).bytes(5000) for i in range(200)}
    with ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda name: read_bytes(str(path), name), contents)) == list(contents.values())


def test_a_zip_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    path = raw_zip(tmp_path / "a.zip", b"a", utf8_flag=False, content=b"old")
    assert read_bytes(str(path), "a") == b"old"
    raw_zip(path, b"a", utf8_flag=False, content=b"new!")
    assert read_bytes(str(path), "a") == b"new!"
