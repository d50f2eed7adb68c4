"""The doctor: an `examination` of the lab and of the `machine` that it runs on."""
