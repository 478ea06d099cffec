"""Keeps small copies of what was sent beside its task, where KEEP_INPUTS says so."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Iterator

from PIL import Image

from receiver.errors import NotFound, StoreError
from receiver.pictures.thumbnails import BROKEN, opened, thumbnail
from receiver.stores import Store
from submitter import images
from submitter.orders import Order

HUMAN, CLOTHS = "human", ("cloth", "cloth2")
UNUSABLE = (*BROKEN, Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError)

# Not structlog: in somebody's own program (`from submitter import submit`) it prints what it is
# told among that program's output.
log = logging.getLogger(__name__)


def keep(store: Store, task_id: str, order: Order) -> None:
    """Keep a thumbnail of each picture that is at hand. Whatever goes wrong stops nothing."""
    small = thumbnails(order)
    if not small:
        return
    try:
        store.inbox.keep_inputs(task_id, small)
    except (StoreError, NotFound) as error:
        log.warning("of task %s no picture that is sent was kept: %s", task_id, error)


def thumbnails(order: Order) -> dict[str, bytes]:
    """By name. A picture behind a URL is left out: it is not fetched for this."""
    small: dict[str, bytes] = {}
    for name, sent in _sent(order):
        try:
            small[name] = _small(base64.b64decode(sent) if isinstance(sent, str) else sent)
        except UNUSABLE as error:
            log.warning("no thumbnail could be made of %s: %s", name, type(error).__name__)
    return small


def _sent(order: Order) -> Iterator[tuple[str, str | bytes]]:
    """What is at hand, as Base64 or bytes."""
    cloths = order.merged or (order.cloth,)
    for name, sent in zip((HUMAN, *CLOTHS), (order.human, *cloths), strict=False):
        if isinstance(sent, bytes) or not images.is_url(sent):
            yield name, sent


def _small(content: bytes) -> bytes:
    with opened(io.BytesIO(content), images.FORMATS) as image:
        return thumbnail(image)
