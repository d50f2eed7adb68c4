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
# # 06 · Let days pass in seconds
#
# An agent that works every day, for weeks. You watch it for ten days, in the time it takes to drink a coffee.
#
# **Time** 20 min · **Needs** 05 · **Offline** yes

# %% [markdown]
# ## Goals
#
# After this notebook you can
#
# * let something expire, and test it without waiting;
# * say when an agent may act alone;
# * run an agent that never ends, and one that a schedule starts.

# %% [markdown]
# ## Where we are
#
# In 05 you started a repair and decided about it. Two things are missing: nobody decides, and nobody starts it.
#
# ```mermaid
# flowchart LR
#     accTitle: The proactive agent
#     accDescr: Each day a cycle detects, analyses and plans. Above 0.95 the agent acts alone, otherwise it notifies and waits up to twelve hours. Then it waits for the next day.
#     C[cycle] --> P{every confidence<br/>above 0.95?}
#     P -- yes --> A[act] --> W[wait a day]
#     P -- no --> N[notify, wait 12 h] --> W
#     W --> C
# ```

# %%
from workshop_lib import lab
from workshop_lib.lab.checks import nb06 as check
from workshop_lib.repair.store import open_store

client = await lab.start()
store = open_store()
store.reset()

# %% [markdown]
# ## Twelve hours
#
# A plan that nobody decided about is too old at some point. To a workflow that is one line: a condition with a time
# limit. The server keeps the timer, so the worker may die, or the laptop sleep, and it fires all the same.
#
# ### Exercise · Let it expire (6 min)
#
# This run waits for a signal, for ever. Give it twelve hours. Undecided, it ends as `"EXPIRED"`, which is a result
# and no failure.
#
# The check decides one run. For another it lets eleven hours pass, and one more. It looks for exactly twelve.
#
# *Hint: `workflow.wait_condition(..., timeout=...)` raises `TimeoutError` when the time is over.*

# %% exercise="expires" minutes=6
# %%workflow decision
from datetime import timedelta

from temporalio import workflow


@workflow.defn
class Decision:
    def __init__(self) -> None:
        self.approved = False

    @workflow.run
    async def run(self) -> str:
        try:
            await workflow.wait_condition(lambda: self.approved, timeout=timedelta(hours=12))
        except TimeoutError:
            return "EXPIRED"
        return "APPROVED"

    @workflow.signal
    def approve(self) -> None:
        self.approved = True


# --- stub ---
# # %%workflow decision
# from datetime import timedelta
#
# from temporalio import workflow
#
#
# @workflow.defn
# class Decision:
#     def __init__(self) -> None:
#         self.approved = False
#
#     @workflow.run
#     async def run(self) -> str:
#         await workflow.wait_condition(lambda: self.approved)  # your code here
#         return "APPROVED"
#
#     @workflow.signal
#     def approve(self) -> None:
#         self.approved = True

# %%
await check.expires(client, Decision)

# %% [markdown]
# How can twelve hours pass in a second? On the dev server each run has a clock of its own. `lab.pass_time` tells it to
# jump to the next timer, as far as you say. The code does not notice. In production time takes its time.
#
# The repair of 05 expires in the same way:

# %%
from workshop_lib.repair.client import RepairClient
from workshop_lib.repair.worker import repair

worker = await lab.start_worker(repair())
undecided = await RepairClient.start(client)
status = await lab.repair_reaches(undecided, "PENDING-APPROVAL")
print(f"decide until {status.decide_until:%A %H:%M} UTC")

# %%
await lab.pass_time(undecided.handle, hours=12.5)
print((await undecided.outcome()).reason)

# %% [markdown]
# **This cell fails on purpose.** Whoever decides now is too late, and is told so.

# %% tags=["raises-exception"]
await undecided.approve(status.plan_digest)

