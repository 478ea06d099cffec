"""Runs gunicorn for the web process of `receiver serve`.

gunicorn puts the working directory first on `sys.path`, unless it is there already. Put last, a
folder in it that has the name of one of our packages is not imported instead of ours.
"""

from __future__ import annotations

import sys

from gunicorn.app.wsgiapp import run
from gunicorn.util import getcwd

if __name__ == "__main__":
    sys.path.append(getcwd())
    run(prog="gunicorn")
