"""One formula per file, each tested against the equation and the authors' numbers."""
