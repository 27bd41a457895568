"""The options of every command that reads a program from a clang object: which one, settings, kernel types."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from netbpf.errors import UsageError
from netbpf.program import SOCKET_VIEW

if TYPE_CHECKING:
    from netbpf.sources.load import ObjectOptions


def add_object_arguments(parser: argparse.ArgumentParser) -> None:
    """``--symbol``, ``--kconfig`` and ``--btf``."""
    group = parser.add_argument_group("clang objects")
    group.add_argument(
        "--symbol",
        "--section",
        default="",
        metavar="NAME",
        help="the program of that symbol or section; also written FILE.o:NAME",
    )
    group.add_argument(
        "--kconfig",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a value of an extern in .kconfig (y, n, m, a number, text)",
    )
    group.add_argument("--btf", default="", metavar="FILE", help="kernel types for CO-RE (default: the running kernel's)")


def object_options(args: argparse.Namespace) -> ObjectOptions:
    """What the arguments say. Raises UsageError."""
    from netbpf.sources.load import ObjectOptions

    settings = {}
    for setting in args.kconfig:
        name, equals, value = setting.partition("=")
        if not name or not equals:
            raise UsageError(f"--kconfig {setting}: write NAME=VALUE")
        settings[name] = value
    return ObjectOptions(args.symbol, settings, args.btf, getattr(args, "view", None) or SOCKET_VIEW)
