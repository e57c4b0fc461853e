"""Name -> network without classifier, its feature width and the images it wants."""

from dmlray.backbones.catalogue import build, names
from dmlray.backbones.trunk import InputStatistics, Network, Trunk

__all__ = ["InputStatistics", "Network", "Trunk", "build", "names"]
