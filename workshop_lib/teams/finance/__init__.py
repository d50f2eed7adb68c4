"""The finance team: share prices and returns on investment."""
