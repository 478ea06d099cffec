"""Entry points of other packages are found by name, and a broken package affects no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from receiver.config import plugins
from receiver.errors import SettingsError
from tests.support.plugin_packages import site_packages, unpack, wheel

GROUP = "callback_receiver.tests"
BUILT_IN = frozenset({"webhook"})

Install = Callable[..., None]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    with site_packages(tmp_path / "site") as folder:
        yield folder


@pytest.fixture
def install(tmp_path: Path, site: Path) -> Install:
    """Install a package with these entry points."""

    def installed(name: str, entry_points: Mapping[str, str], source: str = "") -> None:
        unpack(wheel(tmp_path, name, GROUP, entry_points, source), site)

    return installed


def test_an_entry_point_is_loaded_by_its_name(install: Install) -> None:
    install("shop-one", {"shop": "shop_one:VALUE"}, "VALUE = 7")
    found = plugins.find(GROUP, BUILT_IN)
    assert found.problems == {}
    assert found.usable["shop"].load() == 7
    assert found.usable["shop"].package == "shop-one 1.0"


def test_finding_packages_imports_none_of_them(install: Install) -> None:
    install("shop-two", {"shop": "shop_two:VALUE"}, "raise RuntimeError")
    assert list(plugins.find(GROUP, BUILT_IN).usable) == ["shop"]


@pytest.mark.parametrize(
    ("source", "value", "problem"),
    [
        ("import no_such_module", "broken:Hook", "ModuleNotFoundError: No module named 'no_such"),
        ("def", "broken:Hook", "SyntaxError: "),
        ("import sys; sys.exit(3)", "broken:Hook", "SystemExit: 3"),
        ("", "broken:Hook", "AttributeError: "),
        ("", "not a reference", ""),
    ],
)
def test_the_error_for_a_package_that_cannot_be_loaded_names_it(
    install: Install, source: str, value: str, problem: str
) -> None:
    install("broken", {"shop": value}, source)
    install("works", {"other": "works:VALUE"}, "VALUE = 1")
    found = plugins.find(GROUP, BUILT_IN)
    with pytest.raises(SettingsError) as caught:
        found.usable["shop"].load()
    assert str(caught.value).startswith(
        f'"shop" of the package broken 1.0 cannot be loaded: {problem}'
    )
    assert found.usable["other"].load() == 1


def test_a_built_in_name_cannot_be_replaced(install: Install) -> None:
    install("replacing", {"webhook": "replacing:X", "shop": "replacing:X"})
    found = plugins.find(GROUP, BUILT_IN)
    assert list(found.usable) == ["shop"]
    assert found.problems == {
        "webhook": '"webhook" is built in, and cannot be replaced by replacing 1.0'
    }


def test_the_error_for_two_packages_with_one_name_names_both(install: Install) -> None:
    install("first", {"shop": "first:X"})
    install("second", {"shop": "second:X", "other": "second:X"})
    found = plugins.find(GROUP, BUILT_IN)
    assert list(found.usable) == ["other"]
    (problem,) = found.problems.values()
    assert problem.startswith('"shop" is defined by ')
    assert "first 1.0" in problem
    assert "second 1.0" in problem


def test_a_package_with_unreadable_metadata_affects_no_other(install: Install, site: Path) -> None:
    install("unreadable", {"shop": "unreadable:X"})
    install("works", {"other": "works:X"})
    (site / "unreadable-1.0.dist-info/entry_points.txt").write_bytes(b"\xff\xfe[\0")
    with capture_logs() as logged:
        found = plugins.find(GROUP, BUILT_IN)
    assert list(found.usable) == ["other"]
    assert [line["folder"] for line in logged] == [str(site)]


def test_a_package_that_is_installed_twice_is_one_package(install: Install, tmp_path: Path) -> None:
    entry_points = {"shop": "shop_three:X"}
    install("shop-three", entry_points)
    with site_packages(tmp_path / "other") as other:
        unpack(wheel(tmp_path, "shop-three", GROUP, entry_points, ""), other)
        found = plugins.find(GROUP, BUILT_IN)
    assert (list(found.usable), found.problems) == (["shop"], {})
