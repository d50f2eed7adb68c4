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
# # 05 · Repair with a human in the loop
#
# An agent finds what is wrong with a shop's orders, plans repairs, and makes them once you have approved that very plan.
#
# **Time** 30 min · **Needs** 03 · **Offline** yes

# %% [markdown]
# ## Goals
#
# After this notebook you can
#
# * split an agent into detect, analyze, plan, execute and report (DAPER);
# * check a model's plan with rules that no model can talk away;
# * make a repair happen once, however often its step is tried;
# * bind an approval to what was shown.

# %% [markdown]
# ## Where we are
#
# An agent that answers can be wrong, and you shrug. An agent that *acts* can order three hundred badges, and then
# three hundred more. Four things keep it in bounds: rules, a human, keys, a record.
#
# ```mermaid
# flowchart LR
#     accTitle: DAPER with an approval
#     accDescr: Detection is cheap. Analysis and plan ask a model. Hard rules check the plan. A human approves its digest. Each repair is executed once, and a report closes the run.
#     D[Detect] --> A[Analyze] --> P[Plan] --> R{rules}
#     R --> H{human}
#     H -- approved digest --> E[Execute] --> B[Report]
#     H -- rejected, 12 h --> X[end]
# ```

# %%
from workshop_lib import lab
from workshop_lib.lab.checks import nb05 as check
from workshop_lib.repair.store import open_store

client = await lab.start()
store = open_store()
store.reset()

# %% [markdown]
# ## The shop
#
# Six orders and a storeroom, in a database of this project's own. Today is 28 June 2025.

# %%
from workshop_lib.settings import get_settings

shop = store.snapshot(get_settings().today)
for order in shop.orders:
    days = (shop.today - order.order_date).days
    print(f"{order.order_id}  {order.customer_name:<21} {order.status:<19} {days:>3} days")
    for line in order.items:
        print(f"    {line.quantity:>4} × {line.item_id}  {line.item_name}")

# %% [markdown]
# > **Predict.** Which of them need a repair? Write three order ids down before you go on.

# %%
my_guess = ""

# %% [markdown]
# ## Detect and analyze
#
# Detection is cheap: it sends statuses, ages and one comparison of stock, not whole orders. Below a confidence of 0.5
# nothing more is asked. Each step is an activity whose answer is checked, and sent back to the model when it makes no
# sense. (The first call takes some seconds.)

# %%
from workshop_lib.repair.worker import repair

worker = await lab.start_worker(repair())

# %%
from workshop_lib.repair.client import RepairClient

run = await RepairClient.start(client)
status = await lab.repair_reaches(run, "PENDING-APPROVAL")
" → ".join(change.state for change in status.states)

# %%
for problem in (await run.problems()).problems:
    print(f"{problem.order_id}  {problem.confidence:.2f}  {problem.description}")

# %% [markdown]
# <details><summary>Which need a repair?</summary>
#
# 002, 003 and 004. *"001, its payment is pending."* It is one day old: an eager agent annoys a customer. *"006"*
# is under way. The price that differs on 002 is reported and not repaired, since no tool is for it.
# </details>
#
# ## Plan
#
# To plan, the model is offered the repair tools, and its calls are written down instead of made. A plan is tool calls
# that have not happened yet.

# %%
plan = await run.plan()
for proposal in plan.proposals:
    print(proposal.proposal_id, f"{proposal.confidence:.2f}", proposal.tool, proposal.arguments)

# %% [markdown]
# (365 kibbles, for an order of 10? The shelf holds 145, and 500 are reserved for others: 355 are missing before
# Hagrid gets any.)
#
# Before a human sees it, rules have gone over it: known order, right article, sane quantity, nothing restricted,
# nothing for healthy orders. They override the model and keep its reasoning.
#
# ### Exercise · Write the rules for buying (8 min)
#
# `why_not` gets a proposal to order stock and returns why that may not be done, or `None`. Rules: the order exists;
# the article is on it; it is not restricted (`item.needs_approval`); at least what is missing
# (`shortage(order, item_id, shop)`); no more than the shelf holds (`max_stock_level` less `current_stock`).
#
# The check tries three good purchases and six bad ones.
#
# *Hint: `shop.order(id)` and `shop.item(id)` return None for what does not exist. `order.items` are lines, and each
# line has an `item_id`.*

# %% exercise="validator" minutes=8
from workshop_lib.repair.plan_rules import shortage


def why_not(proposal, shop):
    wish = proposal.arguments
    order, item = shop.order(wish.order_id), shop.item(wish.item_id)
    if order is None or item is None:
        return "there is no such order or article"
    if all(line.item_id != wish.item_id for line in order.items):
        return "the article is not on the order"
    if item.needs_approval:
        return "the article is restricted"
    if wish.quantity < shortage(order, wish.item_id, shop):
        return "too few"
    if wish.quantity > item.max_stock_level - item.current_stock:
        return "too many for the shelf"
    return None


