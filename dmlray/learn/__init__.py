"""How one learner learns, on one device; knows no Ray."""
