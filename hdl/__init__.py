"""The circuits, in Amaranth, and the registry of designs."""
