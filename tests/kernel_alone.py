"""Kernels with a network of their own: a notebook takes the workshop's fixed ports there and meets nobody.

Linux only, and only where a user may make a network namespace (`unshare -rn`); elsewhere kernels are as ever.
Such a kernel speaks with its notebook through sockets in a folder, since ports do not leave its namespace.
Run as a program, this file stands inside: it wakes the loopback device and becomes the kernel.
"""

import fcntl
import functools
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

_GET_FLAGS, _SET_FLAGS, _UP = (
    0x8913,
    0x8914,
    0x1,
)  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP of <linux/if.h>
_ALONE = ["unshare", "-rn", sys.executable, str(Path(__file__).resolve())]


class KernelAlone(AsyncKernelManager):
    """Starts a kernel in a network namespace."""

    def _transport_default(self) -> str:
        return "ipc"

    def _ip_default(self) -> str:
        # Directly below the temporary folder: socket paths have to be short.
        return str(Path(tempfile.mkdtemp(prefix="kernel-")) / "socket")

    def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
        """The ordinary command, within the namespace."""
        _python, *arguments = super().format_kernel_cmd(extra_arguments)
        return [*_ALONE, *arguments]

    def cleanup_ipc_files(self) -> None:
        """Remove the sockets with their folder."""
        shutil.rmtree(Path(self.ip).parent, ignore_errors=True)


@functools.cache
def use_where_possible() -> None:
    """Let notebooks that this process executes, nbmake's too, have such kernels."""
    if not shutil.which("unshare"):
        return
    if subprocess.run([*_ALONE, "-c", ""], capture_output=True, timeout=30).returncode:
        return
    # nbmake makes its client itself and hands it no kernel manager: the default is ours.
    NotebookClient._kernel_manager_class_default = lambda self: KernelAlone


def _wake_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        _, flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, _GET_FLAGS, request))
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", b"lo", flags | _UP))


if __name__ == "__main__":
    _wake_loopback()
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
