"""What of a conversation a model is sent, for conversations of every shape."""

import random
from collections.abc import Sequence
from typing import Any

import pytest

from workshop_lib.agents.conversation.policy import OPENING_NOTE, ContextPolicy
from workshop_lib.agents.conversation.state import Conversation, ConversationState
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


def held(
    parts: Sequence[Any],
    policy: ContextPolicy | None = None,
    conversation: Conversation[Any] | None = None,
) -> Conversation[Any]:
    """The same, as a session and its loop would have gone through it."""
    if conversation is None:
        conversation = Conversation(type(parts[0]), policy=policy)
    for part in parts:
        if is_question(part):
            conversation.ask(part.content if isinstance(part, Message) else part["content"])
        else:
            conversation.add(part)
    return conversation


def is_question(part: Any) -> bool:
    return bool(part.role == "user" if isinstance(part, Message) else part.get("role") == "user")


def start_of_last_turn(messages: list[Message]) -> int:
    return max(index for index, message in enumerate(messages) if message.role == "user")


def test_every_window_is_a_conversation_that_a_provider_accepts() -> None:
    for seed in range(150):
        messages = a_conversation(seed)
        policy = ContextPolicy(max_parts=random.Random(seed).choice([0, 1, 2, 5, 8, 16, 40]))
        system, sent = held(messages, policy).sent(INSTRUCTIONS)

        assert system.startswith(INSTRUCTIONS)
        assert sent == messages[len(messages) - len(sent) :]  # the latest, in order, unchanged
        assert sent[0].role == "user"
        under_way = len(messages) - start_of_last_turn(messages)
        assert under_way <= len(sent) <= max(under_way, policy.max_parts)
        called = {call.id for message in sent for call in message.tool_calls}
        answered = {message.tool_call_id for message in sent if message.role == "tool"}
        assert answered == called
        # As much as fits: one turn more would be too long.
        left_out = len(messages) - len(sent)
        if left_out and len(sent) > under_way:
            earlier = start_of_last_turn(messages[:left_out])
            assert len(messages) - earlier > policy.max_parts


def test_a_short_conversation_is_sent_whole_and_without_a_note() -> None:
    messages = a_turn(1, 1) + a_turn(2, 0, answered=False)
    assert held(messages).sent(INSTRUCTIONS) == (INSTRUCTIONS, messages)


def test_the_note_repeats_how_the_conversation_began() -> None:
    opening = "My name is Ada. " + "x" * 500
    messages = [Message.user(opening), Message.assistant("hello")]
    for n in range(20):
        messages += a_turn(n, 1)
    messages.append(Message.user("What is my name?"))
    system, _ = held(messages, ContextPolicy(opening_chars=50)).sent(INSTRUCTIONS)
    assert system == f"{INSTRUCTIONS}\n{OPENING_NOTE}{opening[:50]}"


def test_the_length_of_what_is_sent_does_not_grow_with_the_conversation() -> None:
    def sent_after(turns: int) -> int:
        messages = [m for n in range(turns) for m in a_turn(100 + n, 1)]
        messages.append(Message.user("question 999"))
        return sum(len(m.model_dump_json()) for m in held(messages).sent("")[1])

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
    _, sent = held(messages, ContextPolicy(max_result_chars=100)).sent("")
    question, asked, cut, short = sent
    assert [question, asked, short] == [messages[0], messages[1], messages[3]]
    assert cut.content == "r" * 100 + " … (4900 characters left out)"
    assert cut.tool_call_id == "1"
    assert messages[2].content == long  # what was added is not touched


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


def in_both_forms(messages: list[Message]) -> list[list[Any]]:
    return [messages, as_items(messages)]


def test_what_a_run_hands_on_is_all_that_the_next_one_needs() -> None:
    """At every turn, in both forms and through JSON: the next run sends what this one would."""
    for seed in range(60):
        policy = ContextPolicy(max_parts=random.Random(seed).choice([0, 1, 2, 5, 8, 16]))
        for parts in in_both_forms(a_conversation(seed)):
            whole, handed_on = held(parts[:1], policy), held(parts[:1], policy)
            for part in parts[1:]:
                if is_question(part):
                    text = handed_on.state().model_dump_json()
                    state = ConversationState.model_validate_json(text)
                    assert sum(map(len, state.turns)) <= max(policy.max_parts, len(state.turns[-1]))
                    handed_on = Conversation(type(parts[0]), state, policy)
                held([part], conversation=whole)
                held([part], conversation=handed_on)
                assert handed_on.turn == whole.turn
                assert handed_on.sent(INSTRUCTIONS) == whole.sent(INSTRUCTIONS)


@pytest.mark.parametrize("parts", in_both_forms([m for n in range(9) for m in a_turn(n, 1)]))
def test_a_state_is_that_of_the_end_of_its_turn(parts: list[Any]) -> None:
    conversation = held(parts)
    assert conversation.turn == 9 and conversation.state() == conversation.state(9)
    assert conversation.state(0) == ConversationState()
    each = len(parts) // 9
    for turn in range(1, 10):
        assert conversation.state(turn) == held(parts[: turn * each]).state()
    later = Conversation(type(parts[0]), conversation.state(4))
    assert later.turn == 4 and later.state(4) == conversation.state(4)
    for unknown in (-1, 3, 5):
        with pytest.raises(ValueError, match="has the turns 4 to 4"):
            later.state(unknown)


def test_a_state_is_small_however_long_the_results_were() -> None:
    call = ToolCall(id="1", name="weather", arguments="{}")
    turn = [Message(role="assistant", tool_calls=[call]), Message.tool_result(call, "r" * 20_000)]
    for parts in in_both_forms([m for n in range(100) for m in (Message.user(f"{n}"), *turn)]):
        assert len(held(parts).state().model_dump_json()) < 20_000


def test_an_answer_is_there_once_and_a_call_is_none() -> None:
    """The model's own words, as a loop may add them, are not followed by the session's."""
    conversation = Conversation(Message)
    conversation.ask("Hello")
    conversation.answered("Hi")
    conversation.ask("And now?")
    conversation.add(Message.assistant("Now"))
    conversation.answered("Now, with a note")
    conversation.ask("Look it up")
    conversation.add(
        Message(role="assistant", tool_calls=[ToolCall(id="1", name="t", arguments="")])
    )
    conversation.answered("I could not")
    assert [m.content for m in conversation.sent("")[1] if m.role == "assistant"] == [
        "Hi", "Now", None, "I could not"
    ]  # fmt: skip
