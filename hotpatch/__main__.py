"""The command ``hotpatch``, also ``python -m hotpatch``: from here on an interrupt ends it quietly, whatever it is at."""

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""Exit code after SIGINT, as shells have it."""
_IMPORTS = "<frozen importlib._bootstrap>"
"""Where the frames of an import that is going on come from."""
_SHOW_CURSOR = "\x1b[?25h"


def main() -> None:
    """Run the command line and exit with its code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else whoever started us had it ignored
        signal.signal(signal.SIGINT, _interrupted)
    try:
        from hotpatch.cli import main as command

        command()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        if signal.getsignal(signal.SIGINT) is _interrupted:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _interrupted(_number: int, frame: FrameType | None) -> None:
    """Raise :class:`KeyboardInterrupt`; during an import end at once, as native libraries abort where their start is interrupted."""
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTS:
            if sys.stderr is not None and sys.stderr.isatty():
                os.write(sys.stderr.fileno(), _SHOW_CURSOR.encode())  # progress may have hidden it
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
