"""Training of one learner on one device, without Ray."""

from dmlray.learn.compile_cache import set_compile_cache

set_compile_cache()  # before any module imports torch's compiler
