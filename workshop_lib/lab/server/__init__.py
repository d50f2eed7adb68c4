"""The Temporal server of the lab: how it is started and found (`lifecycle`), and its `namespaces`."""
