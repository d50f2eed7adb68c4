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
# # 04 · Connect MCP servers
#
# The same teams, the same workflows, another door: one that any agent in the world can use.
#
# **Time** 25 min · **Needs** 03 · **Offline** yes

# %% [markdown]
# ## Goals
#
# After this notebook you can
#
# * read the messages of MCP, and send them by hand;
# * give an agent a tool while it runs;
# * keep a call when its server dies;
# * choose between Nexus and MCP.

# %% [markdown]
# ## Where we are
#
# A Nexus endpoint joins two namespaces of one Temporal. An MCP server speaks plain JSON over HTTP, or over a pipe, to
# whoever asks: your agent, a desktop assistant, an editor. Behind ours stand the teams' workflows of 03.
#
# ```mermaid
# flowchart LR
#     accTitle: One workflow behind two doors
#     accDescr: The orchestrator's agent calls the finance team's MCP server over HTTP. A desktop assistant starts the same server and talks to it over a pipe. Both start the team's workflow in the finance namespace.
#     A[agent] -- HTTP --> M[MCP server]
#     D[desktop assistant] -- pipe --> M2[MCP server]
#     M --> W[workflow<br/>finance-namespace]
#     M2 --> W
# ```

# %%
from workshop_lib import lab
from workshop_lib.lab.checks import nb04 as check

client = await lab.start()

# %% [markdown]
# Two servers start as processes of their own, and the workers of both teams in this kernel. That takes some seconds.

# %%
from workshop_lib.teams.finance.worker import finance
from workshop_lib.teams.it.worker import it

finance_server = await lab.start_mcp_server("finance")
it_server = await lab.start_mcp_server("it")
for spec in (it(), finance()):
    await lab.start_worker(spec)

# %% [markdown]
# ## On the wire
#
# An MCP message is a small piece of JSON: a method, its parameters, an answer. What does a server offer?

# %%
offered = await lab.json_rpc(finance_server.url, "tools/list")
for tool in offered["tools"]:
    print(tool["name"], "·", tool["description"])

# %% [markdown]
# The list comes from the server and at run time. No contract was imported. Now a call:

# %%
answer = await lab.json_rpc(
    finance_server.url, "tools/call", name="stock_price", arguments={"ticker": "AAPL"}
)
answer["structuredContent"], answer["_meta"]

# %% [markdown]
# The answer is typed, and names the workflow run behind it. An error is an answer too, in words that a model can act
# on:

# %%
unknown = await lab.json_rpc(
    finance_server.url, "tools/call", name="stock_price", arguments={"ticker": "ACME"}
)
unknown["isError"], unknown["content"][0]["text"]

# %% [markdown]
# ## An agent with MCP servers
#
# `loops.mcp` is the SDK's loop of 02. Temporal's plugin makes activities of the listing and of the calls. The first start
# takes some seconds.

# %%
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.agents.worker import orchestrator

await lab.start_worker(orchestrator())
chat = ChatClient(client, "mcp")
both = "What is the price of AAPL, and how many open issues has DEMO-456?"
await lab.watch(chat.send(both), chat.handle, timeout=40)

# %%
await lab.show_timeline(chat.handle)

# %% [markdown]
# Look for `list-tools` and `call-tool`: two listings, once a session, and a call to each team.
#
# ## A tool that appears
#
# In 03 a new operation meant a new contract, and a new release of the caller. Here the server says what there is.
#
# > **Predict.** A session is open and has listed the tools. Then the finance team adds one. Will the agent use it in the
# > next message, by itself?

# %%
my_guess = ""

# %% [markdown]
# ### Exercise · Add a tool to a running agent (8 min)
#
# `mine` is the finance team's server with all its tools, in this kernel. Give it one more: `exchange_rate`, with one
# argument `currency` and a docstring. The cell opens a session, then serves `mine` in place of the team's server, and
# asks: that is your prediction. Then tell the session: it listens to the signal `tools_changed`. A server starts first,
# which takes some seconds.
#
# The check looks for that signal, for the tool's description, and for a completed call of it.
#
# *Hint: FastMCP makes a tool of any function: `@mine.tool`. A signal is a message to a workflow that nobody answers:
# `await chat.handle.signal("name")`.*

