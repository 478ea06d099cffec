"""The import contracts cover every module, including later ones that are listed nowhere.

Each case is an import that a contract forbids. All of them are written into one copy of the
packages, and `lint-imports` runs there once.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import grimp
import pytest

from tests.support import shape

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
LINTER: dict[str, Any] = PROJECT["tool"]["importlinter"]
CONTRACTS: list[dict[str, Any]] = LINTER["contracts"]

NO_SUBMITTER = "The receiver does not import the submitter"
SANDBOX_AND_RECEIVER = "The sandbox and the receiver share no code"
SANDBOX_AND_SUBMITTER = "The sandbox and the submitter share no code"
RECEIVER_LAYERS = "Layers of the receiver"
SUBMITTER_LAYERS = "Layers of the submitter"
SANDBOX_LAYERS = "Layers of the sandbox"
RECEIVER_ADAPTERS = "Provider adapters of the receiver import no siblings"
SUBMITTER_ADAPTERS = "Provider adapters of the submitter import no siblings"
HOOKS = "Hook types import no siblings"
BROKERS = "Brokers import no siblings"
CLIENTS = "Clients of brokers only in their adapters"
STORES = "Stores import no siblings"
DELIVERY_LAYERS = "Layers of the delivery package"
SQLITE = "SQLite only in its store"
PSYCOPG = "psycopg only in the PostgreSQL store"
PROCRASTINATE = "Procrastinate only in its dispatcher and the PostgreSQL store"
FLASK = "Flask only in the web process, the submitter's API and the sandbox"
JINJA = "Jinja only in the templates of hooks"
FLASK_INDIRECTLY = "No other process imports what imports Flask"
HTTP = "HTTP clients only where outgoing requests are guarded, and in the sandbox"
WEB = "The web process reaches no hook and makes no outgoing request"
RECORD = "The submitter imports the record, not the processes around it"
PROCESSES = "Nor does the submitter reach those processes indirectly"


@dataclass(frozen=True)
class Violation:
    """A line that breaks the contract when it is added to the file, which may be a new one."""

    contract: str
    file: str
    line: str

    @property
    def importer(self) -> str:
        return self.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def imported(self) -> str:
        (statement,) = ast.parse(self.line).body
        if isinstance(statement, ast.ImportFrom):
            return f"{statement.module}.{statement.names[0].name}"
        assert isinstance(statement, ast.Import)
        return statement.names[0].name


VIOLATIONS = [
    Violation(NO_SUBMITTER, "receiver/zz_new.py", "from submitter import settings"),
    Violation(NO_SUBMITTER, "receiver/doctor/zz_new.py", "from submitter import client"),
    Violation(SANDBOX_AND_RECEIVER, "sandbox/zz_new.py", "from receiver import signing"),
    Violation(SANDBOX_AND_RECEIVER, "receiver/zz_new.py", "from sandbox import clock"),
    Violation(SANDBOX_AND_SUBMITTER, "sandbox/zz_new.py", "from submitter import text"),
    Violation(SANDBOX_AND_SUBMITTER, "submitter/zz_new.py", "from sandbox import clock"),
    Violation(RECEIVER_LAYERS, "receiver/tasks.py", "from receiver import events"),
    Violation(
        RECEIVER_LAYERS, "receiver/maintenance/prune.py", "from receiver.delivery import chores"
    ),
    Violation(SUBMITTER_LAYERS, "submitter/errors.py", "from submitter import settings"),
    Violation(SUBMITTER_LAYERS, "submitter/providers/zz_new.py", "from submitter import session"),
    Violation(SANDBOX_LAYERS, "sandbox/clock.py", "from sandbox import engine"),
    Violation(SANDBOX_LAYERS, "sandbox/providers/kling.py", "from sandbox.web import app"),
    Violation(
        RECEIVER_ADAPTERS, "receiver/providers/zz_new.py", "from receiver.providers import kling"
    ),
    Violation(
        RECEIVER_ADAPTERS, "receiver/providers/kling.py", "from receiver.providers import modellix"
    ),
    Violation(
        RECEIVER_ADAPTERS, "receiver/providers/base.py", "from receiver.providers import appypie"
    ),
    Violation(
        SUBMITTER_ADAPTERS, "submitter/providers/zz_new.py", "from submitter.providers import kling"
    ),
    Violation(
        SUBMITTER_ADAPTERS,
        "submitter/providers/modellix.py",
        "from submitter.providers import kling",
    ),
    Violation(
        SUBMITTER_ADAPTERS,
        "submitter/providers/kling_envelope.py",
        "from submitter.providers import appypie",
    ),
    Violation(HOOKS, "receiver/hooks/zz_new.py", "from receiver.hooks import slack"),
    Violation(HOOKS, "receiver/hooks/zz_package/zz_new.py", "from receiver.hooks import python"),
    Violation(HOOKS, "receiver/hooks/webhook.py", "from receiver.hooks import email"),
    Violation(HOOKS, "receiver/hooks/wording.py", "from receiver.hooks import command"),
    Violation(HOOKS, "receiver/hooks/slack.py", "from receiver.hooks import brokers"),
    Violation(BROKERS, "receiver/hooks/brokers/sqs.py", "from receiver.hooks.brokers import redis"),
    Violation(
        BROKERS, "receiver/hooks/brokers/zz_new.py", "from receiver.hooks.brokers import sqs"
    ),
    Violation(BROKERS, "receiver/hooks/brokers/base.py", "from receiver.hooks.brokers import sqs"),
    Violation(CLIENTS, "receiver/hooks/zz_new.py", "import pika"),
    Violation(CLIENTS, "receiver/delivery/zz_new.py", "import redis"),
    Violation(STORES, "receiver/stores/zz_new.py", "from receiver.stores import sqlite"),
    Violation(STORES, "receiver/stores/sqlite/space.py", "from receiver.stores import postgres"),
    Violation(STORES, "receiver/stores/base.py", "from receiver.stores.sqlite import space"),
    Violation(
        DELIVERY_LAYERS,
        "receiver/delivery/worker_slots.py",
        "from receiver.delivery import leases",
    ),
    Violation(
        DELIVERY_LAYERS,
        "receiver/delivery/leases.py",
        "from receiver.delivery import procrastinate",
    ),
    Violation(SQLITE, "receiver/zz_new.py", "import sqlite3"),
    Violation(SQLITE, "receiver/doctor/__init__.py", "import sqlite3"),
    Violation(SQLITE, "receiver/doctor/record.py", "import sqlite3"),
    Violation(SQLITE, "receiver/maintenance/forget.py", "import sqlite3"),
    Violation(SQLITE, "receiver/maintenance/prune.py", "import sqlite3"),
    Violation(SQLITE, "receiver/delivery/chores.py", "import sqlite_utils"),
    Violation(SQLITE, "receiver/delivery/zz_new.py", "import sqlite3"),
    Violation(SQLITE, "receiver/maintenance/copy.py", "from sqlite3 import dbapi2"),
    Violation(SQLITE, "receiver/stores/sql/database.py", "import sqlite3"),
    Violation(SQLITE, "receiver/stores/postgres/wire.py", "import sqlite3"),
    Violation(SQLITE, "submitter/zz_new.py", "import sqlite3"),
    Violation(SQLITE, "sandbox/zz_new.py", "import sqlite3"),
    Violation(PSYCOPG, "receiver/zz_new.py", "import psycopg"),
    Violation(PSYCOPG, "receiver/web/zz_new.py", "import psycopg_pool"),
    Violation(PSYCOPG, "receiver/stores/sqlite/writer.py", "import psycopg"),
    Violation(PSYCOPG, "receiver/stores/base.py", "import psycopg"),
    Violation(PSYCOPG, "receiver/delivery/procrastinate.py", "import psycopg"),
    Violation(PSYCOPG, "submitter/zz_new.py", "import psycopg"),
    Violation(PROCRASTINATE, "receiver/zz_new.py", "import procrastinate"),
    Violation(PROCRASTINATE, "receiver/stores/sqlite/schema.py", "import procrastinate"),
    Violation(FLASK, "receiver/zz_new.py", "import flask"),
    Violation(FLASK, "receiver/maintenance/repair.py", "import werkzeug"),
    Violation(FLASK, "receiver/doctor/zz_new.py", "import flask_wtf"),
    Violation(FLASK, "submitter/zz_new.py", "import flask"),
    Violation(
        FLASK_INDIRECTLY, "receiver/delivery/attempt.py", "from receiver.web import problems"
    ),
    Violation(JINJA, "receiver/hooks/zz_new.py", "import jinja2"),
    Violation(JINJA, "receiver/ingest.py", "from jinja2 import sandbox"),
    Violation(FLASK_INDIRECTLY, "receiver/cli/zz_new.py", "from receiver.web import callbacks"),
    Violation(FLASK_INDIRECTLY, "submitter/zz_new.py", "from submitter import api"),
    Violation(HTTP, "receiver/zz_new.py", "import requests"),
    Violation(HTTP, "receiver/web/zz_new.py", "import requests"),
    Violation(HTTP, "receiver/hooks/zz_new.py", "import urllib3"),
    Violation(HTTP, "submitter/providers/zz_new.py", "import requests_hardened"),
    Violation(WEB, "receiver/web/zz_new.py", "import requests"),
    Violation(WEB, "receiver/web/dashboard/zz_new.py", "from receiver.hooks import base"),
    Violation(WEB, "receiver/web/zz_new.py", "from receiver.outgoing import http"),
    Violation(WEB, "receiver/web/zz_new.py", "import smtplib"),
    Violation(WEB, "receiver/ingest.py", "from receiver.delivery import attempt"),
    Violation(WEB, "receiver/serializers/records.py", "from receiver.outgoing import ssrf_guard"),
    Violation(RECORD, "submitter/zz_new.py", "from receiver import web"),
    Violation(RECORD, "submitter/zz_new.py", "from receiver import zz_new"),
    Violation(RECORD, "submitter/zz_new.py", "from receiver.maintenance import prune"),
    Violation(RECORD, "submitter/cli/tasks.py", "from receiver.doctor import checkup"),
    Violation(RECORD, "submitter/session.py", "from receiver.stores import sqlite"),
    Violation(PROCESSES, "submitter/zz_new.py", "from receiver import web"),
    Violation(PROCESSES, "receiver/console/output.py", "from receiver.delivery import hook_tests"),
]


def copy_with(violations: list[Violation], folder: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in LINTER["root_packages"]:
        for source in (ROOT / package).rglob("*.py"):
            target = folder / source.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    for violation in violations:
        file = folder / violation.file
        if not file.parent.exists():
            file.parent.mkdir()
            (file.parent / "__init__.py").touch()
        with file.open("a") as module:
            module.write(f"\n{violation.line}\n")


def lint(folder: Path) -> str:
    done = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "lint-imports"), "--config", "pyproject.toml"),
            *("--no-logo", "--no-cache"),
        ],
        cwd=folder,
        env=os.environ | {"COLUMNS": "1000"},  # so that no name is wrapped
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the report of `lint-imports` on each broken contract, by the name of the contract."""
    folder = tmp_path_factory.mktemp("violations")
    copy_with(VIOLATIONS, folder)
    text = lint(folder).partition("Broken contracts")[2]
    _, *parts = re.split(r"^(\S.*)\n-+\n", text, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize(
    "violation", VIOLATIONS, ids=lambda one: f"{one.importer} -> {one.imported}: {one.contract}"
)
def test_a_forbidden_import_breaks_its_contract(
    violation: Violation, report: dict[str, str]
) -> None:
    links = re.findall(r"(\S+) -> (\S+) \(l\.", report.get(violation.contract, ""))
    imported = violation.imported
    if not imported.startswith(tuple(LINTER["root_packages"])):
        # the linter treats each of the other packages as one module
        imported = imported.partition(".")[0]
    assert (violation.importer, imported) in links, report.get(violation.contract)


@pytest.mark.parametrize(
    ("contract", "module"),
    [
        (RECEIVER_LAYERS, "receiver.zz_new"),
        (DELIVERY_LAYERS, "receiver.delivery.zz_new"),
        (SUBMITTER_LAYERS, "submitter.zz_new"),
        (SANDBOX_LAYERS, "sandbox.zz_new"),
    ],
)
def test_a_module_without_a_layer_breaks_the_contract(
    contract: str, module: str, report: dict[str, str]
) -> None:
    _, _, unlisted = report[contract].partition("not listed as layers")
    assert re.findall(r"^- (\S+)$", unlisted, re.MULTILINE) == [module]


def test_each_contract_is_broken_by_a_case() -> None:
    assert {one.contract for one in VIOLATIONS} == {one["name"] for one in CONTRACTS}


def test_an_allowed_importer_imports_what_the_contract_allows() -> None:
    graph = grimp.build_graph(
        *LINTER["root_packages"], include_external_packages=True, cache_dir=None
    )
    for contract in CONTRACTS:
        protected = contract.get("protected_modules", ())
        importers = set(
            chain.from_iterable(map(graph.find_modules_that_directly_import, protected))
        )
        for allowed in contract.get("allowed_importers", ()):
            within = {allowed} | graph.find_descendants(allowed)
            assert importers & within, f"{contract['name']}: {allowed} imports none of {protected}"


def test_the_contracts_cover_every_package() -> None:
    """The packages that are shipped are also linted, type-checked and measured."""
    tool = PROJECT["tool"]
    packages = [
        name.removesuffix("*") for name in tool["setuptools"]["packages"]["find"]["include"]
    ]
    assert LINTER["root_packages"] == packages
    assert tool["mypy"]["files"][: len(packages)] == packages
    assert tool["coverage"]["run"]["source"] == packages


@pytest.mark.parametrize("file", ["wsgi.py", "gunicorn.conf.py"])
def test_a_module_outside_the_packages_only_calls_them(file: str) -> None:
    """The linter reads packages only, so it does not check these modules."""
    statements = list(ast.walk(ast.parse((ROOT / file).read_text())))
    names = [one.name for node in statements if isinstance(node, ast.Import) for one in node.names]
    names += [str(node.module) for node in statements if isinstance(node, ast.ImportFrom)]
    assert names
    assert {name.partition(".")[0] for name in names} <= {"receiver", "submitter", "sys"}


@pytest.mark.parametrize("line", ["import http.client", "from urllib import request"])
@pytest.mark.parametrize(
    "file", ["receiver/web/zz_new.py", "receiver/zz_new.py", "submitter/zz_new.py"]
)
def test_no_request_is_made_with_the_standard_library(line: str, file: str) -> None:
    """The linter cannot distinguish `http.client` from `http.HTTPStatus`, but ruff can."""
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--stdin-filename", file, "-"],
        cwd=ROOT,
        input=f"{line}\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert "TID251" in done.stdout, done.stdout + done.stderr


def test_few_modules_of_the_receiver_are_outside_its_packages() -> None:
    assert len(shape.loose_modules("receiver")) <= shape.MOST_LOOSE_MODULES


@pytest.mark.parametrize("package", shape.PACKAGES)
def test_class_names_are_unique_within_a_package(package: str) -> None:
    assert shape.repeated_classes(package) == {}


def test_there_are_no_import_cycles() -> None:
    """This includes cycles within a package and imports for types only."""
    assert shape.import_cycles() == []


def test_an_import_cycle_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cyclic"
    folder.mkdir()
    for name, text in {
        "__init__": "",
        "first": "from cyclic import second",
        "second": "from cyclic.third import NAME",
        "third": "def function() -> None:\n    from cyclic import first",
        "fourth": "from cyclic import first",
    }.items():
        (folder / f"{name}.py").write_text(f"{text}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(shape, "PACKAGES", ("cyclic",))
    assert shape.import_cycles() == [["cyclic.first", "cyclic.second", "cyclic.third"]]
