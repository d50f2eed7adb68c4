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
# # 01 · Build the agent loop
#
# You build an agent from nothing, lose it to a kill, and build it again so that a kill costs one model call.
#
# **Time** 30 min · **Needs** 00 · **Offline** yes

# %% [markdown]
# ## Goals
#
# After this notebook you can
#
# * write an agent loop: ask the model, run the tools, ask again;
# * turn it into a workflow, step by step;
# * count what a crash costs with and without it.

# %% [markdown]
# ## Where we are
#
# An agent is a loop around a model. The model answers in words, or it asks for a **tool call**. Your code runs
# the tool and tells the model. Then the model is asked again.
#
# ```mermaid
# flowchart LR
#     accTitle: The agent loop
#     accDescr: A user's message goes to the model. While the model asks for tools, they are run and their results go back to the model. When it answers in words, the reply goes to the user.
#     U[message] --> M{model}
#     M -- tool calls --> T[run tools]
#     T -- results --> M
#     M -- words --> R[reply]
# ```

# %%
from workshop_lib import lab
from workshop_lib.lab.checks import nb01 as check

client = await lab.start()

# %% [markdown]
# ## One call to a model
#
# The line above says which model answers. Without a key it is the **offline model**: rules, not a language
# model. It takes the same road through LiteLLM as a paid one, and it is honest about what it cannot do.
#
# The first call takes some seconds: LiteLLM is a large library and is loaded now.

# %%
from workshop_lib.llm.gateway import complete
from workshop_lib.llm.messages import Message

question = [Message.user("What is 125 * 8?")]
(await complete(question)).message.content

# %% [markdown]
# Without tools it has nothing to calculate with. A tool is offered as a name, a description and a JSON schema
# of its arguments. The model never sees the code.

# %%
from workshop_lib.agents.local_tools import LOCAL_TOOLS

tools = [tool.spec for tool in LOCAL_TOOLS.values()]
print(tools[0].model_dump_json(indent=1))

# %% [markdown]
# Ask again, with tools on offer. The answer holds no words now, but a wish:

# %%
plan = (await complete(question, tools)).message
plan.tool_calls

# %% [markdown]
# The model cannot run anything. You do, and you add both messages to the conversation: the wish, and what came
# of it.

# %%
from workshop_lib.lab.lessons.naked import run_tool

call = plan.tool_calls[0]
answer = run_tool(call)
answer

# %%
conversation = [*question, plan, Message.tool_result(call, answer)]
(await complete(conversation, tools)).message.content

# %% [markdown]
# Two model calls and one tool: that was one **turn**.
#
# ### Exercise · Write the loop (8 min)
#
# Put these steps into a loop. It ends when the model's message has no tool calls. Go round at most eight
# times: a model that only ever calls tools would never come to an end.
#
# The check puts two models of its own in the place of yours: one that wants five tools, one after the other, and one
# that wants tools for ever. Then yours is asked for two tools at once, and for something that no tool can answer.
#
# *Hint: every message goes into `conversation`, the model's and the tools'.*


# %% exercise="naked_loop" minutes=8
async def turn(text: str) -> str:
    conversation = [Message.user(text)]
    for _ in range(8):
        plan = (await complete(conversation, tools)).message
        conversation.append(plan)
        if not plan.tool_calls:
            return plan.content
        for call in plan.tool_calls:
            conversation.append(Message.tool_result(call, run_tool(call)))
    return "I went round eight times without an answer."


# --- stub ---
# async def turn(text: str) -> str:
#     conversation = [Message.user(text)]
#     for _ in range(8):
#         plan = (await complete(conversation, tools)).message
#         # your code here: words? return them. Tool calls? run them, and go round again
#         return plan.content
#     return "I went round eight times without an answer."

# %%
await check.naked_loop(turn)

# %% [markdown]
# ## Lose everything
#
# An agent like this runs in some process, and processes die: a deployment, a crash, a laptop that is closed.
# Here is a conversation of four messages. Its process is killed at the sixth call to the model. The first such process
# takes some seconds, because LiteLLM is loaded for it. On Linux the next ones share what is loaded.

# %%
from workshop_lib.lab.lessons.naked import run_naked

talk = [
    "What is 125 * 8?",
    "And the weather in Seattle?",
    "And in Portland?",
    "What did I ask first?",
]
died = await run_naked(talk, kill_at_call=6)
died

# %% [markdown]
# Some replies have arrived, the others never will. What the agent knew was in a list, and the list is gone. There is no
# going on, only starting over:

