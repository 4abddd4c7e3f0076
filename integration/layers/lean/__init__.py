"""Neighbours of linear layers that keep less for the backward pass, with the gradients of the stock ones."""