# %% [markdown]
# ## May it act alone?
#
# The proactive agent asks nobody where it is sure. It is sure when there is something to do and *every* proposal has a
# confidence **above** 0.95, and it acts within the same hard rules as always.
#
# > **Predict.** The plan of 05 had confidences 0.99, 0.93, 0.90 and 0.99. Will the agent order the badges on its own, at
# > 0.99?

# %%
my_guess = ""

# %% [markdown]
# ### Exercise · Draw the line (4 min)
#
# Write that rule as a function of a plan. Each of `plan.proposals` has a `confidence`.
#
# The check tries plans above, below and exactly at the line, and an empty one.
#
# *Hint: `all(...)` of nothing is true.*


# %% exercise="acts_alone" minutes=4
def acts_alone(plan):
    sure = all(proposal.confidence > 0.95 for proposal in plan.proposals)
    return bool(plan.proposals) and sure


# --- stub ---
# def acts_alone(plan):
#     return any(proposal.confidence >= 0.95 for proposal in plan.proposals)  # your code here

# %%
await check.acts_alone(acts_alone)

# %% [markdown]
# ## An agent that stays
#
# One run, a cycle a day. It looks, plans, acts or asks, and waits until a day is over. We count its days from the start,
# and the shop's calendar goes along: day 0 is 28 June, day 1 the 29th.

# %%
from workshop_lib.repair.proactive_client import ProactiveClient

store.reset()  # the orders as they were
agent = await ProactiveClient.start_agent(client, workflow_id=lab.new_id("proactive"))
asked = await lab.repair_reaches(agent, "PENDING-APPROVAL")
begun = (await agent.handle.describe()).start_time
print(f"cycle {asked.cycle}: {asked.state}")

# %% [markdown]
# <details><summary>Will it order the badges alone?</summary>
#
# No. One proposal of the plan has 0.90, so it asks about all of it. *"The badges are at 0.99."* You may approve a part. The
# agent may not: it acts on a whole plan, or asks. An order that it repaired by half would count as looked after.
# </details>
#
# It has notified somebody. There is no mail server here, so the letter lies in a folder:

# %%
from workshop_lib.settings import get_settings

await lab.waits_for(agent.handle, until="nothing is pending")  # the letter is written
letters = sorted((get_settings().state_dir / "outbox").glob(f"{agent.workflow_id}*"))
print(letters[0].read_text().partition("\n## ")[0])

# %% [markdown]
# ## One bad day
#
# You reject today's plan.
#
# > **Predict.** What will the agent do tomorrow?

# %%
my_guess = ""

# %%
await agent.reject(asked.plan_digest, comment="not today")
await lab.repair_reaches(agent, "WAITING-FOR-NEXT-CYCLE")
print("day", (await lab.pass_time(agent.handle, days=1) - begun).days)

# %%
tomorrow = await lab.repair_reaches(agent, "PENDING-APPROVAL")
print(f"cycle {tomorrow.cycle}; the same digest: {tomorrow.plan_digest == asked.plan_digest}")

# %% [markdown]
# <details><summary>What did it do?</summary>
#
# It asked again, about a plan of its own. *"It gives up."* A decision is about one plan and no other. Yesterday's digest
# would be refused today, even if the proposals were the same: you have not looked at *this* plan.
# </details>
#
# Today you approve. Then you go on holiday.
#
# > **Predict.** Everything is repaired. What will the cycles of these days say?

# %%
my_guess = ""

# %%
await agent.approve(tomorrow.plan_digest)
await lab.repair_reaches(agent, "WAITING-FOR-NEXT-CYCLE")
before = await agent.handle.describe()
before.history_length

# %% [markdown]
# So many events the agent has written in two days. Nine more pass. (Some seconds here: each cycle does its work.)

# %%
print("day", (await lab.pass_time(agent.handle, days=9) - begun).days)

# %%
for cycle in await agent.cycles():
    day = (cycle.started - begun).days
    print(f"cycle {cycle.cycle:>2}  day {day:>2}  {cycle.state}  {cycle.reason[:60]}")

