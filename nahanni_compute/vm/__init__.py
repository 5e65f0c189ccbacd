"""Guests: a kernel, an initramfs and QEMU, on the server's region."""
