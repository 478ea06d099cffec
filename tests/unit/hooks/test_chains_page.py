"""The chain in docs/chains.md sends the body that the page shows."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from receiver.config import hooks_file
from receiver.deliveries import File
from receiver.events import Media
from receiver.hooks.python import Python
from receiver.hooks.templates import Template, context_of
from tests.support.docs_pages import ROOT, blocks
from tests.support.hook_servers import notice

PAGE = {block.language: block.text for block in blocks(ROOT / "docs" / "chains.md")}


def test_the_shop_receives_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cutout.py").write_text(PAGE["python"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    entries = {
        entry.name: entry for entry in hooks_file.parse(PAGE["toml"], Path("x"), lambda _: None)
    }
    assert [entry.subscription.after for entry in entries.values()] == [None, "pictures", "cutout"]
    file = File("0", "/data/0.png", "ab" * 32, 3, "image/png")
    event = notice(media=(Media("image", "https://cdn.example/0.png", index="0"),)).with_files(
        (file,)
    )
    done = Python("cutout", entries["cutout"].options).send(event)
    event = replace(event, outputs={"cutout": done.output})
    shop = entries["shop"]
    assert shop.subscription.where is not None
    assert shop.subscription.where.unmet(event) is None
    body = Template(shop.options["body"], context_of("application/json"))
    shown = re.escape(PAGE["text"].strip()).replace("…", ".*").replace(r"/.*/", ".*/")
    assert re.fullmatch(shown, body.render(event, hook="shop", key="body"))
