# Packs ./tree as ./out/root.tar, the root of a container image over Debian's packages. Run like bootstrap.sh.
#   ./input/settings   variables: OWNER
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
# Only root can remove what is root's: the caller may have come by sudo.
trap 'status=$?; rm -rf --one-file-system tree; exit $status' EXIT
. ./input/settings

# Two kinds of rules on one node would not see each other.
[ ! -e tree/usr/sbin/iptables ] || chroot tree /usr/sbin/iptables --version | grep nf_tables
# Daemons add lines to it where it was before Debian 13 (iproute2, "rt_tables").
mkdir -p tree/etc/iproute2
[ -e tree/etc/iproute2/rt_tables ] || cp tree/usr/share/iproute2/rt_tables tree/etc/iproute2/
# What only a machine has a use for, or apt.
rm -rf tree/boot tree/var/cache tree/var/lib/apt tree/var/lib/dpkg tree/var/log tree/usr/lib/apt tree/usr/share/zoneinfo
(cd tree && tar -c --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --format=ustar \
    --exclude='./dev/*' --exclude='./proc/*' --exclude='./run/*' --exclude='./sys/*' --exclude='./tmp/*' -- ./*) >out/root.tar
chown "$OWNER" out/root.tar
