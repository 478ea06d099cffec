"""Keeps the programs that tests start from reading a `.env` in the checkout."""

from __future__ import annotations

import os

from receiver.config.env_file import VARIABLE

NO_ENV_FILE = {VARIABLE: os.devnull}
