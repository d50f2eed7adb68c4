"""The model call as an activity: `plan_next_action`.

The answer is either words for the user or tool calls to make. Errors are of three kinds, and each has its
own way:

* transient (429, 5xx, timeout, lost connection): retried, after the pause that the provider asks for or about
  once a second (`next_retry_delay`), while a breaker sees to it that one of all who wait does the trying;
* permanent (key refused, unknown model, request refused): not retried. The loop tells the user;
* fixable by the model (an unknown tool, malformed arguments): no error here at all. `llm.tools` finds
  them and the loop hands the reason back to the model.
"""

from pydantic import BaseModel
from temporalio import activity

from workshop_lib.llm.call_in_activity import ask_model
from workshop_lib.llm.messages import Completion, Message, ToolSpec
from workshop_lib.temporal.steps import step_options

# After three minutes the user is told, and can ask again.
PLAN_OPTIONS = step_options(attempt=90, total=180, longest_pause=20)


class PlanRequest(BaseModel):
    """Input of `plan_next_action`: what the model is sent.

    Attributes:
        max_tokens: that the answer may have; None leaves it to the provider.
    """

    messages: list[Message]
    tools: list[ToolSpec] = []
    max_tokens: int | None = None


@activity.defn
async def plan_next_action(request: PlanRequest) -> Completion:
    """Ask the model for the next step: words, or tool calls.

    May run twice, when a worker dies after the provider has answered and before the answer is recorded:
    that call is paid for twice, and nothing else happens, since a model call changes nothing. A call whose
    answer is in the history is never made again.

    Raises:
        ApplicationError: type `ModelUnavailable` (retried) or `ModelRefused` (not retried).
    """
    return await ask_model(request.messages, request.tools, request.max_tokens)
