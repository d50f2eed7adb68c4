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
# # 09 · Break it on purpose
#
# You give an agent a bad day, on a plan. You predict what comes of it, and add what was missing.
#
# **Time** 30 min · **Needs** 03, 05 · **Offline** yes

# %% [markdown]
# ## Goals
#
# After this notebook you can
#
# * plan a bad day as data, and have the same one again;
# * spare a service that is down, and still be there when it is back;
# * change the code of a workflow while runs of yesterday wait;
# * read what happened from a history alone.

# %% [markdown]
# ## Where we are
#
# So far one thing broke at a time, and we said when. A bad day is not like that. Three questions stay the same: what
# failed, who notices, and what is paid twice?
#
# ```mermaid
# flowchart LR
#     accTitle: Who retries, and what stands in between
#     accDescr: The server hands an activity out, again and again while it fails. Before the model stands a circuit breaker. It lets requests through, or refuses and says when to come again. That next attempt is the one that tries.
#     S[(server)] -- attempt 1, 2, 3 … --> A[activity]
#     A --> B{breaker}
#     B -- closed --> M[model]
#     B -. open: come again in 1 s .-> S
# ```

# %%
from workshop_lib import lab
from workshop_lib.lab.checks import nb09 as check

client = await lab.start()

# %% [markdown]
# ## A day as data
#
# What shall go wrong is a **plan**: a seed, and faults with their place, their kind, and when. Whether one strikes depends
# on seed, run, step and attempt, and on nothing else. No dice are rolled on the day.

# %%
plan = lab.chaos_plan("""
seed: 7
faults:
  # Each request to the model may be one too many.
  - {place: model, kind: rate_limit, chance: 0.4}
  # The first attempt of a step fails, before the calculator is reached.
  - {place: local_tool, kind: fails, name: calculator, when: {attempt: 1}}
  # The second attempt does its work, and nobody is told.
  - {place: activity, kind: lost_completion, name: execute_tool, when: {attempt: 2}}
  # Step 1 of a run looks for tools, step 2 asks the model. SIGKILL when only its report is missing.
  - {place: worker, at: activity-report, name: plan_next_action, when: {step: 2}}
  # And one more tool has a bad moment.
  - {place: local_tool, kind: fails, name: weather, when: {attempt: 1}}
""")

# %% [markdown]
# A step is named by its number in the run and by its attempt, which is 1 where nothing is said.
#
# > **Predict.** Ada asks for 12 * 7. Does she get an answer? How many attempts does the calculator's step take? Which of
# > the five does not happen? (Some fifteen seconds. The worker is a process, and another begins when it is killed.)

# %%
my_guess = ""

# %%
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.agents.worker import orchestrator


async def a_day(session):
    async with lab.chaos(plan, orchestrator()) as experiment:
        chat = ChatClient(client, session=lab.new_id(session))
        reply = await lab.watch(chat.send("What is 12 * 7?"), chat.handle, expect_no_worker=True)
        await chat.end()
        await lab.result(chat.handle)
    return reply, chat.handle, experiment.report()


reply, day, happened = await a_day("a-bad-day~1")
reply

# %%
happened

# %%
await lab.show_timeline(day)

# %% [markdown]
# <details><summary>What happened?</summary>
#
# She gets her answer, later. The calculator's step takes three attempts: the first fails before it, the second one's answer
# is lost, the third is told. So it has calculated twice. *"Once"* is what the history has been told. For a sum that is
# harmless. For a payment it is the lesson of 05.
#
# Nobody asked for the weather, so nothing came to where it would have failed.
#
# *Nobody at work* can come after *new worker*: the server first keeps the run's next task for the dead one, which had the run
# in memory (its **sticky queue**), and gives it to the new one after a second.
# </details>

# %% [markdown]
# A test that fails one time in fifty is worth little. This day can be had again. (What follows a `~` in a session's name does
# not count: it is new in each. Some ten seconds again.)

# %%
_, _, again = await a_day("a-bad-day~2")
print("the same day" if again.lines == happened.lines else again)

# %% [markdown]
# ## Everybody knocks
#
# Retries are a blessing for one run. Now a model is down for three seconds, and twenty runs ask it. Temporal tries each
# step again, once a second.
#
# > **Predict.** How many requests reach the model while it is down? (Some ten seconds.)

# %%
my_guess = 0

# %%
await lab.live_through_outage(client)

