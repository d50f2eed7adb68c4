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
# # 03 · Call another team
#
# Your agent uses tools that two other teams own, deploy and restart without asking you.
#
# **Time** 30 min · **Needs** 02 · **Offline** yes

# %% [markdown]
# ## Goals
#
# After this notebook you can
#
# * offer a tool to another team as a Nexus operation, and call one;
# * follow a call from your history into theirs;
# * say what survives a kill on the other side, and find a call that hangs.

# %% [markdown]
# ## Where we are
#
# So far all tools lived in your worker. In a company they belong to teams: own code, own releases, own
# **namespace**. **Nexus** is Temporal's way to call a team in another namespace. What a team offers is an **operation**;
# the code that answers it is a **handler**. An **endpoint** is the door: it has a name and leads to a task queue.
#
# Here one server holds all three namespaces. In a company there may be several.
#
# ```mermaid
# flowchart LR
#     accTitle: Three namespaces and two endpoints
#     accDescr: The orchestrator in the default namespace calls the IT team through the it nexus endpoint and the finance team through the finance nexus endpoint. Each team runs its own workflows in its own namespace.
#     O[orchestrator<br/>default] -- it-nexus-endpoint --> I[IT<br/>it-namespace]
#     O -- finance-nexus-endpoint --> F[Finance<br/>finance-namespace]
# ```

# %%
from workshop_lib import lab
from workshop_lib.lab.checks import nb03 as check

client = await lab.start()

# %% [markdown]
# ## The contract comes first
#
# All that two teams share is a contract: a class of operations with pydantic inputs and outputs. This is the finance
# team's, and one of its inputs:

# %%
import inspect

from workshop_lib.teams.finance import contract

print(inspect.getsource(contract.FinanceService))
print(inspect.getsource(contract.StockPriceInput))

# %% [markdown]
# A model has to choose among these operations and to fill in their arguments. It reads what stands in the contract,
# the docstring of the input and the descriptions of its fields:

# %%
from workshop_lib.agents.team_tools import operation_spec, operations_of

for operation in operations_of(contract.FinanceService):
    print(operation_spec(operation).model_dump_json(indent=1))

# %% [markdown]
# Three workers start in this kernel, each in the namespace of its team. The orchestrator's knows nothing of the other
# two but their contracts. The first start takes some seconds.

# %%
from workshop_lib.agents.worker import orchestrator
from workshop_lib.teams.finance.worker import finance
from workshop_lib.teams.it.worker import it

for spec in (orchestrator(), it(), finance()):
    await lab.start_worker(spec)

# %% [markdown]
# ## Behind the door
#
# A handler could do the work itself, while the server waits for it: a **synchronous** operation. This team's are
# **workflow-backed**: the handler starts a workflow and says "started" within milliseconds. The server brings the result
# when there is one, in a second or in a week.
#
# The server may send a start twice, when an answer gets lost. Both must find the same run, and no other.
#
# ### Exercise · Write the handler (8 min)
#
# The stub makes a new id for each start. Two starts of one request would be two runs. Choose an id that the
# second start of a request makes as well, and that no other request makes.
#
# The check puts your handler in the place of the team's, sends one request twice and another one once, follows the
# links into the team's namespace, and compares the runs.
#
# *Hint: `ctx.request_id` stays the same however often a request is sent.*

# %% exercise="handler" minutes=8
from nexusrpc.handler import service_handler
from temporalio import nexus

from workshop_lib.teams.finance import workflows
from workshop_lib.teams.finance.nexus_handler import FinanceHandler


@service_handler(service=contract.FinanceService)
class MyFinance(FinanceHandler):  # the other operation stays the team's
    @nexus.workflow_run_operation
    async def stock_price(
        self, ctx: nexus.WorkflowRunOperationContext, request: contract.StockPriceInput
    ) -> nexus.WorkflowHandle[contract.StockPrice]:
        run_id = f"price-{request.ticker}-{ctx.request_id}"
        return await ctx.start_workflow(workflows.StockPriceWorkflow.run, request, id=run_id)


# --- stub ---
# from nexusrpc.handler import service_handler
# from temporalio import nexus
#
# from workshop_lib.teams.finance import workflows
# from workshop_lib.teams.finance.nexus_handler import FinanceHandler
#
#
# @service_handler(service=contract.FinanceService)
# class MyFinance(FinanceHandler):  # the other operation stays the team's
#     @nexus.workflow_run_operation
#     async def stock_price(
#         self, ctx: nexus.WorkflowRunOperationContext, request: contract.StockPriceInput
#     ) -> nexus.WorkflowHandle[contract.StockPrice]:
#         run_id = lab.new_id(f"price-{request.ticker}")  # your code here
#         return await ctx.start_workflow(workflows.StockPriceWorkflow.run, request, id=run_id)

# %%
await check.handler(client, MyFinance)

# %% [markdown]
# ## Two teams in one turn
#
# The model asks for both tools at once, and the loop calls both teams at once:

# %%
from workshop_lib.agents.sessions import ChatClient

