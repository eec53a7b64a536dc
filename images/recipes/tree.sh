# Makes ./tree into a machine: ./out/disk.raw, ./out/kernel, ./out/initrd. Run like bootstrap.sh.
#   ./input   what customise.sh reads, and itself
#   ./input/settings   also: DISK_MIB DISK_UUID OWNER
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
trap 'status=$?; umount -q -R tree/run tree/proc 2>/dev/null || true; rm -rf --one-file-system tree; exit $status' EXIT
. ./input/settings

mount -t proc proc tree/proc
mount -t tmpfs tmpfs tree/run
mkdir tree/run/input tree/run/output
mount --bind input tree/run/input
mount --bind out tree/run/output
chroot tree sh /run/input/customise.sh /run/input /run/output
umount tree/run/input tree/run/output
umount tree/run tree/proc

echo "making the file system"
export SOURCE_DATE_EPOCH=0
# Few inodes and a table known to be zero: no guest spends its first minute clearing one.
mke2fs -q -t ext4 -m 0 -i 65536 -U "$DISK_UUID" -E "hash_seed=$DISK_UUID,assume_storage_prezeroed=1" -d tree out/disk.raw "${DISK_MIB}M"
chown -R "$OWNER" out