# %% [markdown]
# <details><summary>How many?</summary>
#
# Some sixty: twenty runs, each of them at once and then every second. A busy machine knocks less often. *"Twenty"*: Temporal
# does not know that they ask the same model. Whoever tries to get up is knocked down by those who ask how it goes.
# </details>
#
# A **circuit breaker** is a small object that all of them pass. It counts failures. After three in a row it is *open*:
# nobody gets through, for a while. Then *one* may try. If that one succeeds, it is closed again.
#
# ### Exercise · Spare the model (8 min)
#
# The activity calls `allow()` before each request, and `succeeded()` or `failed()` after it. Who may not pass is told
# when to come again: `next_retry_delay` of an `ApplicationError`. Then Temporal's own retry is the one that tries.
#
# The check tries it alone, and then in an outage. It looks at what reaches the model.
#
# *Hint: `self.until` is when the pause ends, by `time.monotonic()`. Whoever is let through after it starts the next
# pause, so that the others do not try as well.*

# %% exercise="breaker" minutes=8
import time

from temporalio.exceptions import ApplicationError


class Breaker:
    def __init__(self, most=3, pause=1.0):
        self.most, self.pause = most, pause
        self.failures, self.until = 0, 0.0

    def allow(self):
        left = self.until - time.monotonic()
        if self.failures >= self.most and left > 0:
            raise ApplicationError("The breaker is open.", next_retry_delay=lab.seconds(left))
        self.until = time.monotonic() + self.pause

    def succeeded(self):
        self.failures = 0

    def failed(self):
        self.failures += 1
        self.until = time.monotonic() + self.pause


# --- stub ---
# import time
#
# from temporalio.exceptions import ApplicationError
#
#
# class Breaker:
#     def __init__(self, most=3, pause=1.0):
#         self.most, self.pause = most, pause
#         self.failures, self.until = 0, 0.0
#
#     def allow(self):
#         pass  # your code here: when is nobody let through, and until when?
#
#     def succeeded(self):
#         pass  # your code here
#
#     def failed(self):
#         pass  # your code here

# %%
await check.breaker(client, Breaker)

# %% [markdown]
# Compare the two numbers. With a breaker they do not grow with the number of runs. And no run has failed, none has
# noticed. The breaker is a matter of the *process*: it is in no history, and begins anew
# with each worker. It may be wrong. What is durable is the retry.
#
# Each refusal is an attempt, too. So such a step is bounded by time (`schedule_to_close_timeout`), and not by a number of
# attempts. The library has such breakers before models and MCP servers (`lab.breakers()`). Before a Nexus endpoint the server
# itself has one; `lab.waits_for` says when it holds an operation back.
#
# ## Yesterday's runs, today's code
#
# A refund: look up, ask a clerk, wait, pay back.

# %%
# %%workflow refund
from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workshop_lib.lab.lessons.refunds import STEP, ask_clerk, look_up, pay_back


@workflow.defn
class Refund:
    def __init__(self) -> None:
        self.approved = False

    @workflow.run
    async def run(self, order: str) -> str:
        await workflow.execute_activity(look_up, order, **STEP)
        await workflow.execute_activity(ask_clerk, order, **STEP)
        await workflow.wait_condition(lambda: self.approved)
        return await workflow.execute_activity(pay_back, order, **STEP)

    @workflow.signal
    def approve(self) -> None:
        self.approved = True


# %%
from workshop_lib.lab.lessons.refunds import STEPS

refunds = lab.spec("refunds", workflows=[Refund], activities=STEPS)
await lab.start_worker(refunds)
old = await client.start_workflow(
    Refund.run,
    "ORD-7",
    id=lab.new_id("refund"),
    task_queue=refunds.task_queue,
    task_timeout=lab.seconds(2),
)
await lab.until_begun(old, "ask_clerk")

# %% [markdown]
# The clerk sleeps. Meanwhile somebody improves the code: a look for fraud, before the clerk is asked. The cell restarts
# its worker, as a release would.

# %%
# %%workflow refund
from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workshop_lib.lab.lessons.refunds import STEP, ask_clerk, check_fraud, look_up, pay_back


