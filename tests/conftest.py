"""Settings for every test: one thread per process, so that numbers repeat and cores are shared."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
