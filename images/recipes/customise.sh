# Makes ./tree into a machine: ./out/disk.raw, ./out/kernel, ./out/initrd. Run like bootstrap.sh.
#   ./settings   variables: ENABLE DISABLE MASK INITRD_MODULES DISK_MIB DISK_UUID OWNER
#   ./overlay    files to add, with their modes
#   ./programs   files to add
#   ./debs       trees of packages to make, install and hold
#   ./programs.sha256   sha256sum's list of all programs added
#   ./oci        images to import into containerd, with their names in ./references
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
trap 'status=$?; umount -q tree/run/import tree/run tree/debs tree/proc 2>/dev/null || true; rm -rf --one-file-system tree; exit $status' EXIT
. ./settings
in_tree() { chroot tree "$@"; }

echo "configuring the tree"
# Taken from the building host by mmdebstrap, or made by sshd's package for one machine only.
rm -f tree/etc/hostname tree/etc/ssh/ssh_host_*
# Whatever the caller's umask made of them.
chmod -R u=rwX,go=rX overlay programs
chmod 700 overlay/root/.ssh
chmod 600 overlay/root/.ssh/authorized_keys overlay/etc/ssh/ssh_host_ed25519_key
for added in overlay programs; do
    tar -C $added -c --owner=0 --group=0 . | tar -C tree -x -p --no-overwrite-dir --keep-directory-symlink
done
for unit in $ENABLE; do in_tree systemctl --quiet enable "$unit"; done
for unit in $DISABLE; do in_tree systemctl --quiet disable "$unit"; done
for unit in $MASK; do ln -sfn /dev/null "tree/etc/systemd/system/$unit"; done
# Each generator is a process at every boot, and none has anything to find here.
mkdir -p tree/etc/systemd/system-generators
for generator in tree/usr/lib/systemd/system-generators/*; do
    ln -sfn /dev/null "tree/etc/systemd/system-generators/${generator##*/}"
done
rm -rf tree/var/lib/apt/lists/* tree/var/cache/apt/*.bin tree/var/log/*.log tree/var/log/apt tree/etc/apt/preferences.d/podwire

if [ -n "$(ls debs)" ]; then
    echo "installing the packages"
    chmod -R u=rwX,go=rX debs
    mkdir tree/debs
    mount --bind debs tree/debs
    names=$(cd debs && echo *)
    for name in $names; do
        in_tree dpkg-deb --root-owner-group -Znone --build "/debs/$name"
    done
    in_tree sh -c 'dpkg -i /debs/*.deb'
    in_tree apt-mark hold $names
    held=$(in_tree apt-mark showhold | sort | xargs)
    if [ "$held" != "$names" ]; then
        echo "on hold are: $held; wanted: $names"
        exit 1
    fi
    umount tree/debs
    rmdir tree/debs
fi

if [ -n "$(ls oci)" ]; then
    echo "importing the OCI images"
    mount -t proc proc tree/proc
    mount -t tmpfs tmpfs tree/run
    mkdir tree/run/import
    mount --bind oci tree/run/import
    cat >tree/run/import.toml <<'END'
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "/run/import.sock"
END
    chroot tree containerd --config /run/import.toml --state /run/state >containerd.log 2>&1 &
    daemon=$!
    tries=0
    until in_tree ctr -a /run/import.sock version >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ $tries = 300 ] || ! kill -0 $daemon; then
            cat containerd.log
            exit 1
        fi
        sleep 0.1
    done
    for image in oci/*; do
        # Unpacked they are all that a container needs: the layers would be there twice.
        in_tree ctr -a /run/import.sock -n k8s.io images import --discard-unpacked-layers "/run/import/${image##*/}"
    done
    in_tree ctr -a /run/import.sock -n k8s.io content prune references
    in_tree ctr -a /run/import.sock -n k8s.io images ls -q >imported
    kill $daemon
    wait $daemon || true
    umount tree/run/import
    umount tree/run tree/proc
    missing=$(grep -v -x -F -f imported references || true)
    if [ -n "$missing" ]; then
        echo "after the import containerd lacks the images:" $missing
        exit 1
    fi
    sandbox=$(in_tree containerd config dump | sed -n "s/^ *sandbox_image = [\"']\(.*\)[\"']$/\1/p")
    if ! grep -q -x -F "$sandbox" references; then
        echo "containerd's sandbox_image is $sandbox, and the images are:" $(cat references)
        exit 1
    fi
fi

echo "checking the programs"
(cd tree && sha256sum --quiet --strict -c ../programs.sha256)
if [ -e tree/usr/lib/cni ]; then
    echo "the package containernetworking-plugins is installed: its plugins could be taken for the bundle's"
    exit 1
fi

echo "making the initrd"
kernel=$(cd tree/usr/lib/modules && echo *)
mkdir -p initrd/bin initrd/dev initrd/proc initrd/sys initrd/root initrd/modules
cp tree/usr/bin/busybox initrd/bin/
for applet in sh mount umount insmod cat sleep switch_root poweroff; do ln -s busybox initrd/bin/$applet; done
install -m 755 initrd-init initrd/init
for module in $INITRD_MODULES; do
    in_tree modprobe -S "$kernel" --show-depends "$module"
done | while read -r action file _; do
    [ "$action" = insmod ] || continue
    name=${file##*/}
    name=${name%.xz}
    [ ! -e "initrd/modules/$name" ] || continue
    # Unpacked once here instead of at every boot.
    in_tree busybox xzcat "$file" >"initrd/modules/$name"
    echo "$name" >>initrd/modules/order
done
find initrd -exec touch -h -d @0 {} +
mv initrd tree/initrd
in_tree sh -c 'cd /initrd && find . | LC_ALL=C sort | busybox cpio -o -H newc' >out/initrd
rm -rf tree/initrd
cp "tree/boot/vmlinuz-$kernel" out/kernel
# kubeadm checks how the kernel was built, by its configuration.
find tree/boot -mindepth 1 ! -name "config-*" -delete
rm -rf tree/vmlinuz* tree/initrd.img*

echo "making the file system"
export SOURCE_DATE_EPOCH=0
# Few inodes and a table known to be zero: no guest spends its first minute clearing one.
mke2fs -q -t ext4 -m 0 -i 65536 -U "$DISK_UUID" -E "hash_seed=$DISK_UUID,assume_storage_prezeroed=1" -d tree out/disk.raw "${DISK_MIB}M"
chown -R "$OWNER" out
