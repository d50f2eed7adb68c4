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
# # 10 · See it, ship it
#
# Somebody says that the agent is slow. You see where, you fix it, and you deploy the fix while people are talking to it.
#
# **Time** 25 min · **Needs** 04, 08 · **Offline** yes

# %% [markdown]
# ## Goals
#
# After this notebook you can
#
# * follow one question through all teams;
# * tell a queue where nobody works from a slow model;
# * stop a worker in mid-turn, and pay for no call twice that ends in time;
# * say what the system promises, and where it is shown.

# %% [markdown]
# ## Where we are
#
# A history tells all about *one* run. A question crosses several: the chat, an MCP server, a team's workflow. Three
# things tell about all of them.
#
# ```mermaid
# flowchart LR
#     accTitle: What a service tells
#     accDescr: A question goes from the chat to an MCP server and to another team's workflow. Each of them sends spans, metrics and log lines. One trace id is in all that belongs to the question.
#     Q[question] --> C[chat] --> M[MCP server] --> W[team's workflow]
#     C & M & W -.-> T[(traces: where?)]
#     C & M & W -.-> P[(metrics: how much?)]
#     C & M & W -.-> L[(logs: what exactly?)]
# ```
#
# A **span** is a piece of work: a name, a beginning, an end, and the span that caused it. A **trace** is all spans of
# one question. They are kept in this kernel, so this comes before the first connection. (Some ten seconds, the first time
# more: libraries are loaded, and a server begins.)

# %%
from workshop_lib import lab
from workshop_lib.lab.checks import nb10 as check
from workshop_lib.temporal import tracing

spans = tracing.in_memory()
lines = lab.json_lines()
client = await lab.start()

# %% [markdown]
# ## One question, one trace
#
# Two workers, and the MCP servers of two teams. (Some ten seconds: the first message loads the model library.)

# %%
from workshop_lib.agents.sessions import ChatClient
from workshop_lib.agents.worker import orchestrator
from workshop_lib.teams.finance.mcp_server import server
from workshop_lib.teams.finance.worker import finance
from workshop_lib.teams.it.mcp_server import server as it_server

for spec in (orchestrator(), finance()):
    await lab.start_worker(spec, announce=False)
for team in (server, it_server):
    print(await lab.serve_mcp(team()))

# %%
chat = ChatClient(client, "mcp")
await lab.watch(chat.send("Hello!"), chat.handle)
await lab.watch(chat.send("What is the price of AAPL?"), chat.handle)

# %%
await lab.trace(chat.handle, spans.get_finished_spans())

# %% [markdown]
# One id, four places. Whoever calls sends the id along: in a header of Temporal's, in MCP's `_meta`, in a header again.
# The dashed part of a row is the time from a request until somebody began it.
#
# A chat of days is no trace: it would not be seen before it ends. Each *turn* is one, with a link to its session.

# %% [markdown]
# > **Predict.** The finance team starts a new worker, and has forgotten to trace it. It answers as before. What does the
# > picture show: a row with an error, missing rows, or a trace id that breaks off? (Some five seconds.)

# %%
my_guess = ""

# %%
await lab.start_process(finance())
await lab.watch(chat.send("What is the price of TSLA?"), chat.handle)
await lab.trace(chat.handle, spans.get_finished_spans())

# %% [markdown]
# <details><summary>What does it show?</summary>
#
# Missing rows: the team's run and its step. The tree ends at `StartWorkflow`, as if that were all, and nobody complains. That
# row is not new: a start is left out where the run it began is in the picture. *"An error"*: nothing has failed. *"It breaks
# off"*: all who are traced still have the one id. So a test compares the *whole* tree (`tests/test_tracing.py`), and again
# with workers that replay all the time: a replay adds no span.
# </details>
#
# Of one name there is one worker here. Whoever starts takes the place of the one before, so this brings the traced one back:

# %%
await lab.start_worker(finance(), announce=False)

# %% [markdown]
# ## Waiting, or working?
#
# "It is slow" has two causes that look alike from outside. Two services: `crowded` does one activity at a time, and its
# model takes 0.4 seconds. `slow` has all the room it wants, and a model that takes two seconds. (Some ten seconds for their
# start.)

# %%
from dataclasses import replace

from workshop_lib.machine.ports import any_free

