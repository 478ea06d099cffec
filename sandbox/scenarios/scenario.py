"""The scenarios by name: a task's outcome, its callbacks, its result and the create response."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from sandbox.scenarios import callback_plans
from sandbox.scenarios.callback_plans import RISK, Plan
from sandbox.scenarios.faults import AnswerFault, MailFault, ResultFault, SlackFault

if TYPE_CHECKING:
    from collections.abc import Iterable

QUEUED = 1_000


class UnknownScenarioError(ValueError):
    """The provider has no scenario of this name."""


@dataclass(frozen=True)
class Scenario:
    name: str
    summary: str
    failure: str | None = None  # the reason of a failed task; None: it succeeds
    plan: Plan = callback_plans.once
    only: str | None = None  # the only provider that can play it; None: all providers
    calls_back: bool = False  # it concerns callbacks, which not every provider sends
    signs: bool = False  # it concerns signatures
    result: ResultFault | None = None
    answer: AnswerFault | None = None
    loses_an_output: bool = False  # the callback has one output fewer than the response to a query
    mail: MailFault | None = None  # for the next e-mail
    slack: SlackFault | None = None  # for the next Slack message

    @property
    def has_two_outputs(self) -> bool:
        return self.loses_an_output or self.result is ResultFault.SECOND_MISSING

    @property
    def needs_a_running_sandbox(self) -> bool:
        """Return whether it concerns requests to the sandbox, which `trigger` does not serve."""
        return any((self.answer, self.mail, self.slack))

    def obstacle(self, provider: str, *, signs: bool) -> str | None:
        """Return why this provider cannot play it; None if it can."""
        if self.only not in (None, provider):
            return f"is available for {self.only} only"
        if self.calls_back and provider == "modellix":
            return "concerns callbacks, and modellix sends none"
        if self.signs and (provider != "kling" or not signs):
            return "concerns signatures, which only kling sends: give --webhook-secret"
        return None


SCENARIOS: dict[str, Scenario] = {}


def register(scenario: Scenario) -> Scenario:
    SCENARIOS[scenario.name] = scenario
    return scenario


def named(name: str) -> Scenario:
    if name not in SCENARIOS:
        raise UnknownScenarioError(
            f"unknown scenario {name!r}; the scenarios are: {', '.join(SCENARIOS)}"
        )
    return SCENARIOS[name]


def _about_callbacks(name: str, summary: str, plan: Plan, *, signs: bool = False) -> None:
    register(Scenario(name, summary, plan=plan, calls_back=True, signs=signs))


SUCCEED = register(Scenario("succeed", "the task succeeds and every callback is sent once"))
register(
    Scenario("failed", "the task fails because the provider's moderation rejects it", failure=RISK)
)

_about_callbacks("silent", "the task succeeds but no callback is ever sent", callback_plans.never)
_about_callbacks("duplicates", "every callback is sent twice, byte for byte", callback_plans.twice)
_about_callbacks(
    "burst",
    f"every callback is sent {callback_plans.AT_ONCE} times concurrently",
    callback_plans.at_once,
)
_about_callbacks(
    "reordered",
    "the final callback comes first, then processing, then submitted",
    callback_plans.backwards,
)
_about_callbacks(
    "late-processing", "a processing callback follows the final one", callback_plans.with_a_late_one
)
_about_callbacks("dropped", "the final callback is never sent", callback_plans.without_the_end)
_about_callbacks("delayed", "the final callback comes five paces late", callback_plans.late)
_about_callbacks("truncated", "each body is sent cut in half, then whole", callback_plans.truncated)
_about_callbacks(
    "broken-off",
    "each connection is closed within the body, then the body is sent whole",
    callback_plans.broken_off,
)
_about_callbacks(
    "impatient",
    "each connection is closed before the response, then the callback is sent again",
    callback_plans.impatient,
)
_about_callbacks(
    "succeed-then-failed",
    "the success is followed by a false failure",
    callback_plans.then_failed,
)
_about_callbacks(
    "no-media",
    "the success comes without its picture; a query returns it",
    callback_plans.without_media,
)
register(
    Scenario(
        "lost-output",
        "one of two pictures is null in the success; a query returns both",
        plan=callback_plans.without_the_last_output,
        calls_back=True,
        loses_an_output=True,
    )
)
_about_callbacks(
    "foreign-message",
    "a failure message of another provider (Replicate) arrives before the final status",
    callback_plans.with_a_foreign_message,
)
_about_callbacks(
    "odd-fields",
    "fields other than id, status and URL have unexpected types",
    callback_plans.with_odd_fields,
)
_about_callbacks(
    "shared-callback-url",
    "another task has the same callback URL, and its success comes first",
    callback_plans.with_another_task,
)
_about_callbacks(
    "unknown-status",
    "an unknown status comes before the final one",
    callback_plans.with_an_unknown_status,
)
for _name, _summary, _plan in (
    ("compressed", "each body is compressed with gzip or deflate", callback_plans.compressed),
    (
        "odd-encoding",
        "each body has a byte order mark, and an unusual Content-Type or none",
        callback_plans.oddly_encoded,
    ),
    (
        "altered-url",
        "each URL has doubled or trailing slashes, a space or a query",
        callback_plans.to_an_altered_url,
    ),
    (
        "probed",
        "the URL is requested with HEAD and GET before each callback",
        callback_plans.probed,
    ),
    (
        "oversized",
        "a body that is too long is sent first, then one that is too long when decompressed",
        callback_plans.oversized,
    ),
):
    _about_callbacks(_name, _summary, _plan)
_about_callbacks(
    "console-test",
    "before each callback, the console's signed test message is sent, without a token",
    callback_plans.tested,
    signs=True,
)
_about_callbacks(
    "forged-token",
    "each callback is sent to a wrong URL, then to the right one",
    callback_plans.with_a_forged_token,
)
_about_callbacks(
    "wrong-signature",
    "each callback is sent with a wrong signature, then with the right one",
    callback_plans.wrongly_signed,
    signs=True,
)
_about_callbacks(
    "stale-timestamp",
    "each callback is sent with a signature an hour old, then with a new one",
    callback_plans.stale,
    signs=True,
)

for _name, _summary, _result in (
    ("expired-result", "the picture's URL has expired", ResultFault.EXPIRED),
    (
        "expired-result-400",
        "the picture's URL has expired (400)",
        ResultFault.EXPIRED_400,
    ),
    (
        "expired-result-401",
        "the picture's URL has expired (401)",
        ResultFault.EXPIRED_401,
    ),
    ("gone-result", "the picture's URL returns 410", ResultFault.GONE),
    ("sign-in-result", "the picture's URL redirects to a sign-in page", ResultFault.SIGN_IN),
    (
        "second-missing",
        "the URL of the second of two outputs has expired",
        ResultFault.SECOND_MISSING,
    ),
):
    _summary = f"{_summary}; a query returns a fresh URL"
    register(Scenario(_name, _summary, calls_back=True, result=_result))
for _name, _summary, _result in (
    ("missing-result", "the picture's URL returns 404", ResultFault.MISSING),
    ("slow-result", "the picture is sent one byte at a time", ResultFault.SLOW),
    ("huge-result", "the picture is endless (2 GB)", ResultFault.HUGE),
    ("not-a-picture", "the picture's URL returns an HTML page", ResultFault.NOT_A_PICTURE),
    ("half-result", "the picture's URL returns half of it, with 206", ResultFault.HALF),
    ("cut-short-result", "the connection is closed within the picture", ResultFault.CUT_SHORT),
    ("overloaded-result", "the picture's URL returns 503", ResultFault.OVERLOADED),
    ("proxied-result", "the complete picture is sent with 203", ResultFault.PROXIED),
    ("range-result", "the complete picture is sent with 206", ResultFault.RANGE),
    (
        "raw-redirect",
        "the picture's URL redirects with a Location in raw UTF-8",
        ResultFault.RAW_REDIRECT,
    ),
):
    register(Scenario(_name, _summary, result=_result))
for _name, _summary, _result in (
    ("avif-result", "the picture is an AVIF file", ResultFault.AVIF),
    ("bmp-result", "the picture is a BMP file", ResultFault.BMP),
    ("tiff-result", "the picture is a TIFF file", ResultFault.TIFF),
    ("heic-result", "the picture is a HEIC file", ResultFault.HEIC),
    ("unknown-format", "the picture has an unknown format", ResultFault.UNKNOWN_FORMAT),
    ("camera-result", "the picture is a camera's JPEG with two pictures", ResultFault.TWO_PICTURES),
    ("metadata-result", "the picture has broken metadata", ResultFault.METADATA),
    ("error-code", 'the picture\'s URL returns "error code: 1015"', ResultFault.ERROR_CODE),
    ("json-result", "the picture's URL returns JSON", ResultFault.JSON),
    ("svg-result", "the picture's URL returns SVG", ResultFault.SVG),
    ("utf-16-result", "the picture's URL returns HTML in UTF-16", ResultFault.UTF_16),
    ("broken-result", "the second half of the picture is missing", ResultFault.BROKEN),
    ("short-result", "the picture's URL returns three bytes", ResultFault.SHORT),
):
    register(Scenario(_name, _summary, result=_result))

for _name, _summary, _answer in (
    (
        "busy",
        "the create request is refused: too many running tasks (1303 at Kling)",
        AnswerFault.BUSY,
    ),
    (
        "error-after-accepting",
        "the task runs, but the create request gets a 502",
        AnswerFault.ERROR,
    ),
    ("answer-lost", "the task runs, but the create request gets no response", AnswerFault.LOST),
):
    register(Scenario(_name, _summary, answer=_answer))

register(
    Scenario(
        "mail-size-limit",
        "the mail server announces a size limit (SIZE) for the next e-mail",
        mail=MailFault.SIZE_LIMIT,
    )
)
register(
    Scenario(
        "mail-too-large",
        "the mail server rejects the next e-mail with a picture as too large (552)",
        mail=MailFault.TOO_LARGE,
    )
)
register(
    Scenario(
        "slack-refuses-blocks",
        "Slack rejects the blocks of the next message (invalid_blocks)",
        slack=SlackFault.BLOCKS,
    )
)

NEW_DIALECT = register(
    Scenario("new-dialect", "Kling's callbacks come in its newer dialect", only="kling")
)
NEW_DIALECT_FAILED = register(
    replace(
        NEW_DIALECT,
        name="new-dialect-failed",
        summary="Kling's callbacks come in its newer dialect, and the task fails",
        failure=RISK,
    )
)
PLAIN_URLS = register(
    Scenario("plain-urls", "Modellix returns its resources as plain URLs", only="modellix")
)
FLAT_RESOURCES = register(
    Scenario(
        "flat-resources",
        "Modellix returns its resources without the `result` object",
        only="modellix",
    )
)
SYNONYMS = register(Scenario("synonyms", "Modellix calls success `completed`", only="modellix"))
SYNONYMS_FAILED = register(
    Scenario("synonyms-failed", "Modellix calls failure `canceled`", failure=RISK, only="modellix")
)


class ScenarioChoice(Protocol):
    """Chooses a scenario for a task without one of its own."""

    def draw(self, provider: str, *, signs: bool) -> Scenario: ...


class Queue:
    """The scenarios of the next tasks of each provider; `succeed` if none was requested."""

    def __init__(self, chaos: ScenarioChoice | None = None, *, signs: bool = False) -> None:
        self._next: defaultdict[str, deque[Scenario]] = defaultdict(lambda: deque(maxlen=QUEUED))
        self._chaos = chaos
        self._signs = signs
        self._lock = threading.Lock()

    def add(self, provider: str, scenario: str, count: int = 1) -> None:
        wanted = named(scenario)
        if obstacle := wanted.obstacle(provider, signs=self._signs):
            raise UnknownScenarioError(f"scenario {scenario!r} {obstacle}")
        with self._lock:
            self._next[provider].extend([wanted] * count)

    def take(self, provider: str) -> Scenario:
        with self._lock:
            if waiting := self._next[provider]:
                return waiting.popleft()
            return self._chaos.draw(provider, signs=self._signs) if self._chaos else SUCCEED


def playable(provider: str, *, signs: bool) -> Iterable[Scenario]:
    """Return the scenarios that this provider can play."""
    return (one for one in SCENARIOS.values() if one.obstacle(provider, signs=signs) is None)
