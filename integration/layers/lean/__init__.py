"""Neighbours of linear layers that keep less for the backward pass, exact to rounding; `lean_` finds and converts them."""
