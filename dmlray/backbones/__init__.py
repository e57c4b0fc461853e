"""Backbones by name: a network without classifier, its feature width and input statistics."""

from dmlray.backbones.catalogue import build, names
from dmlray.backbones.trunk import Network, Trunk
from dmlray.input_statistics import InputStatistics

__all__ = ["InputStatistics", "Network", "Trunk", "build", "names"]
