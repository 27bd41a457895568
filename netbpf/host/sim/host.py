"""``SimHost``: a machine of our own, with processes, maps, programs. Needs no privilege and no Linux."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netbpf.abi.caps import ALL_CAPS
from netbpf.env import Env, SystemEnv
from netbpf.errors import UsageError
from netbpf.host.memory import Buffers, UserMemory
from netbpf.host.sim.fdtable import FdTable
from netbpf.host.sim.machine import Machine, Sysctl, Task
from netbpf.host.sim.objects import Console
from netbpf.host.sim.process import SimProcess

if TYPE_CHECKING:
    from netbpf.host.sim.device import NetDevice, Port
    from netbpf.host.sim.network import Network


class SimHost:
    """``env``: its clocks and random numbers. ``n_cpus``: copies of per-CPU values. ``engine``: which engine runs programs
    (None: the best there is). ``unprivileged_bpf_disabled``: the sysctl, 0, 1 or 2. ``memory_bytes``: what all maps together
    may take before ENOMEM."""

    name = "sim"

    def __init__(
        self,
        *,
        env: Env | None = None,
        n_cpus: int = 1,
        engine: str | None = None,
        unprivileged_bpf_disabled: int = 2,
        memory_bytes: int | None = None,
    ) -> None:
        sysctl = Sysctl(unprivileged_bpf_disabled=unprivileged_bpf_disabled)
        self.machine = Machine(env or SystemEnv(), n_cpus, memory_bytes, engine, sysctl)

    def process(
        self,
        *,
        caps: frozenset[str] | None = None,
        memory: UserMemory | None = None,
        uid: int = 0,
        nofile: int = 1024,
        network: Network | None = None,
    ) -> SimProcess:
        """A new process with descriptors 0, 1, 2 open. ``caps`` None means all of them; ``memory`` what its attr addresses mean
        (None: this interpreter's own addresses where the system lets us read them safely, else an empty table of buffers);
        ``network`` the network namespace it lives in (None: the machine's first)."""
        task = Task(
            self.machine,
            ALL_CAPS if caps is None else caps,
            memory or default_memory(),
            FdTable(nofile),
            network,
            uid,
        )
        for _ in range(3):
            task.adopt(Console())
        return SimProcess(task)

    # --- devices ----------------------------------------------------------------------------------------------------------
    def device(self, name: str) -> NetDevice:
        """A device by name; "lo" is always there. Raises BpfError(ENODEV)."""
        return self.machine.network.device(name)

    def add_device(self, name: str, *, mac: bytes | None = None, mtu: int = 1500, filters_mac: bool = False) -> NetDevice:
        """A new Ethernet device, up, as a TAP is; ``filters_mac``: as a network card, which takes no frame for another host
        unless it is promiscuous. Raises BpfError(EEXIST, EINVAL)."""
        return self.machine.network.add_device(name, mac=mac, mtu=mtu, filters_mac=filters_mac)

    def add_pair(
        self, name: str, far: str, *, mtu: int = 1500, network: Network | None = None, far_network: Network | None = None
    ) -> tuple[NetDevice, NetDevice]:  # fmt: skip
        """A veth pair, both ends up, each in the namespace given (None: the machine's first). Raises BpfError(EEXIST, EINVAL)."""
        near = network or self.machine.network
        return near.add_pair(name, far, mtu=mtu, far_network=far_network or self.machine.network)

    def add_network(self) -> Network:
        """A new network namespace with nothing but lo; ``process(network=...)`` lives in it."""
        return self.machine.new_network()

    def step(self, seconds: float) -> None:
        """Move a stepped clock on and let happen what is due: retransmissions, the end of a wait for fragments.

        Raises UsageError where the clock is the real one."""
        from netbpf.env import SteppedEnv

        env = self.machine.env
        if not isinstance(env, SteppedEnv):
            raise UsageError("the clock of this host is the real one: make it with SimHost(env=SteppedEnv())")
        with self.machine.changed:
            until = env.now_ns + round(seconds * 1e9)
            while (due := self.machine.timers.next_ns()) is not None and due <= until:
                env.set_time(max(due, env.now_ns))
                self.machine.timers.run_due()
            env.set_time(until)
            self.machine.changed.notify_all()

    def lab(self, device: str = "tap0", *, mac: bytes | None = None, mtu: int = 9000, kind: str = "tap") -> SimLab:
        """A machine's network of its own with one device (``kind`` tap, veth or lo) and a process in it."""
        return SimLab(self, device, mac, mtu, kind)

    # --- the bpf file system --------------------------------------------------------------------------------------------
    def mkdir(self, path: str) -> None:
        """A directory below /sys/fs/bpf. Raises BpfError."""
        from netbpf.host.sim.pin_commands import make_directory

        make_directory(self.machine, path)

    def unlink(self, path: str) -> None:
        """Remove a pinned name, or the path of an AF_UNIX socket. Raises BpfError."""
        from netbpf.host.sim.pin_commands import unlink

        if self.machine.unix_names.pop(path, None) is not None:
            return
        unlink(self.machine, path)

    # --- what is alive ----------------------------------------------------------------------------------------------------
    def map_ids(self) -> list[int]:
        """Ids of every live map."""
        return sorted(obj.id for obj in self.machine.maps)

    def prog_ids(self) -> list[int]:
        """Ids of every loaded program."""
        return sorted(obj.id for obj in self.machine.progs)


class SimLab:
    """``host.lab.Lab`` on the simulator."""

    def __init__(self, host: SimHost, device: str, mac: bytes | None, mtu: int, kind: str) -> None:
        from netbpf.host.sim.device import Port

        network = self.network = host.machine.new_network()
        self.process = host.process(network=network)
        self.device: NetDevice | Port
        if kind == "lo":
            lo = network.device("lo")
            self.device = Port(lo, lo)
        elif kind == "veth":
            self.device = Port(*network.add_pair(device, f"{device}p"[:15], mac=mac, mtu=mtu))
        else:
            self.device = network.add_device(device, mac=mac, mtu=mtu)

    def add_address(self, address: str) -> None:
        """An address with its prefix ("10.0.0.1/24") on the device. Raises BpfError(EINVAL, EEXIST)."""
        self.network.add_address(address, self.device.name)

    def __enter__(self) -> SimLab:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.exit()


def default_memory() -> UserMemory:
    """Own addresses by the one door to real system calls, where it opens."""
    import sys

    if sys.platform == "linux":
        from netbpf.host.linux.memory import OwnMemory, is_available

        if is_available():
            return OwnMemory()
    return Buffers()
