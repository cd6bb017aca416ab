"""What the package says about its work goes through `logging`, under the name `livestock` and those below it.

A program that imports the package hears nothing until it configures logging itself or calls `show_messages`. The
notebooks and the command `livestock` call it: their users read plain lines on standard output.
"""

from __future__ import annotations

import logging
import sys

NAME = "livestock"
DETAILED = "%(asctime)s %(name)s %(levelname)s: %(message)s"


class MessageHandler(logging.StreamHandler):
    """Writes messages to standard output, and lines of progress to standard error.

    The streams are looked up for each message, because notebooks and tests replace them. A record's `end`, if it has
    one, is written instead of the end of the line.
    """

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr if getattr(record, "is_progress", False) else sys.stdout
        self.terminator = getattr(record, "end", "\n")
        super().emit(record)


def show_messages(level: int = logging.INFO) -> None:
    """Shows the package's messages from `level` up as plain lines; below INFO each with time, logger and level.

    A second call replaces the first. The messages are not handed on to the root logger, whose own handlers, as on
    Colab, would show each of them again.

    >>> import logging
    >>> show_messages()
    >>> logging.getLogger("livestock.data").info("read: %d images", 12)
    read: 12 images
    >>> show_messages(logging.WARNING)
    >>> logging.getLogger("livestock.data").info("read: %d images", 12)
    """
    logger = logging.getLogger(NAME)
    for handler in [each for each in logger.handlers if isinstance(each, MessageHandler)]:
        logger.removeHandler(handler)
    handler = MessageHandler()
    handler.setFormatter(logging.Formatter(DETAILED if level < logging.INFO else "%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