await lab.start_worker(finance())  # the check has put your handler in the place of the team's
chat = ChatClient(client)
both = "What is the price of AAPL, and how many open issues has DEMO-456?"
await lab.watch(chat.send(both), chat.handle, timeout=30)

# %%
await lab.show_timeline(chat.handle)

# %% [markdown]
# First, `discover_teams` asks the server where the teams' endpoints lead. The lane *other side* is drawn from the teams' own
# histories. Below the picture are the links to them: open one. In the Web UI the team's run links back to yours.

# %%
await lab.linked_runs(chat.handle)

# %% [markdown]
# The loop of the SDK calls the same tools, through the same toolbox:

# %%
sdk_chat = ChatClient(client, "sdk")
await lab.watch(sdk_chat.send(both), sdk_chat.handle, timeout=30)

# %% [markdown]
# ## When only the model can mend it
#
# An unknown ticker is an error with a type. It is not retried: only the model could ask for another one. The
# loop hands it over as words.

# %%
(await lab.watch(chat.send("What's the stock price of ACME?"), chat.handle, timeout=30)).text

# %% [markdown]
# ## Kill the other team's worker
#
# > **Predict.** The finance worker dies while it looks the price up. Your worker lives. What does your side see: an
# > error, a second operation, or nothing at all?

# %%
my_guess = ""

# %% [markdown]
# ### Exercise · Kill finance (6 min)
#
# Stop the team's worker in this kernel, let a process take its place that dies inside `look_up_price`, and start
# another one after its death. The conversation goes on in the background meanwhile.
#
# The check follows the link and wants to see, in the team's history, a step that was lost with its worker. Two processes
# start and one dies: that takes some seconds.
#
# *Hint: as in 01, `lab.start_process(spec, kill_at=...)` and `await doomed.exited()`.*

# %% exercise="survived_team" minutes=6
import asyncio

await chat.end()
chat = ChatClient(client)  # a new one, whose history holds nothing else
lab.stop_worker("finance")
doomed = await lab.start_process(finance(), kill_at="activity-inside@look_up_price")
asking = asyncio.create_task(chat.send("What's the stock price of AAPL?"))
await doomed.exited()
await lab.start_process(finance())

# --- stub ---
# import asyncio
#
# await chat.end()
# chat = ChatClient(client)  # a new one, whose history holds nothing else
# lab.stop_worker("finance")
# # your code here: the first process must die in the team's activity
# asking = asyncio.create_task(chat.send("What's the stock price of AAPL?"))
# # your code here: wait until that process is dead
# await lab.start_process(finance())

# %%
await check.survived_team(chat.handle, asking)

# %%
await lab.show_timeline(chat.handle)

# %% [markdown]
# <details><summary>What did your side see?</summary>
#
# Nothing but time. One operation was scheduled, one result came. The server noticed the dead worker and gave the step,
# in the team's namespace, to the next one.
#
# *"An error."* That would come only when your own time limit for the call is over.
#
# *"A second operation."* The start had been answered. There was nothing to send again.
# </details>
#
# That kill was in the middle of a step. Now one **between two steps**: the price is looked up and recorded, the worker
# dies before it goes on. In the picture, how often is `look_up_price` tried? (Some seconds, as before.)

# %%
doomed = await lab.start_process(finance(), kill_at="workflow-task-before@StockPriceWorkflow#2")
asking = asyncio.create_task(chat.send("What's the stock price of TSLA?"))
await doomed.exited()
await lab.start_process(finance())
await lab.watch(asking, chat.handle, timeout=40)
await lab.show_timeline(chat.handle)

# %% [markdown]
# Once: the second worker read the recorded price from the team's history.
#
# ## The simple way, for comparison
#
# A synchronous handler is less code: it does the work and returns. Simpler still is a *dispatcher*, which takes any
# tool's name and any arguments. `teams/finance/dispatcher.py` holds both. This workflow calls the synchronous one.

# %%
# %%workflow simple
from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workshop_lib.teams.finance.dispatcher import SlowPriceInput, SynchronousFinance


@workflow.defn
class SimpleCaller:
    @workflow.run
    async def run(self, seconds: float) -> str:
        door = workflow.create_nexus_client(
            service=SynchronousFinance, endpoint="finance-nexus-endpoint"
        )
        price = await door.execute_operation(
            SynchronousFinance.slow_price,
            SlowPriceInput(ticker="AAPL", seconds=seconds),
            schedule_to_close_timeout=timedelta(seconds=25),
        )
        return f"{price.price} {price.currency}"


# %%
from workshop_lib.teams.finance.dispatcher import finance_the_simple_way

simple = lab.spec("simple", workflows=[SimpleCaller])
await lab.start_worker(simple, announce=False)
await lab.start_worker(finance_the_simple_way(), announce=False)


async def call_simple(seconds: float):
    run = lab.new_id("simple")
    return await client.start_workflow(
        SimpleCaller.run, seconds, id=run, task_queue=simple.task_queue
    )


quick = await call_simple(0.1)
await lab.result(quick), await lab.linked_runs(quick)

# %%
print("\n".join(await lab.events(quick)))

