"""Who hears what: nobody who has only imported the package, plain lines in notebooks and commands."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from livestock import colab
from livestock.cli import app
from livestock.config import REPOSITORY
from livestock.files import logs
from livestock.files.write import write_text

SAMPLE = ["--n-train", "8", "--n-test", "2", "--scale", "0.1"]
DRAWING = "drawing the sample: 10 images"


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603


def test_an_import_is_silent_even_about_warnings(tmp_path: Path) -> None:
    code = ("import logging; from pathlib import Path; from livestock.sample import draw_sample\n"
            f"draw_sample(Path({str(tmp_path)!r}), n_train=8, n_test=2, scale=0.1)\n"
            "logging.getLogger('livestock.data').warning('unheard')")
    done = run_python(code)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_users_own_configuration_gets_the_messages() -> None:
    done = run_python("import logging, livestock; logging.basicConfig(level='INFO', format='%(name)s: %(message)s')\n"
                      "logging.getLogger('livestock.data').info('read')")
    assert done.stderr == "livestock.data: read\n"


def test_messages_are_plain_lines_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    logs.show_messages()
    logs.show_messages()  # once each, however often it is called
    logger = logging.getLogger("livestock.data")
    logger.info("read: %d images", 12)
    logger.debug("unheard")
    logger.warning("left out: 1")
    assert capsys.readouterr() == ("read: 12 images\nleft out: 1\n", "")


def test_a_message_can_leave_its_line_open(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("livestock.data")
    logger.info("[1/8] 01_eda ...", extra={"end": " "})
    logger.info("3 s")
    assert capsys.readouterr().out == "[1/8] 01_eda ... 3 s\n"


def test_the_root_logger_does_not_say_it_again() -> None:
    code = ("import logging, sys; from livestock.files.logs import show_messages\n"
            "logging.getLogger().addHandler(logging.StreamHandler(sys.stdout)); show_messages()\n"  # as on Colab
            "logging.getLogger('livestock.data').info('once')")
    assert run_python(code).stdout == "once\n"


def test_a_notebook_shows_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    logging.getLogger(logs.NAME).handlers.clear()
    colab.start(str(tmp_path))
    assert [type(handler) for handler in logging.getLogger(logs.NAME).handlers] == [logs.MessageHandler]


@pytest.mark.parametrize(("options", "heard"), [([], True), (["--quiet"], False), (["-q"], False)])
def test_a_command_says_what_it_does_unless_quiet(options: list[str], heard: bool, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [*options, "sample", str(tmp_path), *SAMPLE])
    assert done.exit_code == 0, done.output
    assert (DRAWING in done.stderr) is heard
    assert done.stdout == ""


@pytest.mark.parametrize("option", ["--verbose", "-v"])
def test_verbose_adds_time_and_logger(option: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [option, "sample", str(tmp_path), *SAMPLE])
    assert f"livestock.files.progress INFO: {DRAWING}" in done.stderr
    assert logging.getLogger(logs.NAME).level == logging.DEBUG


def test_details_are_there_for_who_asks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_text("pig", tmp_path / "a.txt")
    assert caplog.messages == []
    caplog.set_level(logging.DEBUG, "livestock")
    write_text("pig", tmp_path / "a.txt")
    assert caplog.messages == [f"{tmp_path / 'a.txt'}: written, 3 bytes"]


def test_quiet_still_prints_what_a_command_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text("ImageID,LabelName,XMin,XMax,YMin,YMax\na.jpg,cow,0,1,0,1\n")
    (tmp_path / "answer.csv").write_text("ImageID,LabelName,Conf,XMin,XMax,YMin,YMax\na.jpg,cow,0.9,0,1,0,1\n")
    done = CliRunner().invoke(app, ["--quiet", "score", str(tmp_path / "truth.csv"), str(tmp_path / "answer.csv")])
    assert "mAP" in done.stdout


def test_quiet_and_verbose_exclude_each_other(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["--quiet", "--verbose", "sample", str(tmp_path)])
    assert done.exit_code == 2
    assert "found both" in done.stderr


def test_nothing_but_commands_prints() -> None:
    """Whatever is printed from elsewhere cannot be turned off."""
    package = REPOSITORY / "src/livestock"
    found = [f"{path.relative_to(package)}:{number}" for path in package.rglob("*.py")
             if path.relative_to(package).parts[0] != "cli"
             for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
             if line.lstrip().startswith("print(")]
    assert [place.rpartition(":")[0] for place in found] == ["plots/sentences/words.py"]  # below a notebook's figure
