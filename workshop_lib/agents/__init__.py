"""The chat agents: one session contract (`chat`), and the loops that answer its messages.

`loops.manual` is the loop spelled out. `model_call` and `local_tools` are its activities, `conversation` is
what is remembered and what of it a model is sent, `toolbox` has the tools of a session and `turn` calls them,
`held_tools` keeps changed ones from the model, `sessions` is how clients talk to a chat (`session_reader`
reads it back, `deleting` removes it), and `worker` what a worker serves.
"""
