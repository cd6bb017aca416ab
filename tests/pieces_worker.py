"""A worker of a queue of pieces as a process of its own, to be killed; each piece is a line in a ledger and a file."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path

from livestock.search import storage as places
from livestock.search.pieces import share_pieces


def main() -> None:
    """Works as `sys.argv` says, in JSON: `storage`, `pieces`, `folder`, `seconds`, `host`."""
    given = json.loads(sys.argv[1])
    socket.gethostname = lambda: given["host"]
    places.HEARTBEAT_SECONDS, places.GRACE_SECONDS = 1, 5

    def write(event: str, piece: str) -> None:
        with open(Path(given["folder"], "ledger"), "a") as file:
            file.write(json.dumps({"pid": os.getpid(), "event": event, "piece": piece}) + "\n")

    def work(piece: str) -> None:
        write("begun", piece)
        time.sleep(given["seconds"])
        Path(given["folder"], piece).write_text(piece)
        write("ended", piece)

    share_pieces(given["storage"], "pieces", given["pieces"], work)


if __name__ == "__main__":
    main()
