"""The classroom: everything that only a workshop needs. Only the command line and notebooks import it."""
