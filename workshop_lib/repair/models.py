"""What the parts of the repair agent say to each other, as pydantic models.

Orders and stock as the store keeps them, what an analyst finds, what a plan proposes and what became of it.
All of it crosses the border between workflow and activity, so the module imports pydantic and little
else. Left out: which proposals are right (`plan_rules`) and how one is carried out (`store`).

Money is a float, in Galleons: it is read from JSON and shown, and nothing is ever computed from it.
"""

import hashlib
import json
from datetime import date
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from workshop_lib.llm.tools import integer, number

# Below this confidence nothing more is asked of a model after detection, and a proposal is skipped.
DETECTION_THRESHOLD = 0.5
SKIP_THRESHOLD = 0.5
# Above this confidence (and not at it) the proactive agent acts without asking.
PROACTIVE_THRESHOLD = 0.95

# One address and no other: an address that a model may choose is one that an order's notes may choose.
Approver = Literal["approve-orders@diagonalley.co.uk"]
APPROVER: Approver = "approve-orders@diagonalley.co.uk"

ToolName = Literal["request_approval", "order_inventory", "request_payment_update"]
Confidence = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), BeforeValidator(number)]
Id = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9_-]+$")]
Money = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Reason = Annotated[str, Field(min_length=1, max_length=500)]
Words = Annotated[str, Field(min_length=1, max_length=2000)]
Line = Annotated[str, Field(max_length=300)]  # a name, an address, a status
Text = Annotated[str, Field(max_length=4000)]  # notes, reasons: what people or a model have written