# %%
again = await run_naked(talk)
print("Model calls paid in all:", died.model_calls + again.model_calls)

# %% [markdown]
# ## The loop as a workflow
#
# The loop itself is a plan, so it becomes the workflow. Everything that reaches out becomes an activity:
# `plan_next_action` calls the model, `execute_tool` runs a tool. Both are in the library, and so are their
# options: time limits, retries, and **heartbeats**, by which the server notices a dead worker within two seconds.

# %%
from workshop_lib.agents import model_call

print(model_call.__doc__)

# %% [markdown]
# ### Exercise · Make it durable (8 min)
#
# The model call below is an activity already. The tool still runs *inside* the workflow: on every replay it
# would run again, and nothing of it is in the history. Make it an activity too.
#
# Workflow code runs in a **sandbox**, which loads its modules afresh for each run. `imports_passed_through` says that
# these need not be. This small loop does not hand a tool's error back to the model yet, and does not count its rounds;
# the library's does both.
#
# The check looks at the history: a completed `execute_tool` activity for each of two tools.
#
# *Hint: `execute_tool` takes one `ToolRequest`, and `tool` is one; its options are `TOOL_OPTIONS`.*

# %% exercise="durable_loop" minutes=8
# %%workflow agent
from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workshop_lib.agents.local_tools import LOCAL_TOOLS, TOOL_OPTIONS, ToolRequest, execute_tool
    from workshop_lib.agents.model_call import PLAN_OPTIONS, PlanRequest, plan_next_action
    from workshop_lib.llm.messages import Message
    from workshop_lib.llm.tools import arguments_of


@workflow.defn
class Agent:
    @workflow.run
    async def run(self, text: str) -> str:
        talk, offer = [Message.user(text)], [tool.spec for tool in LOCAL_TOOLS.values()]
        while True:
            ask = PlanRequest(messages=talk, tools=offer)
            plan = await workflow.execute_activity(plan_next_action, ask, **PLAN_OPTIONS)
            talk.append(plan.message)
            if not plan.message.tool_calls:
                return plan.message.content
            for call in plan.message.tool_calls:
                tool = ToolRequest(name=call.name, arguments=arguments_of(call))
                said = await workflow.execute_activity(execute_tool, tool, **TOOL_OPTIONS)
                talk.append(Message.tool_result(call, said))


# --- stub ---
# # %%workflow agent
# from temporalio import workflow
#
# with workflow.unsafe.imports_passed_through():
#     from workshop_lib.agents.local_tools import LOCAL_TOOLS, TOOL_OPTIONS, ToolRequest, execute_tool
#     from workshop_lib.agents.model_call import PLAN_OPTIONS, PlanRequest, plan_next_action
#     from workshop_lib.llm.messages import Message
#     from workshop_lib.llm.tools import arguments_of
#
#
# @workflow.defn
# class Agent:
#     @workflow.run
#     async def run(self, text: str) -> str:
#         talk, offer = [Message.user(text)], [tool.spec for tool in LOCAL_TOOLS.values()]
#         while True:
#             ask = PlanRequest(messages=talk, tools=offer)
#             plan = await workflow.execute_activity(plan_next_action, ask, **PLAN_OPTIONS)
#             talk.append(plan.message)
#             if not plan.message.tool_calls:
#                 return plan.message.content
#             for call in plan.message.tool_calls:
#                 tool = ToolRequest(name=call.name, arguments=arguments_of(call))
#                 said = LOCAL_TOOLS[tool.name].run(tool.arguments)  # your code here
#                 talk.append(Message.tool_result(call, said))

# %%
await check.durable_loop(client, Agent)

# %% [markdown]
# ## Kill it in mid-turn
#
# A worker for your agent, in a process of its own. It will die in the second model call of a turn: the tool has
# run, the final words are being paid for.

# %%
from workshop_lib.agents.local_tools import execute_tool

activities = [model_call.plan_next_action, execute_tool]
agent_worker = lab.spec("agent", workflows=[Agent], activities=activities)
print(agent_worker.banner())

# %% [markdown]
# > **Predict.** The first model call and the tool are done and recorded. The second model call is on its way
# > when the process dies. How often is the model called in all, once a new worker has finished the turn?

# %%
my_guess = ""

# %% [markdown]
# ### Exercise · Survive (6 min)
#
# Let a worker die in mid-turn, in a model call or in a tool, then let another finish the run. The check refuses to
# pass unless the history shows that a step was lost with its worker. The cell takes some seconds: a death has to be
# noticed.
#
# *Hint: `doomed = await lab.start_process(agent_worker, kill_at=...)` before the run starts, then
# `await doomed.exited()`.*

