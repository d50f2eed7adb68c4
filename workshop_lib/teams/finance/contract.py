"""What the finance team offers to others: two operations, their inputs and their outputs.

This module is all that another team may import. A model reads the docstrings of the inputs and the
descriptions of their fields, so they are written for it. Changing anything here changes what callers may
rely on: raise `VERSION` with it.
"""

from typing import Annotated

import nexusrpc
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from workshop_lib.llm.tools import number

VERSION = "1.1.0"
Number = Annotated[float, BeforeValidator(number)]


class StockPriceInput(BaseModel):
    """Get the current stock price (share price) of a company by its ticker symbol or its name."""

    model_config = ConfigDict(extra="forbid")

    ticker: str = Field(
        description="Ticker symbol or name of the company, such as AAPL or Tesla",
        min_length=1,
        max_length=60,
    )


class StockPrice(BaseModel):
    """The price of one share."""

    ticker: str
    company: str
    price: float = Field(description="Price of one share, in units of the currency")
    currency: str


class RoiInput(BaseModel):
    """Calculate the ROI (return on investment) and the future value of an amount invested at a
    yearly interest rate, compounded once a year."""

    model_config = ConfigDict(extra="forbid")

    principal: Number = Field(
        description="Amount invested, in dollars, such as 10000", gt=0, le=1e12
    )
    rate: Number = Field(
        description="Yearly interest rate in percent, such as 5 for 5 %", ge=-100, le=1000
    )
    years: Number = Field(description="How many years the amount is invested", gt=0, le=200)


class Roi(BaseModel):
    """What an investment comes to."""

    principal: float
    rate: float = Field(description="Percent a year")
    years: float
    future_value: float = Field(description="principal x (1 + rate / 100) ^ years, to the cent")
    gain: float = Field(description="Future value less principal")
    roi_percent: float = Field(description="Gain in percent of the principal")


@nexusrpc.service
class FinanceService:
    """The finance team's operations."""

    stock_price: nexusrpc.Operation[StockPriceInput, StockPrice]
    calculate_roi: nexusrpc.Operation[RoiInput, Roi]
