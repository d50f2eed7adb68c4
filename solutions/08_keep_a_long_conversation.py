# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 08 · Keep a long conversation
#
# A conversation of weeks that costs as little at its thousandth message as at its tenth, and forgets nothing that counts.
#
# **Time** 25 min · **Needs** 02, 06 · **Offline** yes

# %% [markdown]
# ## Goals
#
# After this notebook you can
#
# * decide what a model is sent, and measure what that saves;
# * let a session go on in a new run, with no message lost;
# * stop a turn and keep what it has found;
# * go back to an earlier message, without paying again for what came before.

# %% [markdown]
# ## Where we are
#
# A model remembers nothing. Each call carries what it shall know. Without a rule that is everything, every time.
#
# ```mermaid
# flowchart LR
#     accTitle: What a model is sent
#     accDescr: Of a long conversation the oldest turns are summed up by an activity. The model is sent the instructions, the summary and the latest turns. When the run has enough, the next one begins with summary and latest turns.
#     O[old turns] -- summarise --> S[summary]
#     S --> M{model}
#     L[latest turns] --> M
#     S -- continue as new --> N[next run]
#     L -- continue as new --> N
# ```

# %%
from workshop_lib import lab
from workshop_lib.lab.checks import nb08 as check

client = await lab.start()

# %% [markdown]
# ## Everything, every time
#
# The chat of 01 has a **policy**: an object that decides what of the conversation goes to the model. The latest messages
# that it lets through are the *window*. Here is the same chat with a policy that leaves nothing out.

# %%
# %%workflow everything
from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workshop_lib.agents.chat import ChatStart
    from workshop_lib.agents.conversation.policy import ContextPolicy
    from workshop_lib.agents.conversation.state import Conversation
    from workshop_lib.agents.loops.manual import ManualChat
    from workshop_lib.llm.messages import Message


@workflow.defn
class Everything(ManualChat):
    @workflow.init
    def __init__(self, start: ChatStart) -> None:
        super().__init__(start)
        self.conversation = Conversation(Message, policy=ContextPolicy(max_parts=100_000))

    @workflow.run
    async def run(self, start: ChatStart) -> int:
        return await self.until_ended()


# %% [markdown]
# A conversation of 30 messages. Most are sums, which need a tool each. Two tell something. It is held twice: with
# `Everything`, and with the library's chat. (Some fifteen seconds for the two cells: the model library is loaded
# meanwhile.)

# %%
from workshop_lib.agents.chat import ChatStart
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.agents.worker import orchestrator

talk = [f"What is {n} * 7?" for n in range(1, 31)]
talk[0] = "My door code is 4471."
talk[9] = "My door code is now 5582, not 4471."

ours = ChatClient(client)
activities = orchestrator().activities
theirs = lab.spec("everything", workflows=[Everything], activities=activities)
for spec in (orchestrator(), theirs):
    await lab.start_worker(spec)
everything = await client.start_workflow(
    Everything.run, ChatStart(), id=lab.new_id("everything"), task_queue=theirs.task_queue
)

# %%
for message in talk:
    await lab.watch(everything.execute_update(Everything.send_message, message), everything)
    await lab.watch(ours.send(message), ours.handle)

# %% [markdown]
# > **Predict.** The 30th message is as short as the second. How much more does it cost in `Everything`, in tokens and in
# > bytes of history?

# %%
my_guess = ""

# %%
lab.show_meter(
    everything=await lab.measure_turns(everything), window=await lab.measure_turns(ours.handle)
)

# %% [markdown]
# <details><summary>How much more?</summary>
#
# Each turn costs more than the one before, in both. All turns together grow with the *square* of their number. *"History
# holds only what is new."* It holds the input of each activity, and here that is the whole conversation, twice a turn.
#
# The other line has teeth. When the window is full, one turn pays for a summary of the oldest messages, and those after it
# are sent less: so the last turn may cost less than a middle one. It does not climb.
# </details>

# %% [markdown]
# ### Exercise · Cut it where it may be cut (6 min)
#
# A turn begins with a user's message. Calls and results of tools come next, then the answer. `window` gets the messages so
# far and returns the latest, `most` at the most, as many as fit. A provider refuses a tool's result without its call, so
# what is kept begins with a user's message. The last turn is always kept whole, even if it is longer.
#
# The check tries sixty conversations. It writes them in letters: U for the user, A for the model, T for a tool.
#
# *Hint: `message.role` is "user", "assistant" or "tool". At which places may the window begin, and which of them is the
# earliest that fits?*