# %% exercise="survived" minutes=6
turn_id, queue = lab.new_id("turn"), agent_worker.task_queue
doomed = await lab.start_process(agent_worker, kill_at="activity-inside@plan_next_action#2")
handle = await client.start_workflow(Agent.run, talk[0], id=turn_id, task_queue=queue)
await doomed.exited()
await lab.start_process(agent_worker)

# --- stub ---
# turn_id, queue = lab.new_id("turn"), agent_worker.task_queue
# # your code here: the first worker must die in mid-turn, at a kill point
# handle = await client.start_workflow(Agent.run, talk[0], id=turn_id, task_queue=queue)
# await lab.start_process(agent_worker)

# %%
await check.survived(handle)

# %%
await lab.show_timeline(handle)

# %% [markdown]
# <details><summary>How often was the model called?</summary>
#
# Three times. The first call is in the history and was never made again. The second was under way when the
# worker died: paid for, its answer lost. The third is its repetition.
#
# *"Twice."* Nobody can take back a request that has left the machine.
#
# *"Four times, the turn began anew."* That is the naked loop. Here the new worker replayed the first call and
# the tool from the history.
# </details>

# %% [markdown]
# ## The bill
#
# Now the conversation of four messages again, as a durable chat session. Its worker dies at the same sixth
# model call, and another takes over. This takes some seconds: a death has to be noticed.
#
# > **Predict.** What the naked agent paid for stands above. How many model calls will the durable one pay for?

# %%
durable = await lab.run_durable(client, talk, kill_at_call=6)
durable.replies

# %%
lab.show_bill([died, again], durable)

# %% [markdown]
# A later kill would cost the naked agent more, because it pays again for everything that came *before*. It would cost
# the durable one a single call, the one under way. Durability has a price too: each step is a round trip to the server.
# That takes milliseconds, where a model takes seconds.

# %% [markdown]
# ## The loop of the library
#
# `workshop_lib.agents.loops.manual` is your loop, grown up. It is a **chat session**: one run that takes message
# after message as **updates** (requests that a run answers), remembers, and refuses what it cannot use.

# %%
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.agents.worker import orchestrator

worker = await lab.start_worker(orchestrator())
chat = ChatClient(client)
await chat.send("What is 125 * 8, and what's the weather in Tokyo?")

# %%
await chat.send("What did I ask first?")

# %% [markdown]
# A bad message is refused by a **validator** before anything is recorded. It leaves no trace in the history. **This
# cell fails on purpose.**

# %% tags=["raises-exception"]
await chat.send("   ")

# %% [markdown]
# A **query** asks a run what it knows and changes nothing. Any living worker can answer it, by replaying the
# history:

# %%
await chat.transcript()

# %% [markdown]
# > **Aside: scripts in a cell.** Cells await at top level. A script that ends in `asyncio.run(main())` fails in
# > a notebook, because a loop is running already. `nest_asyncio` lets it run unchanged. That is its one use here.

# %%
import asyncio

import nest_asyncio

nest_asyncio.apply()


async def main() -> None:
    print((await chat.send("and in Paris?")).text)


asyncio.run(main())

# %% [markdown]
# ## Try it yourself
#
# No checks here. In a terminal: `uv run workshop chat --session mine`, and in the middle of it close the
# terminal. Rejoin with the same command. Or send two messages at once and look at the transcript: they are answered one
# after the other, in the order in which they arrived.
#
# ```python
# await asyncio.gather(chat.send("What is 2 + 3?"), chat.send("What is 4 * 5?"))
# await chat.transcript()
# ```

# %% [markdown]
# ## Recap
#
# You have built an agent loop twice, and you know what the second one saves.
#
# 1. Why is the model call an activity, and the loop a workflow?
# 2. Which calls can be paid for twice, and how many for each kill?
# 3. What does a malformed tool call lead to: a retry of the activity, or a message to the model?
#
# <details><summary>Answers</summary>
#
# 1. The call reaches out and must be recorded; the loop only decides, and can be replayed from the records.
# 2. The one that was under way, at most one for each kill.
# 3. A message to the model. Sending the same malformed call again would fail again; only the model can mend it.
# </details>

# %% [markdown]
# Stop this notebook's workers. Next: **02 · Hand the loop to an SDK**.

# %%
await chat.end()
lab.stop_all()
