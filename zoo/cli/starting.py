"""Importing TensorFlow from the command line: a word before it, since it takes seconds, and none of its log lines."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

from zoo.cli.progress import say

# A sentence about its log, and lines of it, such as `I0000 00:00:1.2 3 x.cc:4] `.
_START_UP = re.compile(rb"WARNING: All log messages before absl|[IW]\d{4} [\d:. ]+ \S+:\d+\] |To enable the following ")


def start() -> None:
    """Imports TensorFlow and `tfp_bnn`, unless that has been done. What is refused without them comes first."""
    if "tfp_bnn" in sys.modules:
        return
    say("starting TensorFlow ...")
    with without_start_up_lines():
        import tfp_bnn  # noqa: F401


@contextlib.contextmanager
def without_start_up_lines() -> Iterator[None]:
    """Keeps the lines from stderr that TensorFlow logs in a block; what else is written there comes after the block.

    TensorFlow writes them from C++, before the level of its log is set, so no variable turns them off.
    """
    try:
        file = tempfile.TemporaryFile()
    except OSError:
        # There is no place for temporary files: the lines do no harm.
        yield
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            file.seek(0)
            kept = [line for line in file if not _START_UP.match(line)]
            os.write(2, b"".join(kept))
