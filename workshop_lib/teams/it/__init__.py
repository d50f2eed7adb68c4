"""The IT team: figures of Jira projects, and the office's IP address."""
