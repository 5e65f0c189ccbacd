"""The region's server: QEMU's ivshmem protocol, host processes' greetings, membership, commitment of memory (notes in each module).

It runs no user code, unpickles nothing and must not die: VMs that were started on it cannot be given to another.
"""
