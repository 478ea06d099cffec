"""The settings of one account, and all mistakes in them."""

from pathlib import Path

import pytest

from submitter.errors import ConfigurationError, InputError
from submitter.settings import AccountSettings


def test_each_account_has_its_own_settings() -> None:
    env = {"KLING_API_KEY": "one", "KLING_SHOP2_API_KEY": "two"}
    assert AccountSettings("kling", environment=env).secret("API_KEY") == "one"
    assert AccountSettings("kling", "shop2", env).secret("API_KEY") == "two"
    assert AccountSettings("kling", "shop3", env).secret("API_KEY") is None


@pytest.mark.parametrize("account", ["", "Shop", "2shop", "a-b", "a/b", "x" * 33, "a\n"])
def test_an_account_with_an_invalid_name_is_refused(account: str) -> None:
    with pytest.raises(InputError) as caught:
        AccountSettings("kling", account, {})
    assert caught.value.field == "account"


def test_a_key_may_be_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("from-a-file\n")
    found = AccountSettings("kling", environment={"KLING_API_KEY_FILE": str(path)})
    assert found.secret("API_KEY") == "from-a-file"


def test_the_base_url_falls_back_from_account_to_provider_to_default() -> None:
    both = {"KLING_BASE_URL": "https://a.example/", "KLING_SHOP2_BASE_URL": "https://b.example/x/"}
    assert AccountSettings("kling", "shop2", both).base_url("d") == "https://b.example/x"
    assert AccountSettings("kling", "shop3", both).base_url("d") == "https://a.example"
    assert AccountSettings("kling", "shop3", {}).base_url("d") == "d"


def test_all_mistakes_are_reported_together_and_no_key_is_shown() -> None:
    env = {
        "KLING_BASE_URL": "api.example.com",
        "KLING_API_KEY": "tell no one",
        "KLING_ACCESS_KEY_FILE": "/nowhere/key",
        "KLING_SECRET_KEY": "geheim\u00e9",
    }
    found = AccountSettings("kling", environment=env)
    found.base_url("d")
    for key in ("API_KEY", "ACCESS_KEY", "SECRET_KEY"):
        assert found.secret(key) is None
    with pytest.raises(ConfigurationError) as caught:
        found.check()
    named = [line.split(":")[0] for line in caught.value.problems]
    assert named == [
        "KLING_BASE_URL", "KLING_API_KEY", "KLING_ACCESS_KEY_FILE", "KLING_SECRET_KEY",
    ]  # fmt: skip
    assert "tell" not in str(caught.value)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["ftp://a.example", "https://", "https://u:p@a.example", "https://a.example?x=1",
     "https://a.example/#f", "https://[::1", "https://a.example:x", "https://a .example"],
)  # fmt: skip
def test_an_unusable_base_url_is_refused(url: str) -> None:
    found = AccountSettings("kling", environment={"KLING_BASE_URL": url})
    found.base_url("d")
    assert len(found.problems) == 1
    assert found.problems[0].startswith("KLING_BASE_URL: ")
