"""Settings are read from the environment, and all mistakes are reported together."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from receiver.config import settings
from receiver.config.settings import load
from receiver.config.table import all_settings
from receiver.environment import Setting
from receiver.errors import SettingsError

WEBHOOK_SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
SECRET = "0123456789abcdef"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DATABASE_URL", "PUBLIC_URL", "HOOKS_FILE", "WORKER_CONCURRENCY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CALLBACK_SECRETS", SECRET)
    monkeypatch.chdir(tmp_path)


def test_the_defaults_are_valid() -> None:
    found = load()
    assert found.database_url == "sqlite:///data/receiver.db"
    assert found.public_url is None
    assert found.hooks_file == Path("hooks.toml")


def test_all_mistakes_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://x")
    monkeypatch.setenv("PUBLIC_URL", "callbacks.example.com")
    monkeypatch.setenv("CALLBACK_SECRETS", "short")
    monkeypatch.setenv("WORKER_CONCURRENCY", "many")
    with pytest.raises(SettingsError) as caught:
        load()
    named = [line.split(":")[0] for line in caught.value.problems]
    assert named == ["CALLBACK_SECRETS", "DATABASE_URL", "PUBLIC_URL", "WORKER_CONCURRENCY"]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("WORKER_CONCURRENCY", "0", "between 1 and 64"),
        ("TRUSTED_PROXIES", "-1", "between 0 and 10"),
        ("PUBLIC_URL", "https://a.example/?x=1", "query"),
        ("PUBLIC_URL", "ftp://a.example", "https://"),
        ("PUBLIC_URL", "https://a.example/my shop", "space"),
        ("PUBLIC_URL", "https://a.example/\tx", "space|URL"),
        ("PUBLIC_URL", "https://\u2764.\u2764..example", "URL"),
        ("DATABASE_URL", "mysql://db/x", "not .* supported database .mysql.; .* postgresql://"),
        ("DATABASE_URL", "postgresql://db:port/x", "its port"),
        ("DATABASE_URL", "sqlite:///", "sqlite:///"),
        ("LOG_FORMAT", "xml", "use auto, json, console"),
        ("CORS_ORIGINS", "*", "not a list of origins; use exact ones"),
        ("CORS_ORIGINS", "https://shop.example, null", "not a list of origins"),
        ("CORS_ORIGINS", "shop.example", "not a list of origins"),
        ("CORS_ORIGINS", "https://*.shop.example/path", "not a list of origins"),
        ("CORS_ORIGINS", "https://user@shop.example", "not a list of origins"),
        ("TIMEZONE", "Europe/Nowhere", "not a time zone"),
        ("TIMEZONE", "../../etc/passwd", "not a time zone"),
        ("TIMEZONE", "Europe", "not a time zone"),
        ("KEEP_INPUTS", "perhaps", "use 1 or 0"),
        ("API_TOKEN", "fifteen-letters", "at least 16 characters"),
        ("API_TOKEN", "a token with a space", "contains a space .*; use at least 16"),
        ("DASHBOARD_PASSWORD", "seven77", "at least 8 characters"),
        ("SECRET_KEY", "short", "at least 16 characters"),
        ("KLING_WEBHOOK_SECRETS", "whsec_AA", "secret 1 is too short.*24 are required"),
        ("KLING_WEBHOOK_SECRETS", f"{WEBHOOK_SECRET}, whsec_AA", "secret 2 is too short"),
        ("KLING_WEBHOOK_SECRETS", f"whsec_{'a' * 31}", "it has 23 bytes.*receiver hooks secret"),
        ("CALLBACK_SECRETS", " , ", "characters"),
        ("CALLBACK_SECRETS", f"{SECRET},short", "characters"),
    ],
)
def test_the_error_states_the_remedy(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"{name}: .*{says}"):
        load()


def test_postgresql_requires_a_configured_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each machine would create a different one."""
    monkeypatch.setenv("DATABASE_URL", "postgres://user:password@db.example/receiver")
    assert load().database_url == "postgres://user:password@db.example/receiver"
    monkeypatch.delenv("CALLBACK_SECRETS")
    with pytest.raises(SettingsError, match="CALLBACK_SECRETS: required with PostgreSQL"):
        load()


@pytest.mark.parametrize(("value", "form"), [(None, "auto"), ("json", "json"), ("xml", "auto")])
def test_the_log_format_is_known_before_the_settings_are_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str | None, form: str
) -> None:
    monkeypatch.delenv("LOG_FORMAT", raising=False)
    if value is not None:
        (tmp_path / "form").write_text(f"{value}\n")
        monkeypatch.setenv("LOG_FORMAT_FILE", str(tmp_path / "form"))
    assert settings.log_format() == form
    monkeypatch.setenv("LOG_FORMAT_FILE", "/nowhere")
    assert settings.log_format() == "auto"  # `load` reports the mistake


def test_the_api_is_disabled_until_its_token_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("API_TOKEN", raising=False)
    assert load().api_token is None
    monkeypatch.setenv("API_TOKEN", SECRET)
    assert load().api_token == SECRET


