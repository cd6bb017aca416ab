"""Bytes come out of zips and folders alike, and nothing that climbs out of them is let in."""

from __future__ import annotations

import copy
import io
import os
import stat
import tracemalloc
import unicodedata
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_LZMA, ZipFile, ZipInfo

import numpy as np
import pytest
from PIL import Image

from livestock.data.archives import Limits, image_size, list_members, read_bytes, read_image

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


def test_a_link_is_refused(tmp_path: Path) -> None:
    with ZipFile(tmp_path / "a.zip", "w") as archive:
        link = ZipInfo("a.jpg")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match=r"a\.zip: member 'a\.jpg' is a link"):
        list_members(tmp_path / "a.zip")


def test_windows_separators_are_folders(tmp_path: Path) -> None:
    path = raw_zip(tmp_path / "a.zip", b"deep\\a.jpg", utf8_flag=False, content=b"content")
    (member,) = list_members(path)
    assert (member.name, read_bytes(str(path), member.raw)) == ("deep/a.jpg", b"content")


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"e\.zip: member 'a\.jpg' is encrypted"):
        list_members(raw_zip(tmp_path / "e.zip", b"a.jpg", utf8_flag=False, encrypted=True))


@pytest.mark.parametrize("method", [ZIP_BZIP2, ZIP_LZMA])
def test_what_would_unpack_without_a_bound_is_refused(tmp_path: Path, method: int) -> None:
    with ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("a.jpg", b"x")
    with pytest.raises(ValueError, match=rf"a\.zip: member 'a\.jpg': expected it stored or deflated.* method {method}"):
        list_members(tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("limits", "match"),
    [
        (Limits(member_bytes=1999), r"member 'a\.jpg': 2,000 bytes, more than 1,999"),
        (Limits(total_bytes=2999), r"3,000 bytes in all, more than 2,999"),
        (Limits(ratio=100, ratio_from=1999), r"member 'a\.jpg': 2,000 bytes in \d+, more than 100 times as many"),
        (Limits(member_bytes=2000, total_bytes=3000, ratio=100, ratio_from=3000), None),
        (Limits(ratio=250), None),
    ],
)
def test_bombs_are_refused(tmp_path: Path, limits: Limits, match: str | None) -> None:
    with ZipFile(tmp_path / "bomb.zip", "w", ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", bytes(2000))
        archive.writestr("b.jpg", np.random.default_rng(0).bytes(1000))
    if match is None:
        assert [member.size for member in list_members(tmp_path / "bomb.zip", limits)] == [2000, 1000]
        return
    with pytest.raises(ValueError, match=rf"bomb\.zip: {match}"):
        list_members(tmp_path / "bomb.zip", limits)


def test_many_names_for_the_same_bytes_are_a_bomb(tmp_path: Path) -> None:
    with ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("0.jpg", bytes(10_000))
        for i in range(1, 200):
            again = copy.copy(archive.filelist[0])
            again.filename = f"{i}.jpg"
            archive.filelist.append(again)
    assert len(list_members(tmp_path / "a.zip")) == 200
    with pytest.raises(ValueError, match=r"a\.zip: its members: 2,000,000 bytes in .* more than 50 times"):
        list_members(tmp_path / "a.zip", Limits(ratio=50, ratio_from=1000))


def forge_size(path: Path, size: int, crc: int | None = None) -> Path:
    """Another declared size, and checksum, of the one member of a zip, in both its headers."""
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 14), (b"PK\x01\x02", 16)):
        start = data.index(mark) + offset
        data[start + 8 : start + 12] = size.to_bytes(4, "little")
        if crc is not None:
            data[start : start + 4] = crc.to_bytes(4, "little")
    path.write_bytes(bytes(data))
    return path


def test_no_more_is_unpacked_than_was_declared(tmp_path: Path) -> None:
    def make(name: str) -> Path:
        with ZipFile(tmp_path / name, "w", ZIP_DEFLATED) as archive:
            archive.writestr("a.png", head + bytes(50_000_000 - len(head)))
        return tmp_path / name

    head = b"RIFF\0\0\0\0WEBPVP8 "  # a format whose files Pillow reads whole
    lies = forge_size(make("a.zip"), 10_000)
    forged = forge_size(make("b.zip"), 10_000, zlib.crc32(head + bytes(10_000 - len(head))))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"a\.zip: a\.png: cannot be read: Bad CRC"):
        read_bytes(str(lies), "a.png")
    with pytest.raises(ValueError, match=r"a\.zip: a\.png: expected a picture.* Bad CRC"):
        image_size(str(lies), "a.png")
    assert read_bytes(str(forged), "a.png") == head + bytes(10_000 - len(head))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
    with pytest.raises(ValueError, match=r"c\.zip: a\.png: cannot be read: expected 50,000,001 bytes, found 50,000,0"):
        read_bytes(str(forge_size(make("c.zip"), 50_000_001)), "a.png")
    with pytest.raises(ValueError, match=r"c\.zip: a\.png: cannot be read: 50,000,001 bytes, more than 1,000; refused"):
        read_bytes(str(tmp_path / "c.zip"), "a.png", max_bytes=1000)


