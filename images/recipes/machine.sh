# Makes the cloud image that has booted a machine of this project, then powers it off. Started by
# cloud-init as sh machine.sh /run/input; what comes out goes to the disk `out`, as a tar archive whose
# last member is `done`.
#   IN/archives  packages to install
#   IN/settings  also: PURGE
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
in=$1
# However this ends, the host is waiting for it.
trap 'status=$?; echo "podwire: customising ended with $status"; sync; poweroff -f' EXIT
. "$in/settings"
out=/run/output
mkdir "$out"

echo "podwire: preparing dpkg"
# Nothing starts before the machine has an identity; nothing is kept when this machine fails.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/podwire
# The image gets an initrd of its own, and nobody reads manuals.
if [ -d /etc/initramfs-tools ]; then echo update_initramfs=no >/etc/initramfs-tools/update-initramfs.conf; fi
rm -f /var/lib/man-db/auto-update

if [ -n "$(ls "$in/archives")" ]; then
    echo "podwire: installing packages"
    # They were resolved and verified on the host: no archive is asked here.
    apt-get -q -y --no-install-recommends -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts=/dev/null \
        -o Dpkg::Use-Pty=0 install "$in"/archives/*.deb
fi

echo "podwire: removing packages"
purge=
for package in $PURGE; do
    if dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^.[^n]'; then purge="$purge $package"; fi
done
if [ -n "$purge" ]; then apt-get -q -y -o Dpkg::Use-Pty=0 purge $purge; fi
rm -rf /etc/cloud /var/lib/cloud /etc/netplan/* /etc/ssh/sshd_config.d/*cloud* /etc/sudoers.d/*cloud*
# A password that nobody has; `!` would also lock out who comes with a key.
usermod -p '*' root

! mountpoint -q /boot/efi || umount /boot/efi
sh "$in/customise.sh" "$in" "$out"
if mountpoint -q /boot; then
    # The mount is no part of the image: /etc/fstab is empty.
    mkdir /run/boot
    cp -a /boot/config-* /run/boot/
    umount /boot
    cp -a /run/boot/. /boot/
fi
dpkg-query -W -f '${Package}=${Version}\n' | sort >"$out/packages"

echo "podwire: cleaning up"
rm -f /usr/sbin/policy-rc.d /etc/dpkg/dpkg.cfg.d/podwire
rm -rf /var/log/journal /var/log/cloud-init* /var/cache/apt/archives/*.deb /tmp/* /var/tmp/* /root/.cache
sync
fstrim /
cd "$out"
: >done
tar -c -f /dev/disk/by-id/virtio-out kernel initrd packages done
