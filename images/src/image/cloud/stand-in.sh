# Makes ./cloud.img out of Debian: as Ubuntu 24.04's cloud images are, with cloud-init, netplan,
# partitions (the root, which is the last one on the disk, has number 1; /boot apart) and labels. Run like
# ../../../recipes/bootstrap.sh; the arguments are Debian's sources.
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
trap 'rm -rf --one-file-system tree' EXIT
# A server that nobody wants on a node: purged like Ubuntu's.
packages=cloud-init,cloud-guest-utils,dbus,fdisk,initramfs-tools,linux-image-amd64,netplan.io,openssh-server,systemd-resolved,systemd-sysv,systemd-timesyncd,udev,unattended-upgrades,e2fsprogs,zstd
mmdebstrap --mode=root --variant=apt --include=$packages \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt=force-unsafe-io trixie tree "$@"
echo 'datasource_list: [ NoCloud, None ]' >tree/etc/cloud/cloud.cfg.d/90_dpkg.cfg
cat >tree/etc/fstab <<'END'
LABEL=cloudimg-rootfs / ext4 defaults 0 1
LABEL=BOOT /boot ext4 defaults 0 2
END
rm -f tree/etc/ssh/ssh_host_*
mkdir boot
mv tree/boot/* boot/
mke2fs -q -t ext4 -L BOOT -d boot boot.ext4 200M
rm -rf tree/var/lib/apt/lists/* tree/var/cache/apt/*.bin tree/var/cache/apt/archives/*.deb
mkdir tree/part
truncate -s 2302M tree/part/disk
chroot tree sfdisk -q /part/disk <<'END'
label: gpt
16: start=2048, size=409600
1: start=411648, size=4300800
END
mv tree/part/disk cloud.raw
rmdir tree/part
mke2fs -q -t ext4 -L cloudimg-rootfs -d tree root.ext4 2100M
dd if=boot.ext4 of=cloud.raw bs=1M seek=1 conv=notrunc,sparse status=none
dd if=root.ext4 of=cloud.raw bs=1M seek=201 conv=notrunc,sparse status=none
rm -f boot.ext4 root.ext4
qemu-img convert -f raw -O qcow2 -c cloud.raw cloud.img
rm -f cloud.raw
