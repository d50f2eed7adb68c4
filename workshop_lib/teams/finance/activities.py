"""The finance team's work: look up a price, calculate a return.

Both only read, so an activity that runs twice, because its worker died before it could report, does no
harm. Errors say by their type who can do something about them: `UnknownTicker` and `CannotCalculate` the
model that wrote the arguments, `ServiceDown` nobody but time, so that one is retried.
"""

from temporalio import activity
from temporalio.exceptions import ApplicationError

from workshop_lib.teams.finance.contract import Roi, RoiInput, StockPrice, StockPriceInput
from workshop_lib.teams.records import read_records
from workshop_lib.temporal.steps import heartbeating


@activity.defn
async def look_up_price(request: StockPriceInput) -> StockPrice:
    """The price of one share, by ticker or by the company's name, in capitals or not.

    Raises:
        ApplicationError: `UnknownTicker`, not retried; `ServiceDown`, retried.
    """
    async with heartbeating():
        records = read_records("finance")
        prices, asked = records["prices"], request.ticker.strip().casefold()
        by_name = {
            name.casefold(): symbol
            for symbol in prices
            for name in (symbol, prices[symbol]["company"])
        }
        ticker = by_name.get(asked)
        if ticker is None:
            known = ", ".join(sorted(prices))
            raise ApplicationError(
                f"unknown ticker {request.ticker!r}; known are {known}",
                type="UnknownTicker",
                non_retryable=True,
            )
        return StockPrice(ticker=ticker, currency=records["currency"], **prices[ticker])


@activity.defn
async def compute_roi(request: RoiInput) -> Roi:
    """What an investment comes to, with interest compounded once a year.

    Raises:
        ApplicationError: `CannotCalculate`, not retried: the figures are beyond any money.
    """
    async with heartbeating():
        try:
            factor = (1 + request.rate / 100) ** request.years
            future = round(request.principal * factor, 2)
        except OverflowError:
            raise ApplicationError(
                "the future value is too large; use a lower rate or fewer years",
                type="CannotCalculate",
                non_retryable=True,
            ) from None
        gain = round(future - request.principal, 2)
        return Roi(
            principal=request.principal,
            rate=request.rate,
            years=request.years,
            future_value=future,
            gain=gain,
            roi_percent=round(100 * gain / request.principal, 2),
        )
