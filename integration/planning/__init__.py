"""What every block of a model is to keep: costs of the choices, and the plan that is best under a limit of memory."""
