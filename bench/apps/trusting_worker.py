"""`receiver worker`, which trusts the root certificates in the file BENCH_ROOTS."""

from __future__ import annotations

import os
import sys

import requests.adapters

from receiver.cli import main

requests.adapters.DEFAULT_CA_BUNDLE_PATH = os.environ["BENCH_ROOTS"]
sys.argv[1:] = ["worker"]
main()