def test_the_dashboard_is_disabled_until_its_password_is_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert load().dashboard_password is None
    (tmp_path / "password").write_text("open-sesame\n")
    monkeypatch.setenv("DASHBOARD_PASSWORD_FILE", str(tmp_path / "password"))
    assert load().dashboard_password == "open-sesame"


def test_the_session_key_is_derived_from_the_first_secret_unless_it_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CALLBACK_SECRETS", f"new-{SECRET},old-{SECRET}")
    derived = load().session_key
    monkeypatch.setenv("CALLBACK_SECRETS", f"new-{SECRET}")
    assert load().session_key == derived
    assert SECRET not in derived
    monkeypatch.setenv("CALLBACK_SECRETS", f"old-{SECRET}")
    assert load().session_key != derived
    monkeypatch.setenv("SECRET_KEY", f"own-{SECRET}")
    assert load().session_key == f"own-{SECRET}"


def test_origins_are_compared_as_browsers_send_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load().cors_origins == ()
    given = "https://Shop.example/, http://localhost:3000,https://shop.example:443"
    monkeypatch.setenv("CORS_ORIGINS", given)
    assert load().cors_origins == (
        "https://shop.example",
        "http://localhost:3000",
        "https://shop.example",
    )


def test_times_are_shown_in_the_configured_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (load().timezone, load().zone) == ("UTC", UTC)
    monkeypatch.setenv("TIMEZONE", "Europe/Berlin")
    assert (load().timezone, load().zone) == ("Europe/Berlin", ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize(
    ("value", "is_on"), [(None, False), ("", False), ("0", False), ("off", False), ("1", True)]
)
def test_inputs_are_stored_only_if_this_is_enabled(
    monkeypatch: pytest.MonkeyPatch, value: str | None, is_on: bool
) -> None:
    monkeypatch.delenv("KEEP_INPUTS", raising=False)
    if value is not None:
        monkeypatch.setenv("KEEP_INPUTS", value)
    assert load().keep_inputs is is_on


def test_an_error_contains_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBACK_SECRETS", "canary")
    with pytest.raises(SettingsError) as caught:
        load()
    assert "canary" not in str(caught.value)


def test_several_secrets_are_accepted_for_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBACK_SECRETS", f"new-{SECRET}, old-{SECRET},")
    assert load().callback_secrets == (f"new-{SECRET}", f"old-{SECRET}")


def test_a_setting_may_be_in_a_mounted_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}-from-a-file\n")
    monkeypatch.delenv("CALLBACK_SECRETS")
    monkeypatch.setenv("CALLBACK_SECRETS_FILE", str(tmp_path / "secret"))
    assert load().callback_secrets == (f"{SECRET}-from-a-file",)


def test_the_error_for_a_missing_file_contains_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBLIC_URL_FILE", "/nowhere")
    with pytest.raises(SettingsError, match="PUBLIC_URL_FILE: /nowhere"):
        load()


def test_a_generated_secret_is_created_once_and_readable_by_its_owner_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CALLBACK_SECRETS")
    first = load().callback_secrets
    assert load().callback_secrets == first
    path = tmp_path / "data" / "callback-secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(first[0]) >= 32
    assert [entry.name for entry in path.parent.iterdir()] == ["callback-secret"]


def test_processes_that_start_at_the_same_time_use_the_same_secret(tmp_path: Path) -> None:
    for attempt in range(20):
        url = f"sqlite:///{tmp_path}/{attempt}/receiver.db"
        with ThreadPoolExecutor(4) as pool:
            found = set(pool.map(settings.own_secret, [url] * 4))
        assert len(found) == 1


def test_a_data_directory_that_cannot_be_created_causes_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="CALLBACK_SECRETS: not set"):
        settings.own_secret(f"sqlite:///{tmp_path}/file/receiver.db")


@pytest.mark.parametrize(
    ("given", "used"),
    [
        (" https://callbacks.example.com \n", "https://callbacks.example.com"),
        ("https://callbacks.example.com//", "https://callbacks.example.com"),
        ("https://b\u00fccher.example", "https://xn--bcher-kva.example"),
        ("https://B\u00dcCHER.example:8443/shop/", "https://xn--bcher-kva.example:8443/shop"),
        ("http://user@\u4f8b\u3048.example", "http://user@xn--r8jz45g.example"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_a_public_url_is_trimmed_and_has_an_ascii_host(
    monkeypatch: pytest.MonkeyPatch, given: str, used: str
) -> None:
    monkeypatch.setenv("PUBLIC_URL", given)
    assert load().public_url == used


@pytest.mark.parametrize("setting", all_settings(), ids=lambda setting: setting.name)
def test_an_empty_setting_is_unset(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, setting: Setting[object]
) -> None:
    (tmp_path / "empty").write_text(" \n")
    expected = load()
    for name, value in ((setting.name, " "), (f"{setting.name}_FILE", "empty")):
        if setting.name != "CALLBACK_SECRETS":
            monkeypatch.setenv(name, value)
            assert load() == expected
