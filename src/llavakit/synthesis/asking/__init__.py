"""Asking a teacher for thousands of replies: never twice, never for more than the budget, never faster than it bears.

    journal.py     the SQLite file that keeps every call and reply; stored.py is what it gives back
    engine.py      the loop: draws requests, sends, retries, stops
    batch_engine.py  the same in rounds, over a service's Batch API
    pace.py        how many calls at once, how many a minute
    budget.py      what a call may cost, set aside before it is sent; prices.py reads the prices
    estimating.py  what a run will take, before it begins
    events.py      limits and account; asking.py runs it all from ordinary code

Requests are known by their key alone. What they say and what becomes of the replies is for those who ask.
"""

from llavakit.synthesis.asking.asking import ask_all, ask_all_in_batches
from llavakit.synthesis.asking.budget import Budget
from llavakit.synthesis.asking.engine import run
from llavakit.synthesis.asking.estimating import Estimate, estimate
from llavakit.synthesis.asking.events import Account, Limits, Report
from llavakit.synthesis.asking.journal import Journal
from llavakit.synthesis.asking.prices import Price, Prices, read_prices
from llavakit.synthesis.asking.stored import Stored

__all__ = [
    "Account", "Budget", "Estimate", "Journal", "Limits", "Price", "Prices", "Report", "Stored", "ask_all",
    "ask_all_in_batches", "estimate",
    "read_prices", "run",
]  # fmt: skip
