"""The checks of the exercises: `nbNN` holds those of notebook NN.

In a notebook: `from workshop_lib.lab.checks import nb00 as check`, then `await check.greeting(…)`.
Here is only what the modules are written with; how a check runs is in `framework`.
"""

from workshop_lib.lab.checks.framework import CheckNotMet, NotYet, all_checks, check

__all__ = ["CheckNotMet", "NotYet", "all_checks", "check"]
