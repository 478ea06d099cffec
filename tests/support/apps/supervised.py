"""`receiver serve` for other commands, which are given by name in a JSON object.

`python -m tests.support.apps.supervised '{"worker": ["sleep", "9"]}' 0` restarts them immediately.
A third argument names the terminal that controls the process, which has to lead a session.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from receiver.processes import serve

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
for terminal in sys.argv[3:]:
    os.open(terminal, os.O_RDWR)  # a leader without a terminal gets the one that it opens
serve.DELAYS = (float(sys.argv[2]),)
sys.exit(serve.supervise(json.loads(sys.argv[1])))
