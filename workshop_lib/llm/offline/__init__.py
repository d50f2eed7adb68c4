"""The offline model: rules that read real messages and real tool schemas, for a workshop without a key.

`provider` plugs it into LiteLLM, `faults` makes it fail on a plan, `reply` is the answer as a pure function:

    talk ─► order_desk, recall ─► (a last word)
    words ─► schema: tools as slots ┐
             spans: pieces of text  ┴► match: one assignment ─► plan: steps ─► reply: calls, or quoted results
                                            sums: arithmetic ─┘

No tool, no argument and no value is known by its name. Left out: whatever takes understanding.
"""
