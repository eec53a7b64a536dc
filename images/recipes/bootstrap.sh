# Installs Debian into ./tree. Run as root, or as root of a user namespace, in mount and PID
# namespaces of its own; the arguments are mmdebstrap's.
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
trap 'status=$?; [ $status = 0 ] || rm -rf tree' EXIT

# Whatever the caller's umask made of them.
chmod -R u=rwX,go=rX before
# The kernel package's own initrd would take longer to make than everything else together.
export INITRD=No
mmdebstrap "$@"
chroot tree dpkg-query -W -f '${Package}=${Version}\n' | sort >out/packages
