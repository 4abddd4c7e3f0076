"""The exceptions a user may meet; all say what was given and what is accepted."""

from __future__ import annotations


class InputError(ValueError):
    """An argument, option or file that cannot be used.

    The message names the argument, the value it had and what is accepted. The command line prints it as one
    line and exits with code 2; every other exception is a defect of the program and keeps its traceback.
    """


class NoClosedForm(NotImplementedError):
    """The estimator has no known closed form for the asked moment: use enumeration or Monte Carlo."""