class Frozen(BaseModel):
    """A value: it cannot be changed, and has no field more than it should."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# --- what the store holds ---------------------------------------------------------------------------


class OrderItem(Frozen):
    """A line of an order."""

    item_id: Id
    item_name: Line
    description: Text = ""
    category: Line
    quantity: int = Field(gt=0)
    unit_price: Money
    total_price: Money


class Order(Frozen):
    """A customer's order. `notes` are the customer's words: data, never instructions."""

    order_id: Id
    customer_name: Line
    customer_id: Id
    order_date: date
    status: Line
    shipping_address: Line
    items: list[OrderItem] = Field(min_length=1)
    subtotal: Money
    tax: Money
    shipping: Money
    total: Money
    payment_method: Line
    notes: Text = ""


class InventoryItem(Frozen):
    """An article in stock.

    Attributes:
        available_stock: current less reserved stock; negative where more is promised than is there.
        max_stock_level: what the shelf holds; current stock never goes above it.
        special_requirements, restrictions: only for restricted goods.
    """

    item_id: Id
    item_name: Line
    category: Line
    current_stock: Count
    reserved_stock: Count
    available_stock: int
    reorder_point: Count
    reorder_quantity: Count
    max_stock_level: Count
    unit_cost: Money
    unit_price: Money
    supplier: Line
    lead_time_days: Count
    storage_location: Line
    last_restocked: date
    expiry_date: date | None = None
    status: Line
    dangerous_goods: bool = False
    special_requirements: Text | None = None
    restrictions: Text | None = None

    @property
    def needs_approval(self) -> bool:
        """True for restricted goods: somebody else must agree, and nothing is ordered before."""
        return bool(self.special_requirements or self.restrictions)


class OpenRequest(Frozen):
    """A repair that is in the ledger already: its order is no problem any more.

    Attributes:
        item_id: the article, where the tool is about one.
    """

    order_id: Id
    tool: ToolName
    item_id: Id | None = None


class Snapshot(Frozen):
    """What an analyst sees: all orders, all stock and all open requests at one moment, or a page of them.

    Attributes:
        more_after: the last order of a page that others follow.
    """

    today: date
    orders: list[Order]
    inventory: list[InventoryItem]
    open_requests: list[OpenRequest] = []
    more_after: str | None = None

    def order(self, order_id: str) -> Order | None:
        """An order by its id."""
        return next((order for order in self.orders if order.order_id == order_id), None)

    def item(self, item_id: str) -> InventoryItem | None:
        """An article by its id."""
        return next((item for item in self.inventory if item.item_id == item_id), None)

    @property
    def digest(self) -> str:
        """A hash of all of it: two snapshots that differ have different digests."""
        return _digest(self.model_dump(mode="json", exclude={"more_after"}))


# --- the three tools --------------------------------------------------------------------------------


class RequestApproval(Frozen):
    """Ask the approvals office to approve an order that holds restricted goods."""

    tool: ClassVar[ToolName] = "request_approval"

    order_id: Id = Field(description="The order that needs approval, as in ORD-004-RHG.")
    approver: Approver = Field(APPROVER, description="Who is asked. There is one address.")
    reason: Reason = Field(description="Why the order needs approval, in one sentence.")


class OrderInventory(Frozen):
    """Order more of an article that an order waits for."""

    tool: ClassVar[ToolName] = "order_inventory"

    order_id: Id = Field(description="The order that waits for the article, as in ORD-002-HJG.")
    item_id: Id = Field(description="The article to order, as in STP-ORG-001. It is on that order.")
    quantity: Annotated[int, Field(strict=True), BeforeValidator(integer)] = Field(
        gt=0,
        le=1_000_000,
        description="How many to order: at least what is missing, and no more than the shelf holds"
        " (maximum stock less current stock).",
    )


class RequestPaymentUpdate(Frozen):
    """Ask a customer whose payment was denied for another way to pay."""

    tool: ClassVar[ToolName] = "request_payment_update"

    order_id: Id = Field(description="The order whose payment was denied, as in ORD-003-RBW.")
    reason: Reason = Field(description="What is wrong with the payment, in one sentence.")


Arguments = RequestApproval | OrderInventory | RequestPaymentUpdate
ARGUMENTS: dict[ToolName, type[Arguments]] = {
    kind.tool: kind for kind in (RequestApproval, OrderInventory, RequestPaymentUpdate)
}


# --- what analysts find: forms that a model fills in -------------------------------------------------

HOW_SURE = Field(description="How sure you are, from 0 to 1, by the evidence in the data.")


class Detection(Frozen):
    """Report whether any order may have a problem, and which orders."""

    confidence: Confidence = Field(
        description="How sure you are that at least one order has a problem, from 0 to 1."
    )
    order_ids: list[Id] = Field(
        max_length=1000, description="Ids of the orders that may have a problem; empty if none."
    )
    reason: str = Field(max_length=2000, description="Why, in one or two sentences.")


class Problem(Frozen):
    """One problem of one order."""

    order_id: Id = Field(description="The order that has the problem.")
    kind: str = Field(
        min_length=1, max_length=60, description="What sort of problem, such as short-of-stock."
    )
    description: Words = Field(description="What is wrong, with the figures that prove it.")
    confidence: Confidence = HOW_SURE


class Analysis(Frozen):
    """Report all problems of the orders, one entry a problem; an order may have several."""

    problems: list[Problem] = Field(
        max_length=1000,
        description="The problems, each with the order it belongs to; empty if none.",
    )
    summary: str = Field(max_length=2000, description="All of it in one or two sentences.")


class Proposal(Frozen):
    """One tool call that a plan proposes.

    Attributes:
        proposal_id: its name within the plan; people approve by it.
        arguments: of the type that belongs to `tool`.
        reasoning: the model's, kept even where a rule overrides the model.
    """

    proposal_id: Id
    tool: ToolName
    arguments: Arguments
    confidence: Confidence
    reasoning: Text = ""

    @model_validator(mode="before")
    @classmethod
    def _arguments_of_the_tool(cls, data: Any) -> Any:
        """Read the arguments as those of the named tool, so that errors speak of that tool alone."""
        if not isinstance(data, dict):
            return data
        model = ARGUMENTS.get(data["tool"]) if isinstance(data.get("tool"), str) else None
        given = data.get("arguments")
        if model is None or isinstance(given, model):
            return data
        if isinstance(given, BaseModel):
            given = given.model_dump()
        return {**data, "arguments": model.model_validate(given)}

    @property
    def order_id(self) -> str:
        """The order that it is about."""
        return self.arguments.order_id

    @property
    def item_id(self) -> str | None:
        """The article that it is about, if any."""
        return self.arguments.item_id if isinstance(self.arguments, OrderInventory) else None


class Rejected(Frozen):
    """A proposal that the rules threw out. People see it; it is never carried out.

    Attributes:
        proposal: as the model wrote it; it may be no valid `Proposal` at all.
        reason: which rule it breaks, in words.
    """

    proposal: dict[str, Any]
    reason: Text


class Plan(Frozen):
    """What would be done, and what would not.

    Attributes:
        scope: whose plan it is, as in "repair-1" or "always-1/cycle-3". A decision about one plan is none
            about another that happens to propose the same. The workflow fills it in.
        snapshot_digest: of the orders and the stock that it was made for.
        proposals: what would be carried out, in this order.
        skipped: valid, but below `SKIP_THRESHOLD`.
        refused: thrown out by the hard rules.
    """

    scope: str = ""
    snapshot_digest: str = ""
    proposals: list[Proposal] = []
    skipped: list[Proposal] = []
    refused: list[Rejected] = []
    summary: Text = ""

    @property
    def digest(self) -> str:
        """A hash of what would be carried out: decisions are bound to it."""
        return _digest(
            {
                "scope": self.scope,
                "snapshot": self.snapshot_digest,
                "proposals": [
                    {"id": p.proposal_id, "tool": p.tool, "arguments": p.arguments.model_dump()}
                    for p in self.proposals
                ],
            }
        )


# --- what became of it ------------------------------------------------------------------------------


class RepairResult(Frozen):
    """What became of one approved proposal.

    Attributes:
        outcome: what happened, in words.
        done: False where the store refused it; `outcome` then says why.
        repeated: it had been done before, and nothing was changed this time.
    """

    proposal_id: Id
    idempotency_key: str
    tool: ToolName
    order_id: Id
    outcome: Text
    done: bool = True
    repeated: bool = False


class Report(Frozen):
    """A report as Markdown."""

    markdown: str


# --- what the analysts' activities are given --------------------------------------------------------


class DetectRequest(Frozen):
    """Input of `detect_problems`."""

    snapshot: Snapshot


class AnalyzeRequest(Frozen):
    """Input of `analyze_problems`."""

    snapshot: Snapshot
    detection: Detection


class PlanRequest(Frozen):
    """Input of `plan_repair`."""

    snapshot: Snapshot
    analysis: Analysis


class ReportRequest(Frozen):
    """Input of `write_report`: a repair from its problems to its results.

    Attributes:
        declined: proposals of the plan that the approver left out.
        decided_by: who approved.
    """

    today: date
    analysis: Analysis
    plan: Plan
    declined: list[Id] = []
    decided_by: Line = ""
    results: list[RepairResult] = []


def _digest(content: Any) -> str:
    """SHA-256 of canonical JSON: sorted keys, no spaces."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