# %% [markdown]
# <details><summary>What do they say?</summary>
#
# The third found nothing, and asked no model for a plan: detection was enough. *"So did the others."* Time passes for the
# shop too. One payment was a day old when you came, and on the fourth day it is a problem. The agent asked you every
# day. Nobody answered, the plan expired after twelve hours, and the next day was a new one. (The eleventh cycle waits for
# you now, and is no past one yet.)
# </details>
#
# ## A run that never ends
#
# A history cannot grow for ever. After ten cycles the agent **continues as new**: the same workflow id, a fresh history,
# and its state handed over.

# %%
await lab.repair_reaches(agent, "PENDING-APPROVAL")
now = await agent.handle.describe()
print("another run:", now.run_id != before.run_id, "· events in its history:", now.history_length)

# %% [markdown]
# A signal that arrives in that very moment is not lost: the agent handles all that have come before it hands over, and
# a later one reaches the new run. Now ask it to leave.

# %%
await agent.request_exit()
print((await agent.stopped()).state)

# %% [markdown]
# ## Or let the server start it
#
# An agent that stays can be asked, and remembers. Often that is not needed: a **schedule** starts a repair every
# day, and between two repairs nothing runs.
#
# ### Exercise · Every day at seven (4 min)
#
# Create a schedule for seven o'clock UTC, and start one of its repairs now.
#
# The check asks the server for the next times and for what was started.
#
# *Hint: `await schedules.upsert(name, hour=...)`, `await schedules.trigger(name)`.*

# %% exercise="scheduled" minutes=4
from workshop_lib.repair.schedule import RepairSchedules

schedules, name = RepairSchedules(client), "daily"
made = await schedules.upsert(name, hour=7)  # or changed, where there is one
await schedules.trigger(name)

# --- stub ---
# from workshop_lib.repair.schedule import RepairSchedules
#
# schedules, name = RepairSchedules(client), "daily"
# # your code here
# made = await schedules.upsert(name)  # or changed, where there is one

# %%
await check.scheduled(client, name)

# %%
for moment in (await schedules.describe(name)).next_times[:5]:
    print(f"{moment:%A %d %B %H:%M} UTC")

# %% [markdown]
# | | an agent that stays | a schedule |
# |---|---|---|
# | between two repairs | a run that waits | nothing |
# | remembers its past cycles | yes | each repair is a run of its own |
# | can be asked, hurried, stopped | by signals and queries | pause, trigger, delete |
# | a repair still waits when the next is due (it may for longer than a day) | the next waits for it | the next is dropped |

# %% [markdown]
# ## Try it yourself
#
# No checks here. Hurry an agent instead of letting time pass:
#
# ```python
# hasty = await ProactiveClient.start_agent(client, workflow_id=lab.new_id("hasty"))
# await lab.repair_reaches(hasty, "WAITING-FOR-NEXT-CYCLE")  # all is repaired
# await hasty.stop_waiting()
# await hasty.request_exit()  # this cycle is its last
# (await hasty.stopped()).cycles
# ```
#
# Or make up for days that were missed: three repairs, one after the other.
#
# ```python
# from datetime import UTC, datetime
#
# await schedules.backfill(datetime(2026, 1, 5, tzinfo=UTC), datetime(2026, 1, 8, tzinfo=UTC), name)
# (await schedules.describe(name)).runs
# ```

# %% [markdown]
# ## Recap
#
# You have let ten days pass and lost none.
#
# 1. Who keeps a timer of twelve hours while no worker runs?
# 2. Why does one unsure proposal stop the whole plan?
# 3. What is handed over when a run continues as new, and what is not?
#
# <details><summary>Answers</summary>
#
# 1. The server. It is an event in the history.
# 2. Its parts belong together; half a repair looks like a whole one the next day.
# 3. The state, as an argument. The history is not, which is the point.
# </details>

# %% [markdown]
# Stop this notebook's workers and delete the schedule.

# %%
lab.stop_all()
await schedules.delete(name)
