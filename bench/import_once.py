"""Import the web process once, with a stub for `submitter.api`, and print the duration.

Runs in its own process, and imports nothing before the clock starts.
"""

import sys
import time
import types


class _Stub(types.ModuleType):
    """The part of the submitter's API that wsgi.py needs: no errors, no routes."""

    STATUS: dict[type, int] = {}  # noqa: RUF012 - it stands for a constant

    @staticmethod
    def blueprint(*_: object) -> object:
        from flask import Blueprint  # noqa: PLC0415 - importing Flask is measured as well

        return Blueprint("api_of_the_submitter", "submitter")


sys.path[0] = "."
package = types.ModuleType("submitter")
sys.modules["submitter.api"] = _Stub("submitter.api")
setattr(package, "api", sys.modules["submitter.api"])  # noqa: B010 - mypy knows no such attribute
sys.modules["submitter"] = package
wall, cpu = time.perf_counter(), time.process_time()
import wsgi  # noqa: E402, F401

wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(f'{{"wall": {wall:.4f}, "cpu": {cpu:.4f}}}')