# %% exercise="windowed" minutes=6
def window(messages, most):
    begins = [n for n, message in enumerate(messages) if message.role == "user"]
    fitting = [n for n in begins if len(messages) - n <= most]
    return messages[min(fitting, default=begins[-1]) :]


# --- stub ---
# def window(messages, most):
#     return messages[-most:]  # your code here: where may it begin?

# %%
await check.windowed(window)

# %% [markdown]
# ## What falls out
#
# The door code was told at message 1 and changed at message 10. The library's policy keeps a handful of turns, with their
# tool calls and results.
#
# > **Predict.** Which code does our chat know at message 31: 4471, 5582, or none?

# %%
my_guess = ""

# %%
await lab.watch(ours.send("What is my door code?"), ours.handle)

# %% [markdown]
# It was not in the window. What falls out is **summarised**, by an activity of its own. The offline model is crude: it
# picks lines and keeps them as they were said, with who said them. A real model writes sentences.

# %%
from workshop_lib.lab.history import history_of

summaries = (await history_of(ours.handle)).named("summarise")
print(len(summaries), "summaries. The last one:")
print(summaries[-1].result["text"])

# %% [markdown]
# <details><summary>Which code?</summary>
#
# 5582. *"None"* is what a window alone would know. *"4471"*: of two values for one thing the summary keeps the later.
#
# A summary is a model's word, so it is checked: no longer than allowed, shorter than what it replaces, and with every id
# and number that was told or promised. A model that fails twice is replaced by rules (`llm/extract.py`), and the reply says
# so. Being an activity, it is made once: a replay, or another worker, finds the very same summary.
# </details>

# %% [markdown]
# ## A result that is too large
#
# One tool call can be longer than all that was said. This one returns a hundred thousand characters, and each later turn
# would carry them.

# %%
from pydantic import BaseModel

from workshop_lib.agents.local_tools import LOCAL_TOOLS, LocalTool


class ReportInput(BaseModel):
    """It takes nothing."""


def stock_report(args: ReportInput) -> str:
    """Write the stock report: every shelf, and what lies on it."""
    return "\n".join(f"shelf {n}: {n * 7} badges" for n in range(1, 5001))


LOCAL_TOOLS["stock_report"] = LocalTool(stock_report, ReportInput)
audit = ChatClient(client)
reply = await lab.watch(audit.send("Write the stock report"), audit.handle)
print(reply.text[:120])

# %% [markdown]
# The whole is kept in the state folder, by the activity that got it. The model is sent the first part, with a **reference**,
# and a tool that reads on:

# %%
reference = reply.text.partition("of result ")[2].partition(",")[0]
reply = await lab.watch(audit.send(f"Read the result {reference}, part 60"), audit.handle)
print(reply.tool_calls, reply.text[-120:])
held = sum(cost.bytes for cost in await lab.measure_turns(audit.handle))
print(f"{len(stock_report(ReportInput())):,} characters of report, {held:,} bytes of history")

# %% [markdown]
# A reference counts in its own session, and for whoever asked there. Anybody else hears that there is no such result.
#
# ## A run that goes on as another
#
# A small window keeps a *turn* small. The history grows all the same, and a server ends a run that holds too much. So the
# session continues as new in time, as the agent of 06 does. What it hands on is the summary and the latest turns.
#
# Here a run has enough after five messages:

# %%
from workshop_lib.agents.chat import SessionLimits

short = ChatClient(client, start=ChatStart(limits=SessionLimits(updates=5)))
for message in talk[:12]:
    await lab.watch(short.send(message), short.handle)
await lab.runs_of_session(short.handle)

# %% [markdown]
# > **Predict.** What does somebody see who lists the sessions, or reads this one from its first line?

# %%
my_guess = ""

# %%
from workshop_lib.agents.session_list import list_sessions

print([one.session async for one in list_sessions(client)].count(short.session), "line in the list")
(await short.transcript())[:2]

# %% [markdown]
# <details><summary>What does one see?</summary>
#
# One session, whole. Each run knows which one came before, and the transcript is read through the chain. *"Three
# sessions"*: the workflow id stays the same, and only the latest run is open. *"The last two messages"* is what the *model*
# may be sent. What people read is not cut.
# </details>
#
# What of a message that arrives in that very moment? An accepted update cannot move to another run: its run has to answer it.
# A new one is refused by the validator, with an error of the type `Rollover`, and the client sends it again, to the run that
# is there by then.

