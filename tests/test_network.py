"""No command and no notebook opens a connection that nobody asked for, or leaves files in the user's home folder.

Seen by the system's own tracing of each process and its children: what native code does, too, which patched sockets of
Python's do not see. Kernels and workers talk over the loopback device; a lookup of a name does not count as loopback,
though a resolver may listen there.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from livestock.config import REPOSITORY
from livestock.models.registry import FAMILIES
from livestock.models.yolov5.library import STARTER
from livestock.sample import draw_sample

CALLS = "connect,sendto,sendmsg,sendmmsg"
ADDRESS = re.compile(
    r'sa_family=AF_INET6?, sin6?_port=htons\((\d+)\).*?(?:inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)")')
DNS_PORT = 53
# Caches of what draws and of what runs a notebook: they hold fonts, a history of cells, a key to sign notebooks.
HOME_FILES = re.compile(r"\.cache/matplotlib/.*|\.config/matplotlib/.*|\.ipython/.*|\.local/share/jupyter/.*")
LIVESTOCK = [sys.executable, "-m", "livestock"]
MOST_SECONDS = 600  # of a traced command, which take 30; of all notebooks ten times as many


@dataclass(frozen=True)
class Traced:
    """What a command and its children did: addresses reached, files left in its home folder, and what it printed."""

    addresses: set[str]
    home_files: list[str]
    printed: str


@pytest.fixture(scope="module")
def strace() -> str:
    """The program that traces; tests that need it are skipped where it is missing or not allowed."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("no strace: install it (apt-get install strace) to see what connections are opened")
    child = "import subprocess; subprocess.run(['true'], check=True)"
    try:
        tried = run_group([program, "-f", "-o", os.devnull, sys.executable, "-c", child], seconds=60)
        why = tried.stderr.strip() if tried.returncode != 0 else ""
    except subprocess.TimeoutExpired as error:  # some sandboxes let it begin, and stop what it traces for ever
        why = str(error)
    if why:
        pytest.skip(f"strace cannot trace here ({why}): run where ptrace is allowed, such as with "
                    "docker run --cap-add=SYS_PTRACE")
    return program


def run_group(command: list[str], seconds: float, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command; raises TimeoutExpired after `seconds`, with all ended that it has started, traced or not."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,  # noqa: S603
                               start_new_session=True, **options)
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # strace alone would leave children that hold the pipes open
        with contextlib.suppress(subprocess.TimeoutExpired):  # of one that even the system cannot end
            process.communicate(timeout=30)
        raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def trace(strace: str, command: list[str], folder: Path, seconds: float = MOST_SECONDS) -> Traced:
    """Runs a command, which must succeed, in the repository and with an empty home folder."""
    log, home = folder / "calls.txt", folder / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_", "MPL"))}
    done = run_group([strace, "-f", "-qq", "-s", "64", "-e", f"trace={CALLS}", "-o", str(log), *command],
                     seconds, cwd=REPOSITORY, env={**environment, "HOME": str(home)})
    assert done.returncode == 0, f"{command}: {done.stderr[-3000:]}"
    files = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]
    return Traced(find_addresses(log.read_text(errors="replace")), sorted(files), done.stdout)


def find_addresses(calls: str) -> set[str]:
    """Addresses outside this machine, and resolvers wherever they are, from what strace wrote."""
    found = set()
    for port, *hosts in ADDRESS.findall(calls):
        host = hosts[0] or hosts[1]
        if not ip_address(host).is_loopback or int(port) == DNS_PORT:
            found.add(f"{host}, port {port}")
    return found


