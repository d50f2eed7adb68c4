"""A workflow that wants to hear of repairs, for tests of the callback signal."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workshop_lib.repair.states import Notice


@workflow.defn
class Listener:
    """Ends when it has heard enough."""

    def __init__(self) -> None:
        self.heard: list[Notice] = []

    @workflow.run
    async def run(self, enough: int) -> list[Notice]:
        await workflow.wait_condition(lambda: len(self.heard) >= enough)
        return self.heard

    @workflow.signal
    def repair_notice(self, notice: Notice) -> None:
        self.heard.append(notice)