# %% [markdown]
# The price is there, in your history, and the list of linked runs is empty. The team keeps no record of the call.
#
# What does that mean when the worker dies? This one works for a second, and dies before anybody hears of it. (Then ten
# seconds of waiting: so long may a synchronous handler take to answer.)

# %%
doomed = await lab.start_process(finance_the_simple_way(), kill_at="operation-after@slow_price")
lost = await call_simple(1)
await doomed.exited()
await lab.start_process(finance_the_simple_way())
await lab.result(lost)

# %% [markdown]
# Nobody noticed the death. The server waited until its limit was over, asked again, and the second worker began from zero:
# the work was done, and written down nowhere.
#
# Now a handler that works for twelve seconds.
#
# > **Predict.** What happens at the tenth?

# %%
slow = await call_simple(12)
seen = await lab.waits_for(slow, until="timeout", timeout=15)  # waiting is the lesson
await slow.terminate("seen enough")  # or it is tried again, beside the cells below
seen

# %% [markdown]
# <details><summary>What happened?</summary>
#
# Shortly before ten seconds the server hung up. A moment later it asks again, and the handler begins again, from zero. It will never be
# done. The second try runs into the same ten seconds.
#
# *"It fails."* Only when the caller's own time limit is over. *"It goes on."* There is nothing recorded that it could
# go on from.
# </details>

# %% [markdown]
# And the dispatcher? Its contract says "any arguments". A typing error travels to the other team before anyone sees it.
# With the typed contract it does not even leave the house:

# %%
try:
    contract.StockPriceInput(tikcer="AAPL")
except ValueError as error:
    for problem in error.errors():
        print(problem["loc"][0], "·", problem["msg"])

# %% [markdown]
# ### Exercise · What is durable? (4 min)
#
# Fill in what you have seen: for each claim, is it true of a synchronous operation, is it true of a workflow-backed one?

# %% exercise="durable_table" minutes=4
claims = {
    "the caller's history holds the result": (True, True),
    "the team has a history of its own": (False, True),
    "a recorded step is not done again after a kill": (False, True),
    "may take longer than ten seconds": (False, True),
}

# --- stub ---
# claims = {
#     "the caller's history holds the result": (None, None),
#     "the team has a history of its own": (None, None),
#     "a recorded step is not done again after a kill": (None, None),
#     "may take longer than ten seconds": (None, None),
# }

# %%
await check.durable_table(claims)

# %% [markdown]
# ## A case for a detective
#
# It is Monday. Over the weekend somebody has cleaned up. The chat hangs.

# %%
from workshop_lib.agents.chat import ChatStart
from workshop_lib.lab.lessons.detective import open_case

lab.stop_worker("finance")
await lab.start_worker(finance())
await open_case(client)
await chat.end()
chat = ChatClient(client, start=ChatStart(team_timeout=1800))  # seconds: time to think
asking = asyncio.create_task(chat.send("What's the stock price of AAPL?"))

# %% [markdown]
# A run that waits can be asked what it waits for. And an endpoint can be asked where it leads:

# %%
await lab.waits_for(chat.handle, until="stock_price")

# %%
await lab.describe_endpoint(client, "finance-nexus-endpoint")

# %% [markdown]
# ### Exercise · Close the case (5 min)
#
# Mend it while the conversation waits. Nobody needs to ask again. The server tries again by itself, but after a row of
# failures it holds calls to an endpoint back for some seconds (a **circuit breaker**): the reply may take fifteen.
#
# *Hint: `await lab.point_endpoint(client, name, namespace, task_queue)`. The banner of the finance worker says where
# the team polls.*

# %% exercise="case_closed" minutes=5
await lab.point_endpoint(
    client, "finance-nexus-endpoint", "finance-namespace", "finance-task-queue"
)

# --- stub ---
# # your code here
# await lab.describe_endpoint(client, "finance-nexus-endpoint")

# %%
await check.case_closed(client, chat.handle, asking)

# %% [markdown]
# ## Try it yourself
#
# No checks here. Stop the finance worker and ask both teams. A call may take a minute; here ten seconds. Then the reply
# names the outage, and holds the other team's answer.
#
# ```python
# lab.stop_worker("finance")
# outage = ChatClient(client, start=ChatStart(team_timeout=10))
# await lab.watch(outage.send(both), outage.handle, timeout=40, expect_no_worker=True)
# ```
#
# Or add a project to `data/it.json`, start the IT team's worker again (`await lab.start_worker(it())`), and ask for it.

# %% [markdown]
# ## Recap
#
# You have called two teams, killed one, and found a lost endpoint.
#
# 1. What do two teams have to share, and what not?
# 2. Why is the run's id made of the request's id?
# 3. A call hangs. Which two questions do you ask first?
#
# <details><summary>Answers</summary>
#
# 1. The contract. Neither code nor worker, neither namespace nor release.
# 2. A start that is sent again finds the first run instead of starting a second.
# 3. What does the run wait for, and where does the endpoint lead?
# </details>

# %% [markdown]
# Stop this notebook's workers. Next: **04 · The same tools through MCP**.

# %%
await chat.end()
await sdk_chat.end()
lab.stop_all()
