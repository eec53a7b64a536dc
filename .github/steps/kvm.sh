#!/usr/bin/env bash
# Lets this user open /dev/kvm, where there is one that does not open. Where it cannot be done the step
# passes: whether guests must run under KVM is decided later, by booting one.
set -u
device=${1:-/dev/kvm}
# It is opened to see: what a mode says of root, or of a container's devices, is not what happens.
if [ ! -e "$device" ] || { true <>"$device"; } 2>/dev/null; then exit 0; fi
if ! command -v sudo >/dev/null || ! command -v udevadm >/dev/null; then
  echo "$device does not open for this user, and there is no sudo or no udev to change that"
  exit 0
fi
{
  echo 'KERNEL=="kvm", GROUP="kvm", MODE="0666", OPTIONS+="static_node=kvm"' |
    sudo -n tee /etc/udev/rules.d/99-kvm.rules &&
    sudo -n udevadm control --reload-rules &&
    sudo -n udevadm trigger --name-match=kvm &&
    sudo -n udevadm settle
} || echo "$device could not be opened for this user"