def make_zip(path: Path, *names: str) -> Path:
    """A zip of members that hold their own name."""
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, name)
    return path


def test_a_zip_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    whole = make_zip(tmp_path / "a.zip", "a.jpg", "b.jpg").read_bytes()
    for n in range(len(whole)):
        (tmp_path / "a.zip").write_bytes(whole[:n])
        with pytest.raises(ValueError, match=r"a\.zip: expected a zip archive"):
            list_members(tmp_path / "a.zip")


@pytest.mark.parametrize("n", [1, 20, 50])
def test_a_zip_that_lost_its_start_is_refused(tmp_path: Path, n: int) -> None:
    path = make_zip(tmp_path / "a.zip", "a.jpg", "b.jpg")
    path.write_bytes(path.read_bytes()[n:])
    with pytest.raises(ValueError, match=rf"a\.zip: expected a zip.* its first member 'a\.jpg' at byte -{n} instead"):
        list_members(path)


def test_data_before_or_after_a_zip_is_refused(tmp_path: Path) -> None:
    first, second = (make_zip(tmp_path / name, name).read_bytes() for name in ("1.zip", "2.zip"))
    path = tmp_path / "a.zip"
    for content, found in [
        (first + second, rf"its first member '2\.zip' at byte {len(first)} instead of 0"),
        (b"#!/bin/sh" + first, r"its first member '1\.zip' at byte 9 instead of 0"),
        (first + b"\0", "bytes after the end of the archive"),
        (first + second[:-30], "bytes after the end of the archive"),
        (first + bytes(100_000), "File is not a zip file"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"a\.zip: expected a zip archive, found: {found}"):
            list_members(path)


def test_a_comment_and_an_empty_zip_are_no_fault(tmp_path: Path) -> None:
    with ZipFile(make_zip(tmp_path / "a.zip", "a.jpg"), "a") as archive:
        archive.comment = b"a comment"
    assert [member.name for member in list_members(tmp_path / "a.zip")] == ["a.jpg"]
    assert list_members(make_zip(tmp_path / "empty.zip")) == []


@pytest.mark.filterwarnings("ignore:Duplicate name")  # that is what is tried here
def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.zip: member 'b\.jpg' is there 2 times"):
        list_members(make_zip(tmp_path / "a.zip", "a.jpg", "b.jpg", "b.jpg"))


def test_names_that_differ_in_normal_form_are_both_read(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", KOREAN, unicodedata.normalize("NFD", KOREAN))
    members = list_members(path)
    assert [member.name for member in members] == [KOREAN, KOREAN]
    contents = {read_bytes(str(path), member.raw).decode() for member in members}
    assert contents == {KOREAN, unicodedata.normalize("NFD", KOREAN)}


def test_a_file_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xb5\xc5.jpg")).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"file '\\udcb5\\udcc5\.jpg': its name is not UTF-8"):
        list_members(tmp_path)


def test_a_hundred_thousand_members_within_bounded_memory(tmp_path: Path) -> None:
    with ZipFile(tmp_path / "a.zip", "w") as archive:
        for i in range(100_000):
            archive.writestr(ZipInfo(f"{i:06}.json"), b"x")
    tracemalloc.start()
    members = list_members(tmp_path / "a.zip")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    assert all(read_bytes(str(tmp_path / "a.zip"), member.raw) == b"x" for member in members[::10_000])
    reading = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert (len(members), members[-1].name) == (100_000, "099999.json")
    assert peak < 100_000_000
    assert reading < 1_000_000


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_zip_is_read_or_refused_by_name(tmp_path: Path, seed: int) -> None:
    """Random bytes of a zip changed, 100 times: whatever zipfile makes of it, callers see one kind of error."""
    rng, path = np.random.default_rng(seed), tmp_path / "a.zip"
    whole = make_zip(path, "a.jpg", KOREAN, "c.json").read_bytes()
    for _ in range(100):
        content = bytearray(whole)
        for place in rng.integers(0, len(whole), int(rng.integers(1, 6))):
            content[place] = rng.integers(0, 256)
        path.write_bytes(content)
        try:
            members = list_members(path)
            assert len(members) == 3
            for member in members:
                read_bytes(str(path), member.raw)
        except ValueError as error:
            assert str(path) in str(error)


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
    path = make_zip(tmp_path / "b.zip", "a" * 100)
    content = path.read_bytes()
    packed = zlib.compress(b"a" * 100)[2:-4]
    path.write_bytes(content.replace(packed, b"\xff" * len(packed)))
    with pytest.raises(ValueError, match=r"b\.zip: a+: cannot be read: Error -3 while decompressing"):
        read_bytes(str(path), "a" * 100)


@pytest.mark.parametrize(
    ("mode", "form"),
    [("RGB", "JPEG"), ("RGB", "PNG"), ("RGBA", "PNG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "TIFF"),
     ("RGB", "WEBP")],
)
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
