"""Name -> network without classifier, its feature width and the images it wants."""

from dmlray.backbones.catalogue import build, names
from dmlray.backbones.trunk import Network, Trunk
from dmlray.input_statistics import InputStatistics

__all__ = ["InputStatistics", "Network", "Trunk", "build", "names"]