crowded = replace(orchestrator(), name="crowded", task_queue="crowded-task-queue")
slow = replace(orchestrator(), name="slow", task_queue="slow-task-queue")
ports = {"crowded": any_free(), "slow": any_free()}
settings = {name: {"WORKSHOP_METRICS_PORT": str(port)} for name, port in ports.items()}
settings["crowded"]["OFFLINE_LATENCY_MS"] = "400"
settings["slow"]["OFFLINE_LATENCY_MS"] = "2000"
one_slot = lab.with_options(crowded, max_concurrent_activities=1)
for spec in (one_slot, slow):
    await lab.start_process(spec, as_service=True, env=settings[spec.name])

# %% [markdown]
# A first call to a model takes longer than all others. So each answers once before we measure:

# %%
import asyncio
import time


async def ask(spec):
    one = ChatClient(client, task_queue=spec.task_queue)
    begun = time.monotonic()
    await lab.watch(one.send("Hello!"), one.handle)
    return one, time.monotonic() - begun


async def metrics_of(name):
    return await lab.read_metrics(ports[name], activity="plan_next_action")


warmed = await asyncio.gather(ask(crowded), ask(slow))
before = {name: await metrics_of(name) for name in ports}

# %% [markdown]
# > **Predict.** Five people ask `crowded` at the same moment, and one asks `slow`. Who waits longest? And which number
# > would tell the two cases apart, for somebody who sees no history? (Some three seconds.)

# %%
my_guess = ""

# %%
asked = await asyncio.gather(*(ask(spec) for spec in [crowded] * 5 + [slow]))
print([f"{seconds:.1f} s" for _, seconds in asked])

# %% [markdown]
# A service tells Prometheus, a system that collects numbers, how long activities lay in the queue until a worker *started*
# them, and how long they then took. It adds up from its start, so we subtract what was there before. The first number is
# kept for a queue as a whole, the second for each activity; here it is the model's.

# %%
for name in ports:
    now = await metrics_of(name)
    since = {key: value - before[name].get(key, 0) for key, value in now.items()}
    for what in ("activity_schedule_to_start_latency", "activity_execution_latency"):
        mean = since[f"temporal_{what}_sum"] / since[f"temporal_{what}_count"]
        print(f"{name:<8} {what:<36} {mean:.2f} s on average")

# %% [markdown]
# <details><summary>Which number?</summary>
#
# **Schedule to start**. Where it grows, work waits for a worker: more slots, or more workers. Where only the *execution*
# grows, the model is slow, and ten more workers change nothing. *"The time of the reply"* is the same in both.
# *"The number of messages"*: a queue where nobody works gets no more of them than any other.
# </details>

# %% [markdown]
# ### Exercise · Waiting, or working? (8 min)
#
# The history has the same numbers, of one run. `what_is_slow` gets one, as `lab/history.py` reads it, and returns `"queue"`,
# `"work"` or `"retries"`: what has taken most of the time of its activities.
#
# Each step has `scheduled`, `started`, `ended` and `attempts`. Of a step with several attempts, `started` is the last one's: the
# time before belongs to the retries. `None` means: not yet.
#
# The check tries ninety runs, some of which are not over.
#
# *Hint: what has not come yet lasts until `history.end`.*


# %% exercise="culprit" minutes=8
def what_is_slow(history):
    spent = {"queue": 0.0, "work": 0.0, "retries": 0.0}
    for step in history.activities:
        started = history.end if step.started is None else step.started
        ended = history.end if step.ended is None else step.ended
        spent["retries" if step.attempts > 1 else "queue"] += started - step.scheduled
        spent["work"] += ended - started
    return max(spent, key=spent.get)


# --- stub ---
# def what_is_slow(history):
#     spent = {"queue": 0.0, "work": 0.0, "retries": 0.0}
#     for step in history.activities:
#         spent["work"] += 0.0  # your code here
#     return max(spent, key=spent.get)

# %%
await check.culprit(what_is_slow)

# %%
from workshop_lib.lab.history import history_of

for one, seconds in asked:
    print(f"{seconds:.1f} s  {what_is_slow(await history_of(one.handle))}")

# %% [markdown]
# Where it is `work`, it is the model's: the other steps take milliseconds. Whoever came first in the crowd has waited for that
# alone.

# %% [markdown]
# ## Told to stop
#
# Every deployment stops workers, mostly in the middle of something. First they are asked: the signal SIGTERM. After a
# while they are killed. Three workers, each of which is asked while its model thinks:
#
# | worker | when it is asked |
# |---|---|
# | `unprepared` | has never heard of SIGTERM |
# | `at once` | stops polling, and cancels what it has |
# | `service` | stops polling, finishes what it can, and hands back the rest: `temporal/service.py` |