# %% [markdown]
# ### Exercise · Lose nobody (7 min)
#
# A desk gives out numbers, and each run gives out three. `self.n` is the last number given out, `self.first` the last one
# before this run. Let it go on as new: once there are three, and all that was accepted is answered, with the last number
# handed over. And refuse who comes meanwhile.
#
# The check sends nine people at once, and again where they are refused with `Rollover`. It looks for nine numbers, and at
# the runs.
#
# *Hint: `workflow.all_handlers_finished` is a condition, for `workflow.wait_condition`. `workflow.continue_as_new` takes
# what `run` takes. In a handler it cannot be called.*

# %% exercise="lasting" minutes=7
# %%workflow desk
from temporalio import exceptions, workflow


@workflow.defn
class Desk:
    @workflow.init
    def __init__(self, n: int) -> None:
        self.first = self.n = n

    @workflow.run
    async def run(self, n: int) -> None:
        await workflow.wait_condition(lambda: self.n > n + 2 and workflow.all_handlers_finished())
        workflow.continue_as_new(self.n)

    @workflow.update
    async def draw(self, name: str) -> int:
        number = self.n = self.n + 1
        await workflow.sleep(0.1)  # an agent would think here
        return number

    @draw.validator
    def check_draw(self, name: str) -> None:
        if self.n - self.first >= 3:
            raise exceptions.ApplicationError("Send it again.", type="Rollover")


# --- stub ---
# # %%workflow desk
# from temporalio import exceptions, workflow
#
#
# @workflow.defn
# class Desk:
#     @workflow.init
#     def __init__(self, n: int) -> None:
#         self.first = self.n = n
#
#     @workflow.run
#     async def run(self, n: int) -> None:
#         await workflow.wait_condition(lambda: False)  # your code here
#
#     @workflow.update
#     async def draw(self, name: str) -> int:
#         number = self.n = self.n + 1
#         await workflow.sleep(0.1)  # an agent would think here
#         return number
#
#     @draw.validator
#     def check_draw(self, name: str) -> None:
#         if False:  # your code here
#             raise exceptions.ApplicationError("Send it again.", type="Rollover")

# %%
await check.lasting(client, Desk)

# %% [markdown]
# The chat hands on one thing more: the replies to its latest messages. If a reply gets lost on its way and the message is
# sent again, the next run knows it, and no model is asked twice.
#
# ## Stop
#
# Sometimes a turn goes astray while it is paid for. `chat.stop()` is an update too: it cancels the turn's task, and
# answers with what there is. It names the message that it means, so that a late one stops no other. For this lesson a
# model takes three seconds for each answer.

# %%
from workshop_lib.agents.loops.manual import ManualChat

slow = lab.spec("slow", workflows=[ManualChat], activities=activities)
await lab.start_process(slow, env={"OFFLINE_LATENCY_MS": "3000"})
astray = ChatClient(client, task_queue=slow.task_queue)
await astray.begin()

# %% [markdown]
# > **Predict.** The model asks for two tools, they run, and the model is asked again. You stop the turn there. Is what the
# > tools have found lost?

# %%
my_guess = ""

# %%
import asyncio

sending = asyncio.create_task(astray.send("What is 12 * 12, and what is the weather in Seattle?"))
await lab.until_begun(astray.handle, "plan_next_action", 2)
await lab.watch(astray.stop(), astray.handle)

# %% [markdown]
# That was the reply, to the stop and to the message. `model_calls` counts answers, and the second never came. Ask on, and
# look at what the model is sent then. (Some seconds: it is still slow.)

# %%
reply = await lab.watch(astray.send("And what did I ask first?"), astray.handle)
print(reply.text, "\n\nThe model was sent:")
for sent in (await history_of(astray.handle)).named("plan_next_action")[-1].input["messages"][1:]:
    said = sent.get("content") or [call["name"] for call in sent["tool_calls"]]
    print(f"{sent['role']:<10}", said)

# %% [markdown]
# <details><summary>Is it lost?</summary>
#
# No. The results are in the conversation, and the next turn has them. *"It is rolled back"*: what tools have done is done; a
# call that was under way is named, with what it may have changed. *"The model goes on in secret"*: its activity heartbeats,
# and learns so that nobody waits any more.
# </details>

# %% [markdown]
# ### Exercise · Keep what is done (6 min)
#
# `Trip` looks at one city after the other, and rests in between. Cancelled, it loses all. Let it return what it has seen so
# far. An error is no stop, and stays an error.
#
# The check stops it during a look and during a rest. Then it asks for a city that there is not.
#
# *Hint: a stop has two shapes: `asyncio.CancelledError`, and an `ActivityError` around it. Catch both around the loop;
# `is_cancelled_exception(error)` knows them.*

