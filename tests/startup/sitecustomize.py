"""Read by each process that the tests start: collecting garbage takes a fifth of its imports."""

import gc

gc.set_threshold(100_000, 50, 50)
