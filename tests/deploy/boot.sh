# Makes the folder $1 the root of the namespaces this runs in, and becomes their systemd. For test_systemd.py: unshare -m -p -C -f.
set -e
m=$1
mount --make-rprivate /
mount --bind "$m" "$m"
mount -t proc proc "$m/proc"
for d in run tmp dev; do mount -t tmpfs tmpfs "$m/$d"; done
mount -t sysfs sysfs "$m/sys"
mount -t cgroup2 none "$m/sys/fs/cgroup"
for d in null zero full random urandom tty; do touch "$m/dev/$d"; mount --bind "/dev/$d" "$m/dev/$d"; done
mkdir -p "$m/dev/shm" "$m/dev/pts" "$m/dev/mqueue" "$m/dev/hugepages" "$m/oldroot"
mount -t devpts devpts "$m/dev/pts" -o newinstance,ptmxmode=0666,mode=620
ln -s pts/ptmx "$m/dev/ptmx"
ln -s /proc/self/fd "$m/dev/fd"
cd "$m"
pivot_root . oldroot
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -c \
  'umount -l /oldroot; mount --make-rshared /; exec /lib/systemd/systemd --log-target=console --unit=multi-user.target'
