"""What a client can say of the cluster, read from the slots: frozen, and plain to look at in a notebook."""

from __future__ import annotations

from dataclasses import dataclass

from nahanni_compute._native import Region
from nahanni_compute.region.layout import slot_word
from nahanni_compute.region.slots import Identity, keeper_of, members


@dataclass(frozen=True)
class WorkerInfo:
    """One worker: where it runs, and how it reaches the region."""

    host: str
    pid: int
    substrate: str
    threads: int


@dataclass(frozen=True)
class SchedulerInfo:
    """The scheduler's host and pid, and the workers by name."""

    host: str
    pid: int
    substrate: str
    region_bytes: int
    workers: dict[str, WorkerInfo]


@dataclass(frozen=True)
class EndpointStatistics:
    """What one endpoint counted since it joined, as of its pump's last turn (250 ms at most)."""

    role: str
    rings: int  # doorbells it rang
    sleeps: int  # blocks it began
    wakes: int  # blocks that a doorbell ended
    rescues: int  # work found by a block that timed out: a doorbell was missing or late


@dataclass(frozen=True)
class Statistics:
    """Name -> counters, of every endpoint that is alive. Two of the same name are told apart by their slot."""

    endpoints: dict[str, EndpointStatistics]


def named(found: list[Identity]) -> dict[str, Identity]:
    """By name; those of a name that another has are told apart by their slot."""
    result: dict[str, Identity] = {}
    for member in found:
        result[member.name if member.name not in result else f"{member.name}@{member.key.slot}"] = member
    return result


def scheduler_info(region: Region) -> SchedulerInfo:
    """Who is there."""
    all_members = members(region)
    keeper = keeper_of(region)
    scheduler = next((m for m in all_members if keeper is not None and m.key.slot == keeper[0]), None)
    of_workers = named([m for m in all_members if m.role == "worker"])
    workers = {name: WorkerInfo(m.host, m.pid, m.substrate, m.threads) for name, m in of_workers.items()}
    if scheduler is None:
        return SchedulerInfo("", 0, "", region.size, workers)
    return SchedulerInfo(scheduler.host, scheduler.pid, scheduler.substrate, region.size, workers)


def statistics(region: Region) -> Statistics:
    """Every endpoint's counters."""
    counting = [m for m in members(region) if m.role != "server"]  # it has no pump, and counts nothing
    return Statistics({name: _counters(region, member) for name, member in named(counting).items()})


def _counters(region: Region, member: Identity) -> EndpointStatistics:
    rings, sleeps, wakes, rescues = (region.load(slot_word(member.key.slot, field)) for field in ("rings", "sleeps", "wakes", "rescues"))
    return EndpointStatistics(member.role, rings, sleeps, wakes, rescues)
