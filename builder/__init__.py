"""Builds images from Dockerfiles: plans, solves, executes, exports. Joins grammar, layerstore and runner."""
