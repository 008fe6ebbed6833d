"""The losses of one logit per sample or patch as functions: each is its documentation and one call."""
