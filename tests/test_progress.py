"""Bars where somebody watches, two lines where nobody does."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from livestock.config import REPOSITORY
from livestock.files import progress as module
from livestock.files.progress import UNWATCHED, is_watched, progress, progress_bar, unwatched

LOOP = ("from livestock.files.logs import show_messages; from livestock.files.progress import progress; import time\n"
        "show_messages()\n"
        "for _ in progress(range(40), 'hashes', unit='image'): time.sleep(0.02)")


def test_a_log_file_gets_one_line_at_the_start_and_one_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress([3, 4], "hashes", unit="image")) == [3, 4]
    out, err = capsys.readouterr()
    assert out == ""  # where results go
    assert re.fullmatch(r"hashes: 2 images \.\.\.\nhashes: 2 images, \d+\.\d s\n", err)


def test_a_length_can_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(iter("a"), "names", unit="name", total=1)) == ["a"]
    assert list(progress(iter([]), "names", unit="name")) == []
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r"\d\.\d s", "S s", line) for line in lines] == [
        "names: 1 name ...", "names: 1 name, S s", "names ...", "names: 0 names, S s"]


def test_what_stops_early_says_how_far_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), progress_bar("training", unit="epoch", total=2000) as bar:
        bar.n = 1.5
        bar.set_postfix({"AP": "0.5"})
        bar.refresh()
        raise RuntimeError
    assert "training: 1.5 of 2,000 epochs, " in capsys.readouterr().err


def test_a_terminal_gets_a_bar() -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    process = subprocess.Popen([sys.executable, "-c", LOOP], stdout=subprocess.PIPE, stderr=theirs)  # noqa: S603
    os.close(theirs)
    found = b""
    while True:
        try:
            found += os.read(ours, 4096)
        except OSError:  # what Linux says when the other side is closed
            break
    os.close(ours)
    assert process.communicate()[0] == b""
    assert b"40/40" in found
    assert b"..." not in found


class Kernel:
    """What standard error is in a notebook: not a terminal, and of ipykernel's."""

    def isatty(self) -> bool:
        return False


Kernel.__module__ = "ipykernel.iostream"


def test_a_notebook_is_watched_unless_livestock_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(UNWATCHED, raising=False)
    assert not is_watched()
    monkeypatch.setattr(module.sys, "stderr", Kernel())
    assert is_watched()
    with unwatched():
        assert not is_watched()
        assert os.environ[UNWATCHED]  # kernels get it
    assert UNWATCHED not in os.environ


def test_only_this_module_draws_bars() -> None:
    """A bar drawn elsewhere would fill log files."""
    files = [*(REPOSITORY / "src").rglob("*.py"), *(REPOSITORY / "notebooks").glob("*.ipynb")]
    found = [path.relative_to(REPOSITORY) for path in files if path != Path(module.__file__)
             and re.search(r"\b(import|from) tqdm\b", path.read_text(encoding="utf-8"))]
    assert found == []
