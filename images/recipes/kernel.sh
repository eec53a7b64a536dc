# Puts the kernel of the packages ./kernel/*.deb, and its modules, in the place of ./tree's own. Run like
# bootstrap.sh. No script of theirs runs: those are for machines with a boot loader.
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
trap 'status=$?; [ $status = 0 ] || rm -rf --one-file-system tree; exit $status' EXIT
umask 022

mkdir -p tree/var/tmp/kernel/packages
cp kernel/*.deb tree/var/tmp/kernel/packages/
# In the tree: it knows every compression, and no link in a package leads out of it.
chroot tree sh -eu <<'END'
cd /var/tmp/kernel
for package in packages/*; do dpkg-deb -x "$package" of; done
kernels=$(ls of/boot 2>/dev/null | sed -n 's/^vmlinuz-//p')
case $kernels in
'') reason='no kernel (/boot/vmlinuz-VERSION)' ;;
*[!A-Za-z0-9.+~_-]*) reason="no single kernel (/boot/vmlinuz-VERSION): $(echo $kernels)" ;;
*) reason= ;;
esac
# One folder on a node, two names for it in packages.
modules=of/usr/lib/modules/$kernels
[ -d "$modules" ] || modules=of/lib/modules/$kernels
if [ -z "$reason" ] && [ ! -d "$modules" ]; then
    reason="the kernel $kernels and not its modules (/lib/modules/$kernels), which some systems have in a package of their own"
fi
if [ -n "$reason" ]; then
    echo "the packages of --kernel have $reason"
    exit 1
fi
rm -rf /usr/lib/modules/* /boot/*
mv "$modules" /usr/lib/modules/
for file in vmlinuz config; do
    if [ -f "of/boot/$file-$kernels" ]; then mv "of/boot/$file-$kernels" /boot/; fi
done
depmod "$kernels"
rm -rf /var/tmp/kernel
END