# %% exercise="kept" minutes=6
# %%workflow trip
import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from workshop_lib.lab.lessons.stopping import LOOK_OPTIONS, look


@workflow.defn
class Trip:
    @workflow.run
    async def run(self, cities: list[str]) -> list[str]:
        seen = []
        try:
            for city in cities:
                seen.append(await workflow.execute_activity(look, city, **LOOK_OPTIONS))
                await workflow.sleep(0.5)
        except (asyncio.CancelledError, ActivityError) as error:
            if not is_cancelled_exception(error):
                raise
        return seen


# --- stub ---
# # %%workflow trip
# import asyncio
#
# from temporalio import workflow
# from temporalio.exceptions import ActivityError, is_cancelled_exception
#
# with workflow.unsafe.imports_passed_through():
#     from workshop_lib.lab.lessons.stopping import LOOK_OPTIONS, look
#
#
# @workflow.defn
# class Trip:
#     @workflow.run
#     async def run(self, cities: list[str]) -> list[str]:
#         seen = []
#         for city in cities:  # your code here: what if it is stopped?
#             seen.append(await workflow.execute_activity(look, city, **LOOK_OPTIONS))
#             await workflow.sleep(0.5)
#         return seen

# %%
await check.kept(client, Trip)

# %% [markdown]
# ## Go back
#
# Message 10 changed the door code. What if it had not? A **fork** is a new session that goes on from the end of turn 9,
# with another message 10.
#
# > **Predict.** How many model calls does the fork pay for: one, ten, or more?

# %%
my_guess = ""

# %%
fork, reply = await ours.fork(10, "What is my door code?")
print(reply.text)
await lab.show_timeline(fork.handle)

# %% [markdown]
# <details><summary>How many?</summary>
#
# One. That is the fork's whole history: what the conversation came to at the end of turn 9 is its input. *"Ten"*: nothing is
# said again. The first session is as it was.
#
# A fork takes nothing back. Had a tool changed something since, `fork` would list it first, and ask you to confirm.
# </details>
#
# ## A budget
#
# What is small can still be endless. A session may have a budget, here one of tokens. Before each call of the model the
# *worst* it may cost has to fit in: all that is sent, and the longest answer.
#
# > **Predict.** The first message fits into 5,200 tokens, the second does not. What comes of the second: an error, half an
# > answer, or nothing yet?

# %%
my_guess = ""

# %%
from workshop_lib.agents.conversation.spending import Budget

frugal = ChatClient(client, start=ChatStart(budget=Budget(tokens=5_200)))
await lab.watch(frugal.send(talk[1]), frugal.handle)
sending = asyncio.create_task(frugal.send(talk[2], timeout=lab.seconds(3600)))
(await lab.waits_for(frugal.handle, until="budget"))[0]

# %%
await frugal.set_budget(Budget(tokens=20_000))
await lab.watch(sending, frugal.handle)

# %% [markdown]
# <details><summary>What comes of it?</summary>
#
# Nothing yet. It waits *before* the call, for as long as it takes, and goes on where it was. *"An error"* would throw away
# what the turn has paid for. *"Half an answer"* is what one gets who counts afterwards.
#
# What was used is in the history, summaries and all. So a crash does not forget it, and a new run is told.
# </details>
#
# ## Try it yourself
#
# No checks here. In a terminal, `uv run workshop chat`, and Ctrl-C while it answers: the turn is stopped, and the chat goes
# on. A second one leaves. `uv run workshop sessions delete NAME` removes all that a session holds, and says what remains.
# Or let the Agents SDK hold the same conversation, with the same policy:
#
# ```python
# sdk = ChatClient(client, "sdk")
# for message in talk[:12]:
#     await lab.watch(sdk.send(message), sdk.handle)
# lab.show_meter(sdk=await lab.measure_turns(sdk.handle))
# ```

# %% [markdown]
# ## Recap
#
# You have kept a conversation small and whole, and it is yours to stop.
#
# 1. Why does a conversation without a policy cost the square of its length, in history too?
# 2. Who answers a message that was accepted when the run has enough?
# 3. Why is a stop more than an `except asyncio.CancelledError`?
#
# <details><summary>Answers</summary>
#
# 1. Each call carries all that was said before, and each call's input is recorded.
# 2. The run that accepted it. Only then does the next one begin; later messages are refused, and sent again.
# 3. In an activity it comes as an `ActivityError`, and an error of a tool is one too: it has to be told apart.
# </details>

# %% [markdown]
# Stop this notebook's workers.

# %%
for chat in (ours, short, audit, astray, fork, frugal):
    await chat.end()
await everything.signal(Everything.end_chat)
lab.stop_all()
