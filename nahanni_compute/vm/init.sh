#!/bin/busybox sh
# The guest's init. Every command is busybox's own: its shell starts itself anew as what is asked for, by /proc/self/exe.
#
# The guest sees the host's root, read-only, so that every path of the host is the same path here: the Python that
# started it, its packages, a checkout. Writable are /run, /tmp and /dev/shm, and they are the guest's own.
/bin/busybox mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev

name=guest keep=
for word in $(cat /proc/cmdline); do
    case $word in
    nahanni.name=*) name=${word#*=} ;;
    nahanni.keep=*) keep=$(echo "${word#*=}" | base64 -d) ;;
    esac
done
hostname "$name"
ip link set lo up

for module in $(cat /modules/order); do
    insmod "/modules/$module" || echo "nahanni: no $module"
done

# cache=loose: the one setting with bearable import times. The host's files must not change while a guest runs.
mount -t 9p -o trans=virtio,version=9p2000.L,msize=1048576,cache=loose,ro root /root || {
    echo "nahanni: no root over 9p"
    poweroff -f
}

# Paths (one a line) that the guest's own mounts would hide: held aside here, put back below.
count=0
echo "$keep" | while read -r path; do
    [ -n "$path" ] && [ -d "/root$path" ] || continue
    count=$((count + 1))
    mkdir "/keep/$count"
    mount --bind "/root$path" "/keep/$count"
    echo "$path" > "/keep/$count.path"
done

mount -t proc proc /root/proc
mount -t sysfs sys /root/sys
mount -t devtmpfs dev /root/dev
mkdir -p /root/dev/shm /root/dev/pts
mount -t devpts pts /root/dev/pts
mount -t tmpfs -o mode=1777 shm /root/dev/shm
mount -t tmpfs -o mode=1777 tmp /root/tmp
mount -t tmpfs -o mode=0755 run /root/run

for folder in /keep/*.path; do
    [ -f "$folder" ] || continue
    path=$(cat "$folder")
    mkdir -p "/root$path"
    mount --move "${folder%.path}" "/root$path"
done

# The cluster's key comes from the hypervisor, never through the region. Group-readable from its first moment, by
# nobody else ever.
key=/sys/firmware/qemu_fw_cfg/by_name/opt/nahanni/key/raw
if [ -e $key ]; then
    mkdir -p /root/run/nahanni
    (umask 0337 && cat $key > /root/run/nahanni/key)
fi

echo "nahanni: $name is up after $(cut -d' ' -f1 /proc/uptime) s"
/bin/busybox sh /agent
poweroff -f