# %% [markdown]
# > **Predict.** Another worker takes over each time. How often is the call of the model made in each case? Who waits
# > longest? (Some fifteen seconds.)

# %%
my_guess = ""

# %%
at_once = lab.with_options(orchestrator(), graceful_shutdown_timeout=lab.seconds(0))
workers = {
    "unprepared": lab.unprepared(orchestrator()),
    "at once": at_once,
    "service": orchestrator(),
}
await lab.stop_in_mid_turn(client, workers)

# %% [markdown]
# <details><summary>How often?</summary>
#
# Twice, twice, once. `unprepared` is simply gone: nobody reports, so the server waits until a heartbeat is missed. `at once`
# reports, so nobody waits, but the answer that was on its way is thrown away, and paid for. *"Once, Temporal repeats
# nothing"*: it repeats nothing whose result is *recorded*.
# </details>

# %% [markdown]
# ### Exercise · Leave in time (6 min)
#
# `serve` runs a worker until the event `stop` is set. Let it then finish a call of two seconds, hand back one of a minute, and be
# gone within five.
#
# The check asks for both calls, and sets `stop` in the middle of them.
#
# *Hint: one argument of `Worker` says how long activities may go on once it stops. The rest is cancelled, and handed back.*

# %% exercise="leaving" minutes=6
from temporalio.worker import Worker

from workshop_lib.lab.lessons.thinking import think


async def serve(client, queue, stop):
    grace = lab.seconds(3.5)
    worker = Worker(client, task_queue=queue, activities=[think], graceful_shutdown_timeout=grace)
    async with worker:
        await stop.wait()


# --- stub ---
# from temporalio.worker import Worker
#
# from workshop_lib.lab.lessons.thinking import think
#
#
# async def serve(client, queue, stop):
#     worker = Worker(client, task_queue=queue, activities=[think])  # your code here
#     async with worker:
#         await stop.wait()

# %%
await check.leaving(client, serve)

# %% [markdown]
# What a worker gives its activities once it is told to stop is its **grace**. Whoever stops a service has to wait longer than
# that: `stop_grace_period` in Compose,
# `terminationGracePeriodSeconds` in Kubernetes.

# %% [markdown]
# ## What exactly?
#
# A trace says where, a log says what. Our services write a JSON object a line: for programs, with the run, the step, the trace
# id, and never an API key. The chat's latest:

# %%
import json

json.loads(next(line for line in reversed(lines) if chat.workflow_id in line))

# %% [markdown]
# ### Exercise · Find one turn (5 min)
#
# Somebody complains about the last answer in a chat. `lines_of_turn` gets all log lines and the chat's workflow id. Return the lines
# of its latest turn, those of other teams too. Not all lines are ours, and not all of ours belong to a trace.
#
# The check tries forty logs of chats that go on at the same time.
#
# *Hint: two steps. Other teams' lines have other workflow ids; what do they share?*

# %% exercise="found" minutes=5
import json


def lines_of_turn(lines, workflow_id):
    ours = []
    for line in lines:
        try:
            ours.append(json.loads(line))
        except ValueError:
            continue
    traces = [
        line["trace_id"]
        for line in ours
        if line.get("workflow_id") == workflow_id and "trace_id" in line
    ]
    return [line for line in ours if line.get("trace_id") == traces[-1]]


# --- stub ---
# import json
#
#
# def lines_of_turn(lines, workflow_id):
#     ours = []
#     for line in lines:
#         try:
#             ours.append(json.loads(line))
#         except ValueError:
#             continue
#     return [line for line in ours if line.get("workflow_id") == workflow_id]  # your code here

# %%
await check.found(lines_of_turn)

# %%
await lab.watch(chat.send("What is the price of MSFT?"), chat.handle)
for line in lines_of_turn(lines, chat.workflow_id):
    print(line["trace_id"][:6], f"{line['namespace']:<18}", line["message"])

# %% [markdown]
# ## Outside of the notebook
#
# The same code, as services. On your machine that is one command, and `workshop down` ends it:
#
# ```bash
# uv run workshop up
# uv run workshop status orchestrator    # exit status 0: it works
# ```
#
# For other machines there is `infrastructure/`. What each file is, in its own words:

# %%
import re

from workshop_lib.settings import PROJECT_ROOT

