"""Skeletons of components: whole examples to begin from, which `writing` writes under a new name.

The other modules and TOMLs of this folder are the skeletons themselves. Each component has the
name ``skeleton``, and its class the name ``Skeleton``.
"""
