"""The losses of distributions over outcomes as functions: each is its documentation and one call."""
