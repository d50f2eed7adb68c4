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
# # 00 · Meet the lab
#
# You write your first workflow, kill the process that runs it, and watch it finish anyway.
#
# **Time** 15 min · **Needs** nothing · **Offline** yes

# %% [markdown]
# ## Goals
#
# After this notebook you can
#
# * write a workflow and an activity, and run them on a worker;
# * read what happened from the event history;
# * say which step runs again after a worker is killed, and which does not.

# %% [markdown]
# ## Where we are
#
# Three parts play together. Your **notebook** asks for work. A **worker** runs your code. The **Temporal
# server** stands between them and writes everything down.
#
# ```mermaid
# flowchart LR
#     accTitle: The parts of the lab
#     accDescr: The notebook starts workflows on the Temporal server. The worker takes tasks from the server and reports results. The server stores the event history.
#     N[notebook] -- start --> S[(Temporal server<br/>event history)]
#     S -- task --> W[worker<br/>your code]
#     W -- result --> S
# ```

# %% [markdown]
# This cell starts the server, or finds the one that is running. The first time takes a few seconds.

# %%
from workshop_lib import lab
from workshop_lib.lab.checks import nb00 as check

client = await lab.start()

# %% [markdown]
# ## A workflow and an activity
#
# An **activity** is an ordinary function: it may call the network, read files, fail. A **workflow** is the
# plan that calls activities, and says for each how long one attempt may take (`start_to_close_timeout`).
#
# The first line, `%%workflow`, makes a module of the cell, so that workers can import it. That is why the cell
# brings its own imports.

# %%
# %%workflow greeting
from datetime import timedelta

from temporalio import activity, workflow


@activity.defn
async def compose(name: str) -> str:
    return f"Hello, {name}!"


@workflow.defn
class Greeting:
    @workflow.run
    async def run(self, name: str) -> str:
        limit = timedelta(seconds=2)
        return await workflow.execute_activity(compose, name, start_to_close_timeout=limit)


# %% [markdown]
# A **worker** polls a **task queue** and runs what it finds there. The lab names the queue after the worker:
# `greeter-task-queue`. This worker runs in a background thread of the notebook, so the cell comes back at once.

# %%
greeter = await lab.start_worker(lab.spec("greeter", workflows=[Greeting], activities=[compose]))

# %% [markdown]
# Now start a run. Its **workflow id** is a name that you choose. The server remembers it.

# %%
run_id = lab.new_id("greeting")
handle = await client.start_workflow(
    Greeting.run, "Ada", id=run_id, task_queue="greeter-task-queue"
)
await lab.result(handle)

# %% [markdown]
# ## The history is the evidence
#
# The answer alone proves little. The server kept an **event history** of the run. Everything in it happened;
# nothing else did. A *workflow task* is a moment in which your workflow code ran.

# %%
print("\n".join(await lab.events(handle)))

# %% [markdown]
# Find the three lines about the activity: *scheduled* by the workflow, *started* by a worker, *completed*
# with a result.
#
# The same history as a picture, with a link to this very run in the Web UI:

# %%
await lab.show_timeline(handle)

# %% [markdown]
# ### Exercise · Greet two people (4 min)
#
# Make a workflow that greets **both** names it is given, with one activity for each, and returns a list of
# two greetings.
#
# The check runs your workflow and looks at the history: two completed `compose` activities.
#
# *Hint: call `workflow.execute_activity` once for each name. An activity of another cell is called by its name,
# `"compose"`.*

# %% exercise="two_greetings" minutes=4
# %%workflow pair
from datetime import timedelta

from temporalio import workflow


@workflow.defn
class GreetPair:
    @workflow.run
    async def run(self, names: list[str]) -> list[str]:
        limit = timedelta(seconds=2)
        greetings = []
        for name in names:
            greeting = await workflow.execute_activity(
                "compose", name, start_to_close_timeout=limit
            )
            greetings.append(greeting)
        return greetings


# --- stub ---
# # %%workflow pair
# from datetime import timedelta
#
# from temporalio import workflow
#
#
# @workflow.defn
# class GreetPair:
#     @workflow.run
#     async def run(self, names: list[str]) -> list[str]:
#         limit = timedelta(seconds=2)
#         greetings = []
#         # your code here: one activity for each name
#         return greetings

# %%
await check.two_greetings(client, GreetPair, compose)

# %% [markdown]
# ## Kill it
#
# Now a run with three steps. Each step packs one box.

# %%
# %%workflow packing
from datetime import timedelta

from temporalio import activity, workflow


@activity.defn
async def pack(box: int) -> str:
    return f"box {box} packed"


@workflow.defn
class Packing:
    @workflow.run
    async def run(self) -> list[str]:
        limit = timedelta(seconds=2)
        packed = []
        for box in (1, 2, 3):
            line = await workflow.execute_activity(pack, box, start_to_close_timeout=limit)
            packed.append(line)
        return packed


# %% [markdown]
# We want to kill the worker, and a thread cannot be killed. So this worker is a process of its own. It kills
# itself with SIGKILL in the middle of the second `pack`: the kill point `activity-inside@pack#2`. SIGKILL cannot
# be caught: there is no goodbye and no clean-up.

# %%
packer = lab.spec("packer", workflows=[Packing], activities=[pack])
doomed = await lab.start_process(packer, kill_at="activity-inside@pack#2")
doomed

