"""Function calls: data, checkers and measurements around ``trm_edge.json_slots``."""
