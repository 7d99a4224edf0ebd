"""Ways to a posterior. Each gives draws of functions, and so the same posterior predictive."""
