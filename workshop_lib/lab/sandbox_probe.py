"""The smallest workflow, for the doctor: can the sandbox load a workflow module on this machine?"""

from temporalio import workflow


@workflow.defn(name="WorkshopSandboxProbe")
class SandboxProbe:
    """Returns its input."""

    @workflow.run
    async def run(self, text: str) -> str:
        """The same text."""
        return text
