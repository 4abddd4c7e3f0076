"""The exceptions a user may meet; all say what was given and what is accepted."""

from __future__ import annotations


class InputError(ValueError):
    """An argument, option or file that cannot be used.

    The message names the argument, the value it had and what is accepted. The command line prints it as one
    line and exits with code 2; every other exception is a defect of the program and keeps its traceback.
    """


class NoClosedForm(Exception):
    """The estimator states no formula for what is asked: for a moment use enumeration or Monte Carlo.

    No `NotImplementedError`: that is what torch raises for a kernel that a device does not have.
    """


class WtacrsWarning(UserWarning):
    """Something works otherwise than its user may think, said in one line; the command line prints that line alone."""