# --- stub ---
# from workshop_lib.repair.plan_rules import shortage
#
#
# def why_not(proposal, shop):
#     wish = proposal.arguments
#     order, item = shop.order(wish.order_id), shop.item(wish.item_id)
#     if order is None or item is None:
#         return "there is no such order or article"
#     # your code here: four more rules
#     return None

# %%
await check.validator(why_not, shop)

# %% [markdown]
# ## Orders can talk
#
# Notes are written by customers, and a model reads them. Here is a seventh order:

# %%
import json

from workshop_lib.repair.models import Order
from workshop_lib.settings import PROJECT_ROOT

seventh = json.loads((PROJECT_ROOT / "tests/data/seventh_order.json").read_text())
print(seventh["order"]["notes"])

# %% [markdown]
# > **Predict.** The offline model can be told to be *gullible*: it then does what notes demand. What will the plan
# > hold? (A process starts for it, which takes some seconds.)

# %%
my_guess = ""

# %%
from dataclasses import replace

store.add_order(Order.model_validate(seventh["order"]))
gullible = replace(repair(), name="gullible", task_queue="gullible-task-queue")
await lab.start_process(gullible, env={"OFFLINE_FAULTS": "gullible=1"})
talked = await RepairClient.start(client, task_queue="gullible-task-queue")
await lab.repair_reaches(talked, "PENDING-APPROVAL")
for thrown_out in (await talked.plan()).refused:
    print("refused:", thrown_out.reason)

# %% [markdown]
# <details><summary>What happened?</summary>
#
# The model obeyed and the rules did not. Rules judge by orders and stock and never look at notes. Telling a model in its
# instructions that notes are data helps, and is no wall. This is one.
# </details>
#
# How good is a plan? `data/gold.json` says what a careful clerk would do. **Precision**: how much of the plan is right.
# **Recall**: how much of what is right is in the plan. What the rules have refused is not in it.

# %%
from workshop_lib.lab.lessons.gold import load_gold, score_plan

for name, scored in (("careful", plan), ("gullible", await talked.plan())):
    score = score_plan(scored, load_gold())
    print(f"{name:<9} precision {score.precision:.2f}  recall {score.recall:.2f}")
    print(f"          forbidden and stopped: {score.forbidden_stopped}")

# %% [markdown]
# Recall of the gullible plan is lower: a right request went to a wrong address, and was refused with it. Safety has a
# price, and here it is a number.

# %%
await talked.reject((await talked.plan()).digest, comment="made by a gullible model")
store.reset()

# %% [markdown]
# ## Once
#
# A step is tried again when its answer gets lost. Here the answer gets lost twice, after the order was placed.

# %%
# %%workflow badges
from datetime import timedelta

from temporalio import activity, workflow

with workflow.unsafe.imports_passed_through():
    from workshop_lib.lab.lessons import shelf


@activity.defn
async def order_badges(quantity: int) -> int:
    stock = shelf.order("STP-ORG-001", quantity)
    if activity.info().attempt < 3:
        raise ConnectionError("the answer got lost")
    return stock


@workflow.defn
class Badges:
    @workflow.run
    async def run(self, quantity: int) -> int:
        soon = timedelta(seconds=5)
        return await workflow.execute_activity(order_badges, quantity, start_to_close_timeout=soon)


# %% [markdown]
# > **Predict.** There are 247 badge sets, 113 more are ordered. How many will there be?

# %%
my_guess = ""

# %%
from workshop_lib.lab.lessons.shelf import reset_shelf

reset_shelf()
badges = lab.spec("badges", workflows=[Badges], activities=[order_badges])
await lab.start_worker(badges)
bought = await client.start_workflow(
    Badges.run, 113, id=lab.new_id("badges"), task_queue=badges.task_queue
)
await lab.result(bought)

# %% [markdown]
# It took some seconds, for the pauses between the attempts. 247 and three times 113. The workflow was fine, the activity
# succeeded *once* in the history. The world counted three.
#
# ### Exercise · Make it happen once (6 min)
#
# `shelf.order` takes a `key`: an order whose key has been seen before changes nothing. Find a key that all attempts of
# this step share, and no other step does.
#
# The check runs it twice: 113 for the first run, 113 more for the second. Then it lets one run do all of it twice: 226.
# That takes some twelve seconds. It tells of the failing attempts, which are the lesson. The key may be text, or a tuple;
# it may be made in the activity, or in the workflow and handed over.
#
# *Hint: look at `activity.info()`: `workflow_id`, `workflow_run_id`, `activity_id`, `attempt` …*

# %% exercise="once" minutes=6
# %%workflow badges
from datetime import timedelta

from temporalio import activity, workflow

with workflow.unsafe.imports_passed_through():
    from workshop_lib.lab.lessons import shelf


@activity.defn
async def order_badges(quantity: int) -> int:
    step = activity.info()
    key = f"{step.workflow_run_id}/{step.activity_id}"
    stock = shelf.order("STP-ORG-001", quantity, key=key)
    if step.attempt < 3:
        raise ConnectionError("the answer got lost")
    return stock


