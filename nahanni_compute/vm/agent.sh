# The guest's agent, on the second serial port.
#
#   in   JOB SCRIPT          a line each; SCRIPT in base64, run by /bin/sh in the host's root
#   out  END JOB STATUS OUTPUT    OUTPUT in base64
#
# Jobs run side by side: one may wait for what another does. The shell is busybox's, outside of the host's root.
port=/dev/ttyS1
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/tmp LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1

jobs=/run/jobs
mkdir -p /root$jobs

run() {
    file=$jobs/$1
    echo "$2" | base64 -d > /root$file
    chroot /root /bin/sh $file > /root$file.out 2>&1 < /dev/null
    status=$?
    echo "END $1 $status $(base64 -w0 /root$file.out)" > /root$file.end
    # The kernel keeps one write(2) to a terminal whole, so the answer goes out in one: dd makes one of a block.
    dd if=/root$file.end bs=64M 2> /dev/null >&3
    rm /root$file /root$file.out /root$file.end
}

stty -F $port raw -echo
exec 3<> $port
echo "READY" >&3
while read -r job script <&3; do
    # Not our child but init's: the end of one of ours would interrupt `read`, which then forgets half a line.
    (run "$job" "$script" &)
done
