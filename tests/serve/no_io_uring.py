"""Becomes the given command in a process to which the kernel refuses io_uring, as containers do.

Usage: no_io_uring.py COMMAND [ARGUMENT...]
"""

import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
RET_ALLOW, RET_EPERM = 0x7FFF0000, 0x00050001
# io_uring_setup, io_uring_enter, io_uring_register: the same numbers on every architecture.
CALLS = (425, 426, 427)


def op(code, yes, no, value):
    return struct.pack("HBBI", code, yes, no, value)


# Load the number of the call; jump to the refusal if it is one of them; allow the rest.
steps = [op(0x20, 0, 0, 0)]
steps += [op(0x15, len(CALLS) - at, 0, call) for at, call in enumerate(CALLS)]
steps += [op(0x06, 0, 0, RET_ALLOW), op(0x06, 0, 0, RET_EPERM)]
code = ctypes.create_string_buffer(b"".join(steps))


class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


program = Program(len(steps), ctypes.cast(code, ctypes.c_void_p))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
    sys.exit(f"no_new_privs: {os.strerror(ctypes.get_errno())}")
if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
    sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")
os.execvp(sys.argv[1], sys.argv[1:])
