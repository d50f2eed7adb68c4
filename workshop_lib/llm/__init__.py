"""Calls to a language model: what is sent and received, one way to send it, and a model that needs no key.

`messages` holds the types, `gateway` makes the call through LiteLLM, `offline` plugs the rules that
answer without a key into LiteLLM. Left out: conversations and loops, which are `agents`' business.
"""
