"""How one learner learns, on one device; knows no Ray."""

from dmlray.learn.compile_cache import set_compile_cache

set_compile_cache()  # before anything below imports torch's compiler
