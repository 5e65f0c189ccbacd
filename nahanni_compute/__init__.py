"""Run Python tasks in co-located VMs and on their host as if they were one computer.

from nahanni_compute import Client

with Client() as client:
    print(client.gather(client.map(abs, range(-3, 4))))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nahanni_compute.version import __version__ as __version__

if TYPE_CHECKING:
    from nahanni_compute.client import Client as Client
    from nahanni_compute.cluster import LocalCluster as LocalCluster
    from nahanni_compute.future import Future as Future

_WHERE = {"Client": "client", "LocalCluster": "cluster", "Future": "future"}
__all__ = ["Client", "Future", "LocalCluster", "__version__"]


def __getattr__(name: str) -> object:
    """Public names are loaded when first used (PEP 562): every submodule's import runs this file, servers' too."""
    if name in _WHERE:
        from importlib import import_module

        value = getattr(import_module(f"nahanni_compute.{_WHERE[name]}"), name)
    elif name.endswith(("Error", "Died", "Full", "Corrupt", "Mismatch", "Refused", "Device", "Endpoint", "Worker", "Cancelled")):
        from nahanni_compute import errors

        if not hasattr(errors, name):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(errors, name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