@workflow.defn
class Refund:
    def __init__(self) -> None:
        self.approved = False

    @workflow.run
    async def run(self, order: str) -> str:
        await workflow.execute_activity(look_up, order, **STEP)
        await workflow.execute_activity(check_fraud, order, **STEP)
        await workflow.execute_activity(ask_clerk, order, **STEP)
        await workflow.wait_condition(lambda: self.approved)
        return await workflow.execute_activity(pay_back, order, **STEP)

    @workflow.signal
    def approve(self) -> None:
        self.approved = True


# %% [markdown]
# > **Predict.** The clerk approves. The run was started by the old code and goes on with the new. What does it do: pay,
# > look for fraud first, fail, or nothing? (The second cell fails on purpose.)

# %%
my_guess = ""

# %% tags=["raises-exception"]
await old.signal("approve")
await lab.result(old, timeout=6)

# %% [markdown]
# <details><summary>What does it do?</summary>
#
# Nothing. The new worker has to find its place, so it *replays*: it runs the code and compares with the history. There
# stands `ask_clerk`, and the code wants `check_fraud`. *"Fail"*: a failed run is over, and this one is only stuck. The
# right code gets it going.
# </details>
#
# The same look can be had before a release. A **replay** takes a recorded history and the code of today. No activity is
# called.

# %%
await lab.replay(old, Refund)

# %% [markdown]
# ### Exercise · Change it and harm nobody (6 min)
#
# `workflow.patched("some-name")` is false in a run that has passed this place before there was the question, and true in
# every other. Change the code above so that the old run goes on as it began, and new ones are checked.
#
# The check replays the old run, and lets a new one do it all.

# %% exercise="patched" minutes=6
# %%workflow refund
from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workshop_lib.lab.lessons.refunds import STEP, ask_clerk, check_fraud, look_up, pay_back


@workflow.defn
class Refund:
    def __init__(self) -> None:
        self.approved = False

    @workflow.run
    async def run(self, order: str) -> str:
        await workflow.execute_activity(look_up, order, **STEP)
        if workflow.patched("check-fraud"):
            await workflow.execute_activity(check_fraud, order, **STEP)
        await workflow.execute_activity(ask_clerk, order, **STEP)
        await workflow.wait_condition(lambda: self.approved)
        return await workflow.execute_activity(pay_back, order, **STEP)

    @workflow.signal
    def approve(self) -> None:
        self.approved = True


# --- stub ---
# # %%workflow refund
# from temporalio import workflow
#
# with workflow.unsafe.imports_passed_through():
#     from workshop_lib.lab.lessons.refunds import STEP, ask_clerk, check_fraud, look_up, pay_back
#
#
# @workflow.defn
# class Refund:
#     def __init__(self) -> None:
#         self.approved = False
#
#     @workflow.run
#     async def run(self, order: str) -> str:
#         await workflow.execute_activity(look_up, order, **STEP)
#         # your code here: not for runs of yesterday
#         await workflow.execute_activity(check_fraud, order, **STEP)
#         await workflow.execute_activity(ask_clerk, order, **STEP)
#         await workflow.wait_condition(lambda: self.approved)
#         return await workflow.execute_activity(pay_back, order, **STEP)
#
#     @workflow.signal
#     def approve(self) -> None:
#         self.approved = True

# %%
await check.patched(client, Refund, old)

# %% [markdown]
# And the run that was stuck? Nobody has to wake it:

# %%
await lab.result(old)

# %%
await lab.show_timeline(old)

# %% [markdown]
# Red and green is a matter of one history *and* one state of the code. Here are recorded runs of all agents of this workshop,
# replayed with the code of today and with changes to it. (Some five seconds.)
#
# A row is a run: four kinds of chat, two repairs (`proactive` begins by itself), chats that went on in a next run, were stopped,
# or forked. The last three were recorded *with* a change. They have passed what today's code does not know: *today* is red.

# %%
await lab.replay_matrix()

# %% [markdown]
# A patch is for ever, or nearly. Once no run from before is left, `workflow.deprecate_patch` takes the place of the question:
# the column *deprecated* says for which histories that is too early. One release later the line can go.
#
# ## Two versions at once
#
# The other way: do not change the code under a run. A worker says which **version** it is, and a run is *pinned* to the
# version that it began with. Such a worker is one of a service. Here is one on a queue of its own; the one of before may go.

# %%
lab.stop_worker("refunds")
desk = lab.spec("desk", workflows=[Refund], activities=STEPS)
await lab.start_worker(desk.with_version("1"))
pinned = await client.start_workflow(
    Refund.run, "ORD-8", id=lab.new_id("desk"), task_queue=desk.task_queue
)
await lab.until_begun(pinned, "ask_clerk")