# %% exercise="new_tool" minutes=8
from workshop_lib.teams.finance import mcp_server

mine = mcp_server.server()


@mine.tool
def exchange_rate(currency: str) -> float:
    """Get the exchange rate of one US dollar in another currency, such as EUR."""
    return {"EUR": 0.92, "GBP": 0.79, "JPY": 149.5}[currency.upper()]


rate = "What is the exchange rate for EUR?"
finance_server = await lab.start_mcp_server("finance", announce=False)
await chat.end()
chat = ChatClient(client, "mcp")  # a new session, which lists the team's own tools first
await lab.watch(chat.send(both), chat.handle)
finance_server.kill()
await lab.serve_mcp(mine)
print("not told:", (await lab.watch(chat.send(rate), chat.handle)).text)
await chat.handle.signal("tools_changed")
print("told:", (await lab.watch(chat.send(rate), chat.handle)).text)

# --- stub ---
# from workshop_lib.teams.finance import mcp_server
#
# mine = mcp_server.server()
#
# # your code here: a function, decorated
#
# rate = "What is the exchange rate for EUR?"
# finance_server = await lab.start_mcp_server("finance", announce=False)
# await chat.end()
# chat = ChatClient(client, "mcp")  # a new session, which lists the team's own tools first
# await lab.watch(chat.send(both), chat.handle)
# finance_server.kill()
# await lab.serve_mcp(mine)
# print("not told:", (await lab.watch(chat.send(rate), chat.handle)).text)
# # your code here: the signal
# print("told:", (await lab.watch(chat.send(rate), chat.handle)).text)

# %%
await check.new_tool(chat)

# %% [markdown]
# <details><summary>By itself?</summary>
#
# No. The list is in the history and was asked for once: a replay must see the same tools. *"Yes, the list is asked for each
# time."* It could be, for the price of one more call a turn. The signal says when it is worth it.
# </details>
#
# ## Kill the server in mid-call
#
# An MCP call is one HTTP request. The server that answers it can die.
#
# > **Predict.** It dies while a call waits for the team's workflow. Another one takes its place. How many workflows will
# > the team have started for this call?

# %%
my_guess = ""

# %% [markdown]
# To have time to kill it, the finance *worker* stops first. The workflow is started then, and waits. The chat is a
# new one, with nothing else under way.
#
# ### Exercise · Survive it (8 min)
#
# Kill `finance_server` while the call is under way, and start it again. The last line starts the worker again.
#
# The check wants a second try of the call, the price in the reply, and one run in the team's namespace. A server starts
# twice: some ten seconds.
#
# *Hint: `finance_server.kill()`, then `await finance_server.restart()`, which brings it back.*

# %% exercise="killed_server" minutes=8
import asyncio

finance_server = await lab.start_mcp_server("finance")
lab.stop_worker("finance")
await chat.end()
chat = ChatClient(client, "mcp")
asking = asyncio.create_task(chat.send("What's the stock price of NVDA?"))
await lab.mcp_runs(chat.handle, "finance-namespace")  # the call has reached the team
finance_server.kill()
await finance_server.restart()
await lab.start_worker(finance(), announce=False)

# --- stub ---
# import asyncio
#
# finance_server = await lab.start_mcp_server("finance")
# lab.stop_worker("finance")
# await chat.end()
# chat = ChatClient(client, "mcp")
# asking = asyncio.create_task(chat.send("What's the stock price of NVDA?"))
# await lab.mcp_runs(chat.handle, "finance-namespace")  # the call has reached the team
# # your code here: kill the server, and bring it back
# await lab.start_worker(finance(), announce=False)

