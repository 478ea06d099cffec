"""`receiver worker` on a disk that can fail or lose power, like `bench.apps.watched_disk`."""

from __future__ import annotations

import sys

from receiver.cli import main
from receiver.config.settings import load, sqlite_path
from tests.support.disk import Disk

disk = Disk(sqlite_path(load().database_url))
disk.install()
sys.argv[1:] = ["worker"]
main()