# %% [markdown]
# > **Predict.** One box is packed, the second is in somebody's hands, and the process is gone. A new worker
# > starts. Which boxes will it pack: 1, 2, 3? Write your guess down before you run on.

# %%
my_guess = ""

# %%
packing_id = lab.new_id("packing")
handle = await client.start_workflow(Packing.run, id=packing_id, task_queue="packer-task-queue")
print("The process ended with status", await doomed.exited())

# %% [markdown]
# Status -9: killed. The run is not lost, it just has nobody to run it:

# %%
print((await handle.describe(rpc_timeout=lab.seconds(10))).status.name)

# %% [markdown]
# A second process with the same code. It has never heard of boxes. Give it some seconds: the server first has to
# find out that the other one is gone.

# %%
helper = await lab.start_process(packer)
await lab.result(handle)

# %%
await lab.show_timeline(handle)

# %% [markdown]
# <details><summary>What happened, and why other guesses are wrong</summary>
#
# Box 1 was not packed again, box 2 was tried twice, box 3 once.
#
# *"All three again."* Box 1's result is in the history. The new worker runs the workflow code from its first line,
# a **replay**: `execute_activity` for box 1 returns the recorded result without running anything.
#
# *"Only 3."* The worker died before it could report box 2. The server cannot know how far it got. It waits for the
# limit of two seconds and a pause of one, and hands the activity out again: attempt 2.
#
# *"None, the run failed."* A worker's death is not a failure of the workflow. The run waits for a worker.
#
# And the second, short gap? For one second the server keeps the next step for the worker that had the run in its
# memory. That one is dead, so the step goes to anybody.
# </details>

# %% [markdown]
# So one promise is *not* made: that an activity runs only once. It runs **at least once**. An activity that
# charges a card needs a way to notice that it has been there before. A later notebook builds one.

# %% [markdown]
# ### Exercise · Kill it somewhere else (4 min)
#
# Choose another moment: let the worker die **after the third box is packed, before the server hears of it**.
# The run must still complete.
#
# The check looks at the history: box 3 was handed out twice, boxes 1 and 2 once.
#
# *Hint: kill points are written `place@name#count`. The places around an activity, in their order: `activity-before`
# (it has not begun), `activity-inside` (it is at work), `activity-result` (it has returned), `activity-report` (only the
# report to the server is missing).*

# %% exercise="kill_third" minutes=4
kill_at = "activity-report@pack#3"

# --- stub ---
# kill_at = None  # your code here: where shall the worker die?

# %%
await check.kill_third(client, packer, Packing, kill_at)

# %% [markdown]
# ## When a cell is wrong
#
# A bug in workflow code does not fail the run. The server asks the worker to try again until the code is right.
# The lab tells you, with the line of your cell. This workflow reads the clock of the machine, which a replay could
# not repeat. **The second cell fails on purpose.**

# %%
# %%workflow clock
from datetime import datetime

from temporalio import workflow


@workflow.defn
class Clock:
    @workflow.run
    async def run(self) -> str:
        return datetime.now().isoformat()


# %% tags=["raises-exception"]
clock = await lab.start_worker(lab.spec("clock", workflows=[Clock]))
clock_id = lab.new_id("clock")
handle = await client.start_workflow(Clock.run, id=clock_id, task_queue="clock-task-queue")
await lab.result(handle)

# %% [markdown]
# Nothing failed: the run is still waiting. Mend the code, and **the same run** goes on, after ten seconds at most.

# %%
# %%workflow clock
from temporalio import workflow


@workflow.defn
class Clock:
    @workflow.run
    async def run(self) -> str:
        return workflow.now().isoformat()


# %%
await lab.result(handle)

# %% [markdown]
# ## Try it yourself
#
# No checks here. Kill `greeter` in its activity: only a process can be, so it gets one. Then start it again, as
# before. Or start ten packings at once, kill their worker, and start another. In the Web UI, linked from a timeline,
# find the attempt that was lost.
#
# ```python
# doomed = await lab.start_process(greeter.spec, kill_at="activity-inside@compose")
# again = await client.start_workflow(
#     Greeting.run, "Ada", id=lab.new_id("again"), task_queue="greeter-task-queue"
# )
# await doomed.exited()
# greeter = await lab.start_worker(greeter.spec)
# await lab.result(again)
# ```
#
# ```python
# helper = await lab.start_process(packer)
# runs = [
#     await client.start_workflow(Packing.run, id=lab.new_id("ten"), task_queue="packer-task-queue")
#     for _ in range(10)
# ]
# helper.kill()
# await lab.start_process(packer)
# [await lab.result(run) for run in runs]
# ```

# %% [markdown]
# ## Recap
#
# You can now write a workflow, run it on a worker, and tell from the history what happened.
#
# 1. What does a new worker do with steps whose results are in the history?
# 2. Why may an activity run twice, and a workflow not lose its place?
# 3. Where does the plan of a run live when no worker is alive?
#
# <details><summary>Answers</summary>
#
# 1. It replays them: same code, recorded results, nothing is run again.
# 2. The server cannot see whether a dead worker had finished, so it hands the step out again. The place in the
#    plan is the history itself, which is on the server.
# 3. The history is on the server, the code is with you. A worker brings them together.
# </details>

# %% [markdown]
# Stop this notebook's workers. The server goes on; the next notebook uses it:
# **01 · Build the agent loop**.

# %%
lab.stop_all()
