"""Many runs as one job: the grid, groups that train together, what is finished."""
