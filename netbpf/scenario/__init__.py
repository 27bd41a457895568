"""Scenario files: what users want to be true of a socket program, one ``*.scenario.toml`` a story (docs/scenarios.md).

    text -> toml_map (values, places) -> params (one tree a case) -> read (dataclasses of model) -> run (a backend) -> check

Knows the Host and Lab seams, never an engine's or a host's inside.
"""
