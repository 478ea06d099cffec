"""The scenarios by name: a task's outcome, its callbacks, its result and the create response."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sandbox.scenarios import callback_plans as plans
from sandbox.scenarios.callback_plans import RISK, Plan
from sandbox.scenarios.faults import AnswerFault, MailFault, ResultFault, SlackFault

if TYPE_CHECKING:
    from collections.abc import Iterable

PROVIDERS = ("kling", "appypie")  # those that send callbacks
QUEUED = 1_000


class UnknownScenarioError(ValueError):
    """The provider has no scenario of this name."""


@dataclass(frozen=True)
class Scenario:
    name: str
    summary: str
    failure: str | None = None  # the reason of a failed task; None: it succeeds
    plan: Plan = plans.once
    only: str | None = None  # the only provider that can play it; None: all providers
    calls_back: bool = False  # it concerns callbacks, which not every provider sends
    signs: bool = False  # it concerns signatures
    result: ResultFault | None = None
    answer: AnswerFault | None = None
    mail: MailFault | None = None  # for the next e-mail
    slack: SlackFault | None = None  # for the next Slack message

    @property
    def has_two_outputs(self) -> bool:
        is_one_lost = self.plan is plans.without_the_last_output
        return is_one_lost or self.result is ResultFault.SECOND_MISSING

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


def register(name: str, summary: str, **details: Any) -> Scenario:
    """Add a scenario with these fields to `SCENARIOS`, and return it."""
    scenario = SCENARIOS[name] = Scenario(name, summary, **details)
    return scenario


def named(name: str) -> Scenario:
    """Return the scenario of this name. Raises UnknownScenarioError."""
    if name not in SCENARIOS:
        raise UnknownScenarioError(
            f"unknown scenario {name!r}; the scenarios are: {', '.join(SCENARIOS)}"
        )
    return SCENARIOS[name]


SUCCEED = register("succeed", "the task succeeds and every callback is sent once")
register("failed", "the task fails because the provider's moderation rejects it", failure=RISK)

for _name, _summary, _plan in (
    ("silent", "the task succeeds but no callback is ever sent", plans.never),
    ("duplicates", "every callback is sent twice, byte for byte", plans.twice),
    ("burst", f"every callback is sent {plans.AT_ONCE} times concurrently", plans.at_once),
    (
        "reordered",
        "the final callback comes first, then processing, then submitted",
        plans.backwards,
    ),
    ("late-processing", "a processing callback follows the final one", plans.with_a_late_one),
    ("dropped", "the final callback is never sent", plans.without_the_end),
    ("delayed", "the final callback comes five paces late", plans.late),
    ("truncated", "each body is sent cut in half, then whole", plans.truncated),
    (
        "broken-off",
        "each connection is closed within the body, then the body is sent whole",
        plans.broken_off,
    ),
    (
        "impatient",
        "each connection is closed before the response, then the callback is sent again",
        plans.impatient,
    ),
    ("succeed-then-failed", "the success is followed by a false failure", plans.then_failed),
    ("no-media", "the success comes without its picture; a query returns it", plans.without_media),
    (
        "lost-output",
        "one of two pictures is null in the success; a query returns both",
        plans.without_the_last_output,
    ),
    (
        "foreign-message",
        "a failure message of another provider (Replicate) arrives before the final status",
        plans.with_a_foreign_message,
    ),
    (
        "odd-fields",
        "fields other than id, status and URL have unexpected types",
        plans.with_odd_fields,
    ),
    (
        "shared-callback-url",
        "another task has the same callback URL, and its success comes first",
        plans.with_another_task,
    ),
    (
        "unknown-status",
        "an unknown status comes before the final one",
        plans.with_an_unknown_status,
    ),
    ("compressed", "each body is compressed with gzip or deflate", plans.compressed),
    (
        "odd-encoding",
        "each body has a byte order mark, and an unusual Content-Type or none",
        plans.oddly_encoded,
    ),
    (
        "altered-url",
        "each URL has doubled or trailing slashes, a space or a query",
        plans.to_an_altered_url,
    ),
    ("probed", "the URL is requested with HEAD and GET before each callback", plans.probed),
    (
        "oversized",
        "a body that is too long is sent first, then one that is too long when decompressed",
        plans.oversized,
    ),
    (
        "forged-token",
        "each callback is sent to a wrong URL, then to the right one",
        plans.with_a_forged_token,
    ),
):
    register(_name, _summary, plan=_plan, calls_back=True)
for _name, _summary, _plan in (
    (
        "console-test",
        "before each callback, the console's signed test message is sent, without a token",
        plans.tested,
    ),
    (
        "wrong-signature",
        "each callback is sent with a wrong signature, then with the right one",
        plans.wrongly_signed,
    ),
    (
        "stale-timestamp",
        "each callback is sent with a signature an hour old, then with a new one",
        plans.stale,
    ),
):
    register(_name, _summary, plan=_plan, calls_back=True, signs=True)

for _name, _summary, _result in (
    ("expired-result", "the picture's URL has expired", ResultFault.EXPIRED),
    ("expired-result-400", "the picture's URL has expired (400)", ResultFault.EXPIRED_400),
    ("expired-result-401", "the picture's URL has expired (401)", ResultFault.EXPIRED_401),
    ("gone-result", "the picture's URL returns 410", ResultFault.GONE),
    ("sign-in-result", "the picture's URL redirects to a sign-in page", ResultFault.SIGN_IN),
    (
        "second-missing",
        "the URL of the second of two outputs has expired",
        ResultFault.SECOND_MISSING,
    ),
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
    if _result.is_healed_by_a_query:
        _summary = f"{_summary}; a query returns a fresh URL"
    register(_name, _summary, result=_result, calls_back=_result.is_healed_by_a_query)

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
    register(_name, _summary, answer=_answer)

register(
    "mail-size-limit",
    "the mail server announces a size limit (SIZE) for the next e-mail",
    mail=MailFault.SIZE_LIMIT,
)
register(
    "mail-too-large",
    "the mail server rejects the next e-mail with a picture as too large (552)",
    mail=MailFault.TOO_LARGE,
)
register(
    "slack-refuses-blocks",
    "Slack rejects the blocks of the next message (invalid_blocks)",
    slack=SlackFault.BLOCKS,
)

NEW_DIALECT = register("new-dialect", "Kling's callbacks come in its newer dialect", only="kling")
NEW_DIALECT_FAILED = register(
    "new-dialect-failed",
    "Kling's callbacks come in its newer dialect, and the task fails",
    only="kling",
    failure=RISK,
)
PLAIN_URLS = register("plain-urls", "Modellix returns its resources as plain URLs", only="modellix")
FLAT_RESOURCES = register(
    "flat-resources", "Modellix returns its resources without the `result` object", only="modellix"
)
SYNONYMS = register("synonyms", "Modellix calls success `completed`", only="modellix")
SYNONYMS_FAILED = register(
    "synonyms-failed", "Modellix calls failure `canceled`", failure=RISK, only="modellix"
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


def triggerable() -> list[str]:
    """Return the scenarios that can be triggered."""
    return [
        one.name
        for one in SCENARIOS.values()
        if not one.needs_a_running_sandbox and one.only != "modellix"
    ]
