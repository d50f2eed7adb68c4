"""What of a conversation a model is sent, for conversations of every shape."""

import random
from typing import Any

from workshop_lib.agents.chat import ChatStart
from workshop_lib.agents.context_window import OPENING_NOTE, ContextWindow
from workshop_lib.agents.loops.sdk import SdkChat
from workshop_lib.llm.messages import Message, ToolCall

INSTRUCTIONS = "Be helpful."


def a_turn(number: int, rounds: int, calls: int = 1, answered: bool = True) -> list[Message]:
    """A question, `rounds` of tool calls with their results, and mostly an answer."""
    turn = [Message.user(f"question {number}")]
    for step in range(rounds):
        wanted = [
            ToolCall(id=f"{number}.{step}.{n}", name="weather", arguments="{}")
            for n in range(calls)
        ]
        turn.append(Message(role="assistant", tool_calls=wanted))
        turn += [Message.tool_result(one, f"result of {one.id}") for one in wanted]
    if answered:
        turn.append(Message.assistant(f"answer {number}"))
    return turn


def a_conversation(seed: int) -> list[Message]:
    """Finished turns of many lengths, and one that is under way or has just begun."""
    chance = random.Random(seed)
    turns = [
        a_turn(n, chance.choice([0, 0, 1, 1, 2, 9]), chance.randint(1, 4))
        for n in range(chance.randint(0, 12))
    ]
    last = a_turn(len(turns), chance.choice([0, 1, 2, 9]), chance.randint(1, 4), answered=False)
    return [message for turn in [*turns, last] for message in turn]


def start_of_last_turn(messages: list[Message]) -> int:
    return max(index for index, message in enumerate(messages) if message.role == "user")


def test_every_window_is_a_conversation_that_a_provider_accepts() -> None:
    for seed in range(150):
        messages = a_conversation(seed)
        window = ContextWindow(max_messages=random.Random(seed).choice([0, 1, 2, 5, 8, 16, 40]))
        system, sent = window.select(INSTRUCTIONS, messages)

        assert system.startswith(INSTRUCTIONS)
        assert sent == messages[len(messages) - len(sent) :]  # the latest, in order, unchanged
        assert sent[0].role == "user"
        under_way = len(messages) - start_of_last_turn(messages)
        assert under_way <= len(sent) <= max(under_way, window.max_messages)
        called = {call.id for message in sent for call in message.tool_calls}
        answered = {message.tool_call_id for message in sent if message.role == "tool"}
        assert answered == called
        # As much as fits: one turn more would be too long.
        left_out = len(messages) - len(sent)
        if left_out and len(sent) > under_way:
            earlier = start_of_last_turn(messages[:left_out])
            assert len(messages) - earlier > window.max_messages


def test_a_short_conversation_is_sent_whole_and_without_a_note() -> None:
    messages = a_turn(1, 1) + a_turn(2, 0, answered=False)
    assert ContextWindow().select(INSTRUCTIONS, messages) == (INSTRUCTIONS, messages)


def test_the_note_repeats_how_the_conversation_began() -> None:
    opening = "My name is Ada. " + "x" * 500
    messages = [Message.user(opening), Message.assistant("hello")]
    for n in range(20):
        messages += a_turn(n, 1)
    messages.append(Message.user("What is my name?"))
    window = ContextWindow(opening_chars=50)
    system, _ = window.select(INSTRUCTIONS, messages)
    assert system == f"{INSTRUCTIONS}\n{OPENING_NOTE}{opening[:50]}"


def test_the_length_of_what_is_sent_does_not_grow_with_the_conversation() -> None:
    def sent_after(turns: int) -> int:
        messages = [m for n in range(turns) for m in a_turn(100 + n, 1)]
        messages.append(Message.user("question 999"))
        return sum(len(m.model_dump_json()) for m in ContextWindow().select("", messages)[1])

    assert sent_after(100) == sent_after(10) > sent_after(2)


def test_long_tool_results_are_cut_and_say_so() -> None:
    call = ToolCall(id="1", name="weather", arguments="{}")
    long = "r" * 5_000
    messages = [
        Message.user("q" * 5_000),
        Message(role="assistant", content="a" * 5_000, tool_calls=[call]),
        Message.tool_result(call, long),
        Message.tool_result(call, "r" * 100),
    ]
    _, sent = ContextWindow(max_result_chars=100).select("", messages)
    question, asked, cut, short = sent
    assert [question, asked, short] == [messages[0], messages[1], messages[3]]
    assert cut.content == "r" * 100 + " … (4900 characters left out)"
    assert cut.tool_call_id == "1"
    assert messages[2].content == long  # the conversation itself is not touched


# --- the Agents SDK's items ---------------------------------------------------------------------------


def as_items(messages: list[Message]) -> list[dict[str, Any]]:
    """The same conversation as the Agents SDK writes it: calls and results are items of their own."""
    items: list[dict[str, Any]] = []
    for message in messages:
        items += [
            {"type": "function_call", "call_id": call.id, "arguments": "{}"}
            for call in message.tool_calls
        ]
        if message.role == "tool":
            output = {"call_id": message.tool_call_id, "output": message.content}
            items.append({"type": "function_call_output"} | output)
        elif message.content is not None:
            items.append({"role": message.role, "content": message.content})
    return items


def test_what_a_session_lets_go_of_would_not_have_been_sent_again() -> None:
    """At every step of a conversation: the latest items with its opening do as well as all of it."""
    for seed in range(100):
        items = as_items(a_conversation(seed))
        window = ContextWindow(max_messages=random.Random(seed).choice([0, 1, 2, 5, 8, 16]))
        kept: list[dict[str, Any]] = []
        opening = None
        for index, item in enumerate(items):
            kept.append(item)
            if item.get("role") == "user":  # a turn begins
                latest = window.latest(kept)
                if len(latest) < len(kept) and opening is None:
                    opening = kept[0]["content"]
                kept = latest
            whole = window.select(INSTRUCTIONS, items[: index + 1])
            assert window.select(INSTRUCTIONS, kept, opening) == whole


def test_a_session_of_the_sdk_does_not_hold_on_to_the_whole_conversation() -> None:
    """A run copies what it is given several times a model call: with all of it, turns grow ever slower."""
    session = SdkChat(ChatStart())
    for number in range(40):
        session._ask(f"question {number}")
        session._items.append({"role": "assistant", "content": f"answer {number}"})
    assert len(session._items) <= ContextWindow().max_messages + 1
    assert session._opening == "question 0"