# %% [markdown]
# In version 2 nobody asks a clerk, and no patch asks which run it is. Its worker still has the activity `ask_clerk`, which no
# code of version 2 calls.
#
# > **Predict.** `pinned` waits for its clerk. Which version goes on with it, and which of the two does `ORD-9`?

# %%
my_guess = ""

# %%
# %%workflow refund
from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workshop_lib.lab.lessons.refunds import STEP, check_fraud, look_up, pay_back


@workflow.defn
class Refund:
    @workflow.run
    async def run(self, order: str) -> str:
        await workflow.execute_activity(look_up, order, **STEP)
        await workflow.execute_activity(check_fraud, order, **STEP)
        return await workflow.execute_activity(pay_back, order, **STEP)


# %%
desk = lab.spec("desk", workflows=[Refund], activities=STEPS)  # ask_clerk, too: nobody calls it
await lab.start_worker(desk.with_version("2"))
new = await client.start_workflow(
    Refund.run, "ORD-9", id=lab.new_id("desk"), task_queue=desk.task_queue
)
await pinned.signal("approve")
for run in (pinned, new):
    print(await lab.result(run), "by", await lab.version_of(run))

# %% [markdown]
# <details><summary>Which of the two?</summary>
#
# Version 1 goes on with `pinned`: its worker is still there. Version 2 does `ORD-9`. *"It is stuck"* is what the unversioned
# worker did above. The price: version 1 has to run until its last run is over.
#
# A chat has no last message. So it looks at the end of a turn whether there is a newer version, continues as new (as in 08),
# and its next run begins there, with code *and* prompt. A run whose pinned version is broken can be moved:
# `lab.move_run(run, "2")`.
# </details>

# %% [markdown]
# ## A case
#
# Somebody else's agent, last night. Its code is not at hand, and whoever wrote it is on holiday. There is a history, and a
# guest who has complained.

# %%
case = lab.open_case()
await lab.show_timeline(case)

# %%
from workshop_lib.lab.lessons.forensic import steps_of

for step in steps_of(case):
    print(f"{step.name} (attempts: {step.attempts})", step.failed_with, step.note)
    print("   ", step.input, "→", step.result)

# %% [markdown]
# ### Exercise · Find out (6 min)
#
# Two steps did not go well at once. For one of them a worker came back and said why; that is daily business. The other is
# the case. Five questions: which step is it? How many of its attempts were lost? Who noticed that they were? What was paid
# twice? And what would you change?
#
# Write in your own words. The check reads the same history, and looks for what matters in them.
#
# *Hint: a worker that dies says nothing. What stands in a step's note, and who can have written that? What the guest
# has paid is not in the step that took it, but in the one that looked afterwards.*

# %% exercise="forensic" minutes=6
which_step = "charge_card"
lost_attempts = 2
who_noticed = "the server, since no heartbeat came"
paid_twice = "the charge of 240 dollars"
change = "give the charge a key that all its attempts share"

# --- stub ---
# which_step = ""  # your answers here
# lost_attempts = 0
# who_noticed = ""
# paid_twice = ""
# change = ""

# %%
await check.forensic(case, which_step, lost_attempts, who_noticed, paid_twice, change)

# %% [markdown]
# The history was right all the time: *one* charge was completed. It tells what the server was told. What the world has seen
# you find where somebody asked the world.

# %% [markdown]
# ## Try it yourself
#
# No checks here. Give the breaker a pause of two seconds, and look at what a person waits:
#
# ```python
# await lab.live_through_outage(client, Breaker(pause=2.0))
# ```

# %% [markdown]
# ## Recap
#
# You have broken things on purpose, and read what came of it.
#
# 1. Why is it Temporal's own retry that tries whether the model is back?
# 2. Why may a breaker forget all it knows, and a workflow nothing?
# 3. When may the code behind `workflow.patched` lose its `if`?
#
# <details><summary>Answers</summary>
#
# 1. It comes in any case, it outlives the worker, and no worker waits for it.
# 2. A breaker that is wrong costs three requests. A workflow that is wrong pays twice.
# 3. When no run from before is left, and no history that somebody may want to replay.
# </details>

# %% [markdown]
# Stop this notebook's workers.

# %%
lab.stop_all()