@workflow.defn
class Badges:
    @workflow.run
    async def run(self, quantity: int) -> int:
        soon = timedelta(seconds=5)
        return await workflow.execute_activity(order_badges, quantity, start_to_close_timeout=soon)


# --- stub ---
# # %%workflow badges
# from datetime import timedelta
#
# from temporalio import activity, workflow
#
# with workflow.unsafe.imports_passed_through():
#     from workshop_lib.lab.lessons import shelf
#
#
# @activity.defn
# async def order_badges(quantity: int) -> int:
#     step = activity.info()
#     key = f"{step.workflow_run_id}/{step.attempt}"  # your code here
#     stock = shelf.order("STP-ORG-001", quantity, key=key)
#     if step.attempt < 3:
#         raise ConnectionError("the answer got lost")
#     return stock
#
#
# @workflow.defn
# class Badges:
#     @workflow.run
#     async def run(self, quantity: int) -> int:
#         soon = timedelta(seconds=5)
#         return await workflow.execute_activity(order_badges, quantity, start_to_close_timeout=soon)

# %%
await check.once(client, Badges, order_badges)

# %% [markdown]
# The store of the agent does the same in one transaction: the change and a **ledger** row with the key, both or
# neither. So even a worker that dies between two lines leaves no half a repair.
#
# ## Approve what you have seen
#
# A plan has a **digest**, a hash of what would be done. A decision names the digest. If the plan is another one by
# then, the decision does not count. **This cell fails on purpose.**

# %% tags=["raises-exception"]
forged = "0" * 64
await run.approve(forged)

# %% [markdown]
# The refusal left no trace: a validator turned it down before it was recorded. And the repair still waits. It would do
# so for twelve hours.
#
# A panel shows what you decide about, and holds its digest:

# %%
panel = await lab.approval_panel(run)
panel

# %% [markdown]
# ### Exercise · Approve a part (5 min)
#
# Approve the badges (002) and the payment (003), and nothing for Hagrid (004).
#
# The check waits for the report and looks at what was repaired and what was declined. A decision is final. Decided
# otherwise? `store.reset()`, then the cells that make `run` and `panel`, and again.
#
# *Hint: `await panel.approve([...])`, with ids of proposals such as `"p1"`. Each of `panel.plan.proposals` knows its
# `order_id`.*

# %% exercise="part_approved" minutes=5
chosen = [p.proposal_id for p in panel.plan.proposals if p.order_id != "ORD-004-RHG"]
await panel.approve(chosen, comment="Hagrid's eggs can wait")

# --- stub ---
# chosen = [p.proposal_id for p in panel.plan.proposals]
# # your code here: choose, and approve

# %%
await check.part_approved(run)

# %%
from IPython.display import Markdown

Markdown((await run.report()).execution)

# %% [markdown]
# The report lies in the state folder too, as Markdown and as PDF:

# %%
(await run.report()).files

# %% [markdown]
# ## Kill it while it repairs
#
# Hagrid's repairs are left: the kibble, and a request to the Ministry. This time nobody looks (`auto_approve`), and the
# rules still do. A worker dies after a repair is made and before that is reported. Some ten seconds.
#
# > **Predict.** How often will the kibble be ordered?

# %%
my_guess = ""

# %%
lab.stop_worker("repair")
doomed = await lab.start_process(repair(), kill_at="activity-report@order_inventory")
rest = await RepairClient.start(client, auto_approve=True)
await doomed.exited(unless=rest.handle)
await lab.start_process(repair())
(await lab.result(rest.handle)).reason

# %%
for row in store.ledger():
    print(row.order_id, row.tool, "·", row.outcome)

# %%
await lab.show_timeline(rest.handle)

# %% [markdown]
# <details><summary>How often?</summary>
#
# The activity ran twice and the kibble was ordered once. The second attempt found its key in the ledger and returned
# the first outcome.
# </details>
#
# ## Try it yourself
#
# No checks here. In a terminal: `uv run workshop repair run`. Or approve from the Web UI: open a waiting run, *Send a
# Signal*, `decide_by_signal`, with `{"approve": true, "plan_digest": "…", "decided_by": "you"}`. A bad signal changes
# nothing, and its reason shows in the status.

# %% [markdown]
# ## Recap
#
# You have let an agent act, and kept it in bounds.
#
# 1. Why do the rules not look at the notes?
# 2. What makes an activity that ran twice harmless?
# 3. What would go wrong if an approval only said "yes"?
#
# <details><summary>Answers</summary>
#
# 1. What is never read cannot talk anybody into anything.
# 2. A key that all its attempts share, recorded in the same transaction as the change.
# 3. It would approve whatever plan is there by then.
# </details>

# %% [markdown]
# Stop this notebook's workers. Next: **06 · Days in seconds**.

# %%
lab.stop_all()
