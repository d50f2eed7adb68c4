"""What the IT team offers to others: two operations, their inputs and their outputs.

This module is all that another team may import. A model reads the docstrings of the inputs and the
descriptions of their fields, so they are written for it. Changing anything here changes what callers may
rely on: raise `VERSION` with it.
"""

import nexusrpc
from pydantic import BaseModel, ConfigDict, Field

VERSION = "1.0.0"


class JiraMetricsInput(BaseModel):
    """Get the Jira metrics (open, closed and total issues, also called tickets) of a project."""

    model_config = ConfigDict(extra="forbid")

    project: str = Field(
        description="Key of the Jira project, such as DEMO-456", min_length=1, max_length=40
    )


class JiraMetrics(BaseModel):
    """Figures of one project."""

    project: str
    open: int
    closed: int
    total: int


class IpInput(BaseModel):
    """Get the IP address of the user's machine on the office network."""

    model_config = ConfigDict(extra="forbid")


class IpAddress(BaseModel):
    """An address."""

    ip_address: str


@nexusrpc.service
class ITService:
    """The IT team's operations."""

    jira_metrics: nexusrpc.Operation[JiraMetricsInput, JiraMetrics]
    get_ip: nexusrpc.Operation[IpInput, IpAddress]
