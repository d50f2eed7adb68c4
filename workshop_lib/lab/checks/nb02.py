"""Checks of notebook 02: an agent of the SDK with two tools, and one that remembers."""

import inspect
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from temporalio.client import Client

from workshop_lib.agents.loops.sdk_model import agents_plugin
from workshop_lib.lab.checks.framework import NotYet, check
from workshop_lib.lab.checks.trial import running, trial
from workshop_lib.lab.history import history_of
from workshop_lib.lab.lessons.flat_tools import get_weather
from workshop_lib.lab.watching.waiting import watch

TWO_TOOLS = "What is 12 * 12, and what is the weather in Seattle?"
MODEL = "invoke_model_activity"
ASKED = ("What is the weather in Seattle?", "And in Portland?", "What is the weather in Boston?")


@check(
    expects="144 and Seattle's weather in one reply, from one completed activity of each tool.",
    hint="the new activity needs a docstring, a result, and its place among the tools of the agent.",
    timeout=40,
)
async def tool_added(
    client: Client, workflow: type, activities: Sequence[Callable[..., Any]]
) -> str:
    """The agent uses both of its tools, and both are activities with a description."""
    for activity in activities:
        description = " ".join((activity.__doc__ or "").split())
        if not description or "your code here" in description:
            what = f"the description {description!r}" if description else "no docstring"
            raise NotYet(
                saw=f"{activity.__name__} with {what}",
                hint="the docstring is what a model reads: one sentence on what the tool is for.",
            )
        arguments = list(inspect.signature(activity).parameters)
        if activity.__name__ == "calculate" and arguments != ["expression"]:
            raise NotYet(
                saw=f"calculate({', '.join(arguments)})",
                hint="its one argument is `expression: str`: a model goes by the name.",
            )
    handle, reply = await trial(
        client,
        workflow,
        TWO_TOOLS,
        activities,
        timeout=30,
        client_plugins=[agents_plugin],
        patient=False,
    )
    history = await history_of(handle)
    done = [run.name for run in history.activities if run.completed and run.name != MODEL]
    if len(set(done)) != 2:
        raise NotYet(saw=f"completed tools: {', '.join(done) or 'none'}; the reply was {reply!r}")
    if "144" not in str(reply) or not re.search(r"\b14\b", str(reply)):
        raise NotYet(saw=f"the reply {reply!r}")
    return f"completed: {' and '.join(sorted(set(done)))}"


@check(
    expects='Portland\'s weather as the reply to "And in Portland?", and every message handed in once.',
    hint="append the message to `self.items`, run the agent on that list, and keep `to_input_list()`.",
    timeout=40,
)
async def remembers(client: Client, workflow: type) -> str:
    """The second message is understood only with the first, and the third is sent with both, once."""
    run = running(client, workflow, activities=[get_weather], client_plugins=[agents_plugin])
    async with run as handle:
        replies = [
            await watch(handle.execute_update("ask", text), handle, timeout=30, patient=False)
            for text in ASKED
        ]
        history = await history_of(handle)
    if "Portland" not in str(replies[1]) or not re.search(r"\b17\b", str(replies[1])):
        raise NotYet(saw=f"the second reply {replies[1]!r}")
    last = (history.named(MODEL)[-1].input or {}).get("input")
    sent = last if isinstance(last, list) else []
    users = [_text(item.get("content")) for item in sent if item.get("role") == "user"]
    if users != list(ASKED):
        raise NotYet(
            saw=f"{len(users)} messages of the user in the last call, where {len(ASKED)} were said"
        )
    answers = json.dumps([item for item in sent if item.get("role") == "assistant"])
    for reply in replies[:2]:
        if (times := answers.count(json.dumps(reply)[1:-1])) != 1:
            raise NotYet(saw=f"the agent's own reply {reply!r} {times} times in the last call")
    return f"the second reply is {replies[1]!r}, and the third call held all that was said, once"


def _text(content: Any) -> Any:
    """What a message says, whether it is written as text or as a list of parts."""
    if not isinstance(content, list):
        return content
    return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