# %%
await check.killed_server(client, chat, asking, "NVDA")

# %% [markdown]
# <details><summary>How many workflows?</summary>
#
# One. The agent's workflow makes up a key for each call and records it. The second try carries the same key, and the server
# makes the run's id of it: it finds the run of the first try and waits for that.
#
# *"Two."* So it would be with a server that starts something at each request. MCP itself promises nothing here: the key is
# an agreement between this agent and these servers.
# </details>
#
# In the timeline, look for `call-tool`: one bar, and two tries.

# %%
await lab.show_timeline(chat.handle)

# %% [markdown]
# ## Other people's agents
#
# A desktop assistant starts the server itself and talks to it over a pipe. It needs a few lines of configuration:

# %%
import json

from workshop_lib.cli.mcp import ClientName, configuration

print(json.dumps(configuration(ClientName.CLAUDE), indent=1))

# %% [markdown]
# `uv run workshop mcp config claude` prints the same. Paste it into the assistant's configuration file, have `workshop up` running, and
# *Claude Desktop* has both teams' tools, and those of the repair agent, which you meet in 05. The command knows `goose`,
# `wsl` and `inspector` too.
#
# ## Side by side
#
# One question through both doors, measured now, on this machine. The column `sdk` goes through Nexus; lines that both loops
# share are not counted. Time decides nothing here:

# %%
figures = await lab.compare_loops(client, "What's the stock price of TSLA?", ["sdk", "mcp"])
lab.show_comparison(figures)

# %% [markdown]
# | | Nexus | MCP |
# |---|---|---|
# | who may call | another namespace of the same Temporal | whoever speaks HTTP or can start a program |
# | what is shared | a typed contract, at build time | a list of tools, at run time |
# | a call that takes a week | one operation | a request that must stay open, or a key to ask again with |
# | the other side dies | the server of Temporal sends it again | your retries, and a key that you agree on |
# | a new tool | a release of the caller | a signal, or the next listing |
# | seen from your history | linked, both ways | an activity, with the run's id in its result |
#
# ### Exercise · Choose (2 min)
#
# Which door for which situation? `"nexus"` or `"mcp"`.

# %% exercise="chosen" minutes=2
choices = {
    "two teams of one company, both on Temporal": "nexus",
    "a desktop assistant that somebody else wrote": "mcp",
    "a call that may take a week": "nexus",
    "tools that change while the agent runs": "mcp",
}

# --- stub ---
# choices = {
#     "two teams of one company, both on Temporal": "",
#     "a desktop assistant that somebody else wrote": "",
#     "a call that may take a week": "",
#     "tools that change while the agent runs": "",
# }

# %%
await check.chosen(choices)

# %% [markdown]
# ## Try it yourself
#
# No checks here. Ask for both teams when one server is gone: the reply names the outage, with the other answer in it. A
# chat that has listed that team's tools before waits a minute for the server first.
#
# ```python
# it_server.kill()
# half = ChatClient(client, "mcp")
# await lab.watch(half.send(both), half.handle, timeout=90)
# ```
#
# Or in a terminal: `uv run workshop chat --loop mcp --mcp-transport stdio`.

# %% [markdown]
# ## Recap
#
# You have opened a second door to the same house.
#
# 1. Where does an agent learn which tools a server has, and when?
# 2. What makes a repeated MCP call harmless?
# 3. Name one thing that Nexus gives and MCP does not, and one the other way round.
#
# <details><summary>Answers</summary>
#
# 1. From the server, in an activity, once a session and after `tools_changed`.
# 2. A key that all its tries share, of which the server makes the run's id.
# 3. Nexus: retries and links by the server. MCP: callers that nobody here has written.
# </details>

# %% [markdown]
# Stop this notebook's workers and servers. Next: **05 · Repair with a human in the loop**.

# %%
await chat.end()
lab.stop_all()
