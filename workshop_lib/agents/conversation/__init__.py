"""What an agent remembers, and what of it a model is sent: `state` holds a conversation, `policy` decides."""
