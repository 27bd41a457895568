"""netbpf: Linux socket filtering in user space, as the kernel does it."""

__version__ = "0.1.0"