folder = PROJECT_ROOT / "infrastructure"
for path in ("Dockerfile", "self-hosted/compose.yaml", "kubernetes/workers.yaml"):
    first = (folder / path).read_text(encoding="utf-8").splitlines()[0]
    print(f"{path:<26}{re.split('[.;(]', first)[0].lstrip('# ')}")

# %% [markdown]
# Who may call whom is written twice: in the code, and in the Terraform (a language that describes accounts and networks) for Temporal
# Cloud, which enforces it.

# %%
terraform = (folder / "temporal-cloud" / "main.tf").read_text(encoding="utf-8")
endpoint = terraform.index('resource "temporalcloud_nexus_endpoint"')
print(terraform[endpoint : terraform.index("\n}", endpoint) + 2])

# %% [markdown]
# > **Predict.** Somebody deletes the caller from that list. Nothing has been applied to any account. Who notices, and when?

# %%
my_guess = ""

# %% [markdown]
# <details><summary>Who notices?</summary>
#
# A test, at once: `tests/test_terraform.py` asks the *code* which workers call which team, and compares. It also knows every
# resource and every argument of the provider. *"The first user"* is who notices elsewhere.
# </details>

# %% [markdown]
# Honestly: these files were never applied to an account or to a cluster. `infrastructure/README.md` says what was tried, and
# how. Beside it, `tuning.md` has figures on a worker's options, and `beyond-a-laptop.md` says where each part goes when a
# laptop is not enough.

# %% [markdown]
# ## Try it yourself
#
# No checks here. The manual loop reaches the same team through Nexus. Where does its trace differ?
#
# ```python
# nexus = ChatClient(client)
# await lab.watch(nexus.send("What is the price of AAPL?"), nexus.handle)
# await lab.trace(nexus.handle, spans.get_finished_spans())
# ```
#
# Or send your traces to a system that keeps them: `uv sync --extra traces`, and `OTEL_EXPORTER_OTLP_ENDPOINT` for *every* program.

# %% [markdown]
# ## Recap
#
# You have seen one question everywhere, and let a worker go without losing a word.
#
# 1. Replies take ten seconds, schedule to start is 20 ms. Do you add workers?
# 2. Why is a grace without an end no better than none?
# 3. What makes a missing span worse than a failed one?
#
# <details><summary>Answers</summary>
#
# 1. No. Nothing waits for them: look at the model.
# 2. Whoever asked loses patience, and kills: then nothing is handed back.
# 3. Nobody sees it. A tree that was cut looks like a smaller tree.
# </details>

# %% [markdown]
# Stop this notebook's workers and servers:

# %%
for one in (chat, *(one for one, _ in [*warmed, *asked])):
    await one.end()
lab.stop_all()

# %% [markdown]
# ## The defence
#
# You have built an agent that cannot be killed. Somebody will ask how you know. Each line can be shown:
#
# | it promises | by | shown in |
# |---|---|---|
# | a kill at any event of a run loses no turn | event history, replay | 00, 01 · `tests/test_crash_lattice.py` |
# | no model call whose result is recorded is paid again | results in the history | 01 · `tests/test_kill_points.py` |
# | a repair is made once | a key, and one transaction | 05 · `tests/test_repair_kill_points.py` |
# | nothing is done that nobody approved | rules, the plan's digest | 05 · `tests/test_repair_approval.py` |
# | days cost nothing | timers and schedules of the server | 06 · `tests/test_repair_time.py` |
# | a team knows whom it works for | tokens and sealed values at each door | 07 · `tests/test_identity.py` |
# | no history holds a token | sealed values | 07 · `tests/test_identity_leaks.py` |
# | the thousandth message costs as the tenth | window, summary, continue-as-new | 08 · `tests/test_long_sessions.py` |
# | a stop keeps what is done | cancellation in both of its shapes | 08 · `tests/test_stop.py` |
# | a model that is down is not besieged | a breaker, whose probe is Temporal's retry | 09 · `tests/test_model_down.py` |
# | old runs survive new code | patches, versions | 09 · `tests/test_versions.py` |
# | one question is one trace | the trace id in every header | 10 · `tests/test_tracing.py` |
# | a deployment loses nothing, and pays nothing twice that ends within the grace | SIGTERM, grace, hand back | 10 · `tests/test_services.py` |
# | who may call is who does call | the code compared with the Terraform | 10 · `tests/test_terraform.py` |
#
# And what it does not promise: that the model is right. For that there are rules, people, and tests of your own.
