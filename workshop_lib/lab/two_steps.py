"""A run with two steps of one kind, for the check of a key that has to tell them apart."""

from datetime import timedelta

from temporalio import workflow


@workflow.defn
class TwoSteps:
    """Runs an activity twice, one after the other."""

    @workflow.run
    async def run(self, call: tuple[str, int]) -> None:
        """Call the activity of this name with this argument, and again."""
        name, argument = call
        for _ in range(2):
            await workflow.execute_activity(
                name, argument, start_to_close_timeout=timedelta(seconds=5)
            )
