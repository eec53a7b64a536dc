# Makes the system that this runs in a machine of this project: a tree, by chroot, or a machine that has
# booted. As root: sh customise.sh IN OUT
#   IN    only read:
#     settings     variables: ENABLE DISABLE MASK INITRD_MODULES
#     overlay      files to add
#     programs     files to add
#     debs         trees of packages to make, install and hold
#     upgrade      trees of packages to make, for whoever upgrades: /opt/upgrade/NAME.deb
#     programs.sha256   sha256sum's list of all programs added
#     oci          images to import into containerd, with their names in IN/references
#     initrd-init  the initrd's first program
#   OUT   gets kernel and initrd
set -eu
# Units are enabled for the next boot, whether this is one or not.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 SYSTEMD_OFFLINE=1
in=$1
out=$2
. "$in/settings"
work=$(mktemp -d /var/tmp/podwire.XXXXXX)

echo "configuring the system"
# Taken from the building host by mmdebstrap, or made by sshd's package for one machine only.
rm -f /etc/hostname /etc/ssh/ssh_host_*
for added in overlay programs; do
    # Modes are those of no caller's umask.
    tar -C "$in/$added" -c --owner=0 --group=0 --mode=u=rwX,go=rX . | tar -C / -x -p --no-overwrite-dir --keep-directory-symlink
done
chmod 700 /root/.ssh
chmod 600 /root/.ssh/authorized_keys /etc/ssh/ssh_host_ed25519_key
for unit in $ENABLE; do systemctl --quiet enable "$unit"; done
for unit in $DISABLE; do systemctl --quiet disable "$unit"; done
for unit in $MASK; do ln -sfn /dev/null "/etc/systemd/system/$unit"; done
# Each generator is a process at every boot, and none has anything to find here.
mkdir -p /etc/systemd/system-generators
for generator in /usr/lib/systemd/system-generators/*; do
    ln -sfn /dev/null "/etc/systemd/system-generators/${generator##*/}"
done
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/*.log /var/log/apt /etc/apt/preferences.d/podwire

# make_packages TREES OUT: OUT/NAME.deb of each TREES/NAME
make_packages() {
    for tree in "$1"/*; do
        name=${tree##*/}
        mkdir "$work/$name"
        tar -C "$tree" -c --mode=u=rwX,go=rX . | tar -C "$work/$name" -x -p
        dpkg-deb --root-owner-group -Znone --build "$work/$name" "$2/$name.deb"
        rm -rf "${work:?}/$name"
    done
}

if [ -n "$(ls "$in/debs")" ]; then
    echo "installing the packages"
    names=$(cd "$in/debs" && echo *)
    make_packages "$in/debs" "$work"
    dpkg -i "$work"/*.deb
    rm "$work"/*.deb
    apt-mark hold $names
    held=$(apt-mark showhold | sort | xargs)
    if [ "$held" != "$names" ]; then
        echo "on hold are: $held; wanted: $names"
        exit 1
    fi
fi

if [ -n "$(ls "$in/upgrade")" ]; then
    echo "making the packages of the upgrade"
    mkdir /opt/upgrade
    make_packages "$in/upgrade" /opt/upgrade
fi

if [ -n "$(ls "$in/oci")" ]; then
    echo "importing the OCI images"
    mkdir /run/import
    # The plugins that would want a network are one in containerd 1.7 and three in 2.
    cat >/run/import/config.toml <<'END'
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]
[grpc]
address = "/run/import/sock"
END
    containerd --config /run/import/config.toml --state /run/import/state >"$work/containerd.log" 2>&1 &
    daemon=$!
    import() { ctr -a /run/import/sock "$@"; }
    tries=0
    until import version >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ $tries = 600 ] || ! kill -0 $daemon; then
            cat "$work/containerd.log"
            exit 1
        fi
        sleep 0.1
    done
    for image in "$in"/oci/*; do
        # Unpacked they are all that a container needs: the layers would be there twice. containerd 2
        # does that for a local import only.
        import -n k8s.io images import --local --discard-unpacked-layers "$image"
    done
    import -n k8s.io content prune references
    import -n k8s.io images ls -q >"$work/imported"
    kill $daemon
    wait $daemon || true
    rm -rf /run/import
    missing=$(grep -v -x -F -f "$work/imported" "$in/references" || true)
    if [ -n "$missing" ]; then
        echo "after the import containerd lacks the images:" $missing
        exit 1
    fi
    # containerd 2 says `sandbox` among its pinned images.
    sandbox=$(containerd config dump | sed -n -E "s/^ *sandbox(_image)? = [\"'](.*)[\"']$/\2/p")
    if ! grep -q -x -F "$sandbox" "$in/references"; then
        echo "containerd's sandbox image is $sandbox, and the images are:" $(cat "$in/references")
        exit 1
    fi
fi

echo "checking the programs"
(cd / && sha256sum --quiet --strict -c "$in/programs.sha256")
if [ -e /usr/lib/cni ]; then
    echo "the package containernetworking-plugins is installed: its plugins could be taken for the bundle's"
    exit 1
fi

echo "making the initrd"
kernel=$(cd /usr/lib/modules && echo *)
initrd=$work/initrd
mkdir -p "$initrd/bin" "$initrd/dev" "$initrd/proc" "$initrd/sys" "$initrd/root" "$initrd/modules"
cp /usr/bin/busybox "$initrd/bin/"
for applet in sh mount umount insmod cat sleep switch_root poweroff; do ln -s busybox "$initrd/bin/$applet"; done
install -m 755 "$in/initrd-init" "$initrd/init"
: >"$initrd/modules/order"
for module in $INITRD_MODULES; do
    modprobe -S "$kernel" --show-depends "$module"
done | while read -r action file _; do
    # What is no module is a part of the kernel.
    [ "$action" = insmod ] || continue
    name=${file##*/}
    # Unpacked once here instead of at every boot.
    case $name in
    *.xz) name=${name%.xz} unpack='busybox xzcat' ;;
    *.zst) name=${name%.zst} unpack='zstd -d -c' ;;
    *) unpack=cat ;;
    esac
    [ ! -e "$initrd/modules/$name" ] || continue
    $unpack "$file" >"$initrd/modules/$name"
    echo "$name" >>"$initrd/modules/order"
done
find "$initrd" -exec touch -h -d @0 {} +
(cd "$initrd" && find . | sort | busybox cpio -o -H newc) >"$out/initrd"
cp "/boot/vmlinuz-$kernel" "$out/kernel"
# kubeadm checks how the kernel was built, by its configuration.
find /boot -mindepth 1 ! -name "config-*" -delete
rm -rf /vmlinuz* /initrd.img* "$work"