def assert_quiet(traced: Traced) -> None:
    """No address, and no file but the known caches."""
    assert traced.addresses == set()
    assert [name for name in traced.home_files if not HOME_FILES.fullmatch(name)] == []


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest drawn sample."""
    folder = tmp_path_factory.mktemp("raw")
    draw_sample(folder, seed=5, n_train=24, n_test=8, scale=0.15)
    return folder


def test_addresses_are_found_in_what_strace_writes() -> None:
    calls = """
    7 connect(3, {sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"}, 110) = -1 ENOENT (No such file or directory)
    7 connect(3, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("192.0.2.1")}, 16) = -1 EINPROGRESS (...)
    7 connect(3, {sa_family=AF_INET6, sin6_port=htons(80), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "2001:db8::1", \
&sin6_addr), sin6_scope_id=0}, 28 <unfinished ...>
    8 sendto(4, "x", 1, 0, {sa_family=AF_INET, sin_port=htons(9), sin_addr=inet_addr("198.51.100.2")}, 16) = 1
    8 connect(5, {sa_family=AF_INET, sin_port=htons(40123), sin_addr=inet_addr("127.0.0.1")}, 16) = 0
    8 connect(5, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("127.0.0.53")}, 16) = 0
    8 connect(5, {sa_family=AF_INET6, sin6_port=htons(40123), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "::1", \
&sin6_addr), sin6_scope_id=0}, 28) = 0
    """
    assert find_addresses(calls) == {
        "192.0.2.1, port 443", "2001:db8::1, port 80", "198.51.100.2, port 9", "127.0.0.53, port 53"}


def test_what_takes_too_long_is_ended_with_all_that_it_has_started() -> None:
    nap = "import subprocess; print(subprocess.Popen(['sleep', '9999']).pid, flush=True); input()"
    with pytest.raises(subprocess.TimeoutExpired) as late:
        run_group([sys.executable, "-c", nap], seconds=3, stdin=subprocess.PIPE)
    (child,) = late.value.stdout.split()
    deadline = time.monotonic() + 30
    while is_running(Path(f"/proc/{int(child)}/stat")):
        assert time.monotonic() < deadline, "it sleeps on"
        time.sleep(0.02)


def is_running(stat: Path) -> bool:
    """Whether a process is there and has not ended, from its file in /proc."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_tracing_sees_what_a_child_opens(strace: str, tmp_path: Path) -> None:
    """A datagram socket is only told its peer, an address reserved for documentation: nothing is sent."""
    child = "import socket; socket.socket(type=socket.SOCK_DGRAM).connect(('192.0.2.1', 9))"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    assert trace(strace, [sys.executable, "-c", code], tmp_path).addresses == {"192.0.2.1, port 9"}


def test_commands_stay_on_this_machine(strace: str, raw: Path, tmp_path: Path) -> None:
    truth, images = raw / "truth_test.csv", raw / "test"
    answer = tmp_path / "answer.csv"
    rows = [line.split(",") for line in truth.read_text().split()]
    answer.write_text("".join(f"{','.join([*row[:2], conf, *row[2:]])}\n" for row, conf in zip(
        rows, ["Conf", *["0.9"] * (len(rows) - 1)], strict=True)))
    for number, arguments in enumerate((
        ["--help"], ["sample", str(tmp_path / "drawn"), "--n-train", "12", "--n-test", "4", "--scale", "0.1"],
        ["score", str(truth), str(answer)], ["check", str(answer), "--images", str(images), "--weights", str(STARTER)],
    )):
        (tmp_path / str(number)).mkdir()
        assert_quiet(trace(strace, [*LIVESTOCK, *arguments], tmp_path / str(number)))


def test_models_in_other_formats_are_written_and_run_on_this_machine(strace: str, tmp_path: Path) -> None:
    """ONNX Runtime sends what runs it to its makers, and keeps an id of the machine, unless it is told not to."""
    code = f"""
from pathlib import Path
from livestock import export
from livestock.models.forward import load_for_inference
onnx = export.export_onnx(Path({str(STARTER)!r}), Path({str(tmp_path / "model.onnx")!r}))
load_for_inference(onnx)
import time; time.sleep(2)  # its sending begins in a thread
"""
    assert_quiet(trace(strace, [sys.executable, "-c", code], tmp_path))


@pytest.mark.parametrize("family", ["yolov5", *(pytest.param(name, marks=pytest.mark.long)
                                              for name in FAMILIES if name != "yolov5")])
def test_a_network_with_random_weights_is_made_and_used_on_this_machine(
    family: str, strace: str, tmp_path: Path
) -> None:
    """The libraries behind the families download weights and look for newer versions unless they are kept from it."""
    code = f"""
import torch
from livestock.models.base import Batch
from livestock.models.registry import get_family
family = get_family({family!r})
model = family.build(family.configure(["pig", "cow"], 288)).train()
batch = Batch(torch.rand(1, 3, 288, 288), [torch.tensor([[20.0, 20, 90, 120]])], [torch.tensor([1])],
              [torch.tensor([[[40.0, 50, 2]]])])
sum(family.make_loss(model, dict(family.defaults))(model, batch).values()).backward()
with torch.inference_mode():
    family.predict(model.eval(), batch.images)
"""
    assert_quiet(trace(strace, [sys.executable, "-c", code], tmp_path))


@pytest.mark.long
def test_all_notebooks_stay_on_this_machine(strace: str, raw: Path, tmp_path: Path) -> None:
    """Trainings, search, export and all: some minutes."""
    traced = trace(strace, [*LIVESTOCK, "run", "--profile", "smoke", "--data", str(raw), "--workspace",
                            str(tmp_path / "data")], tmp_path, 10 * MOST_SECONDS)
    assert (tmp_path / "data/answer.csv").exists()
    assert_quiet(traced)
