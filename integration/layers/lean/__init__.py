"""Neighbours of linear layers that keep less for the backward pass, exact to rounding, and `lean_`, which finds them."""
