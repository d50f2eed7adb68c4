"""The rules behind the offline model.

A request goes through three questions: what is asked (`understanding`, with `pieces`, `references` and
`follow_ups`), which tool can find it and with which arguments (`tool_choice`, with `tool_schema`, `entities`
and `arithmetic`), and how the results are said (`answering`, with `results` and `memory`). `reply` puts them
together. No tool is known by name.

Requests about orders in trouble carry their data along and have rules of their own: `order_desk`, with
`order_data`, `order_findings`, `order_tools`, `order_report` and, for a fault, `order_notes`.

Left out: everything about LiteLLM, which is `llm.offline`'s business.
"""
