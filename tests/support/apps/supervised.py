"""`receiver serve` for other commands, which are given by name in a JSON object.

`python -m tests.support.apps.supervised '{"worker": ["sleep", "9"]}' 0` restarts them immediately.
"""

from __future__ import annotations

import json
import sys

from receiver.processes import serve

serve.DELAYS = (float(sys.argv[2]),)
sys.exit(serve.supervise(json.loads(sys.argv[1])))
