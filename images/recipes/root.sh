# Copies the network tools of ./tree with all that they load to ./out/root.tar, the root of the images
# of kube-proxy and flanneld. Run like bootstrap.sh.
#   ./input/settings   variables: OWNER
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
# Only root can remove what is root's: the caller may have come by sudo.
trap 'status=$?; rm -rf --one-file-system root; [ $status = 0 ] || rm -rf --one-file-system tree; exit $status' EXIT
umask 022
. ./input/settings

libraries=usr/lib/x86_64-linux-gnu
loader=/lib64/ld-linux-x86-64.so.2
mkdir -p root/usr/bin root/usr/sbin root/usr/lib64 root/$libraries root/etc
for folder in bin sbin lib lib64; do ln -s usr/$folder root/$folder; done
cp tree/usr/bin/kmod root/usr/bin/
for program in conntrack ipset nft xtables-nft-multi; do cp tree/usr/sbin/$program root/usr/sbin/; done
cp -r tree/$libraries/xtables root/$libraries/
cp tree/etc/protocols tree/etc/services root/etc/
ln -s ../bin/kmod root/usr/sbin/modprobe
for name in iptables ip6tables; do
    for verb in '' -save -restore; do
        # Two kinds of rules on one node would not see each other.
        chosen=$(chroot tree readlink -f /usr/sbin/$name$verb)
        if [ "$chosen" != /usr/sbin/xtables-nft-multi ]; then
            echo "$name$verb is $chosen on the node, not the kind that writes nftables rules"
            exit 1
        fi
        ln -s xtables-nft-multi root/usr/sbin/$name$verb
    done
done

# kmod loads its decompressor by name, when it needs it.
cp -L tree/$libraries/liblzma.so.5 root/$libraries/
cp -L tree$loader root/usr/lib64/
(cd root && find usr/bin usr/sbin usr/lib -type f) >files
sed 's,^,/,' files | xargs chroot tree ldd >loads
awk '$2 == "=>" { print $1, $3 }' loads | sort -u | while read -r name path; do
    if [ "$path" = not ]; then
        echo "the library $name is not found"
        exit 1
    fi
    cp -L "tree$path" root/$libraries/
done

while read -r file; do
    chroot root $loader --list "/$file" >loads
    if grep 'not found' loads; then
        echo "/$file of the images' root lacks it"
        exit 1
    fi
done <files
# Only these start without asking the kernel, which a user namespace may not.
for program in ip6tables-restore iptables-restore iptables-save modprobe nft; do
    chroot root /usr/sbin/$program --version
done
chroot root /usr/sbin/iptables --version | grep nf_tables

(cd root && tar -c --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --format=ustar -- *) >out/root.tar
chown "$OWNER" out/root.tar
