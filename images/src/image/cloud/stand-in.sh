# Makes ./cloud.img of Ubuntu's own packages, as the official server image is made (package livecd-rootfs,
# project ubuntu-cpc): its tasks, partitions and labels. What differs: no boot loader is written to the
# disk, since nothing here starts by one; of its settings only those that a machine here could notice are
# made; and a key of the tests signs it. Run like ../../../recipes/bootstrap.sh:
# sh stand-in.sh SUITE SOURCE...
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
trap 'rm -rf --one-file-system tree' EXIT
suite=$1
shift
answer='grub-pc grub-pc/install_devices_empty boolean true'
mmdebstrap --mode=root --variant=important --aptopt='APT::Install-Recommends "true"' \
    --include='minimal^,standard^,cloud-image^,ubuntu-minimal,linux-image-virtual,grub-pc,shim-signed' \
    --dpkgopt=force-unsafe-io --essential-hook="echo '$answer' | chroot \"\$1\" debconf-set-selections" \
    "$suite" tree "$@"
sed -i '/^127.0.1.1/d' tree/etc/hosts
echo ubuntu >tree/etc/hostname
echo LANG=C.UTF-8 >tree/etc/default/locale
echo 'PasswordAuthentication no' >>tree/etc/ssh/sshd_config.d/60-cloudimg-settings.conf
# How it is laid out: numbers, labels and order are those of disk-image-uefi.binary.
cat >tree/etc/fstab <<'END'
LABEL=cloudimg-rootfs	/	 ext4	discard,commit=30,errors=remount-ro	0 1
LABEL=BOOT	/boot	ext4	defaults	0 2
LABEL=UEFI	/boot/efi	vfat	umask=0077	0 1
END
rm -rf tree/etc/ssh/ssh_host_* tree/var/lib/apt/lists/* tree/var/cache/apt/*.bin tree/var/cache/apt/archives/*.deb
mkdir tree/part
truncate -s 3584M tree/part/disk
chroot tree sfdisk -q /part/disk <<'END'
label: gpt
14: start=2048, size=8192, type=21686148-6449-6E6F-744E-656564454649
15: start=10240, size=217088, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
16: start=227328, size=2097152, type=BC13C2FF-59E6-4262-A352-B275FD6F7172
1: start=2324480, size=5013504
END
truncate -s 106M tree/part/uefi
chroot tree mkfs.vfat -F 32 -n UEFI /part/uefi
mv tree/part/disk cloud.raw
mv tree/part/uefi uefi.fat
rmdir tree/part
mkdir boot
mv tree/boot/* boot/
mkdir boot/efi
mke2fs -q -t ext4 -L BOOT -d boot boot.ext4 1024M
rm -rf boot
mke2fs -q -t ext4 -L cloudimg-rootfs -d tree root.ext4 2448M
place() { dd if="$1" of=cloud.raw bs=512 seek="$2" conv=notrunc,sparse status=none; }
place uefi.fat 10240
place boot.ext4 227328
place root.ext4 2324480
rm -f uefi.fat boot.ext4 root.ext4
qemu-img convert -f raw -O qcow2 -c -W -m 4 cloud.raw cloud.img
rm -f cloud.raw
