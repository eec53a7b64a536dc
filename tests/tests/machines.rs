//! Machines, clones, guests and faults on real QEMU.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use podwire_tests::{Frozen, Setup, address};
use podwire_vm::accelerator::{VerdictKey, cached_verdict, judge, store_verdict};
use podwire_vm::keys::ssh_key_pair;
use podwire_vm::{
    ExitStatus, FaultKind, Guest, GuestError, Machine, MachineSpec, Ram, SshCredentials, SshError,
    SshSession, VmError,
};

/// For short commands in a guest that may be emulated.
const LIMIT: Duration = Duration::from_secs(60);

/// "At once", with room for a busy host; time-outs are far longer.
const AT_ONCE: Duration = Duration::from_secs(10);

fn setup() -> Setup {
    Setup::from_env(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

async fn ping(guest: &Guest, to: &str) -> bool {
    let command = format!("ping -c 1 -W 5 {to}");
    guest.run(&command, LIMIT).await.unwrap().status.success()
}

async fn read(guest: &Guest, path: &str) -> String {
    let text = guest.run_ok(&format!("cat {path}"), LIMIT).await.unwrap();
    text.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clones_at_once_share_neither_memory_nor_disk_nor_segment() {
    let setup = setup();
    let frozen = Frozen::of_this_run(&setup).await.unwrap();
    let scratch = setup.scratch().unwrap();
    let clone = async |name: &str| {
        let pair = frozen
            .clone_in(&setup, &scratch.path().join(name))
            .await
            .unwrap();
        let guest = pair.guest(1).await.unwrap();
        (pair, guest)
    };
    let ((pair_a, a), (pair_b, b)) = tokio::join!(clone("a"), clone("b"));
    for (guest, nonce) in [(&a, "of-a"), (&b, "of-b")] {
        assert_eq!(read(guest, "/run/mark").await, "frozen-1");
        assert_eq!(read(guest, "/root/mark").await, "frozen-1");
        let command = format!("echo {nonce} | tee /run/mark > /root/mark && sync");
        guest.run_ok(&command, LIMIT).await.unwrap();
    }
    for (guest, nonce) in [(&a, "of-a"), (&b, "of-b")] {
        assert_eq!(read(guest, "/run/mark").await, nonce);
        assert_eq!(read(guest, "/root/mark").await, nonce);
    }

    let random = async |guest: &Guest| {
        let command = "od -An -tx1 -N16 /dev/urandom";
        guest.run_ok(command, LIMIT).await.unwrap()
    };
    assert_ne!(
        random(&a).await,
        random(&b).await,
        "the kernels share their random state"
    );

    // The same address is another machine on either segment.
    assert!(ping(&a, &address(2).to_string()).await);
    pair_a.cut(2).unwrap();
    assert!(!ping(&a, &address(2).to_string()).await);
    assert!(ping(&b, &address(2).to_string()).await);
    pair_a.kill().await;
    assert!(ping(&b, &address(2).to_string()).await);
    pair_b.kill().await;

    // What a stage holds never changes: a third clone finds it as it was.
    let (pair, guest) = clone("c").await;
    assert_eq!(read(&guest, "/run/mark").await, "frozen-1");
    assert_eq!(read(&guest, "/root/mark").await, "frozen-1");
    pair.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_made_30_days_later_stays_at_the_time_of_its_freeze_through_a_reboot() {
    let setup = setup();
    let frozen = Frozen::of_this_run(&setup).await.unwrap();
    let scratch = setup.scratch().unwrap();
    let format = time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    let now = time::OffsetDateTime::now_utc() + time::Duration::days(30);
    let now = now.format(format).unwrap();
    let started = Instant::now();
    let pair = frozen
        .clone_on_a_host_at(&setup, scratch.path(), Some(&now))
        .await
        .unwrap();
    let guest = pair.guest(2).await.unwrap();
    let number = async |guest: &Guest, command: &str| -> u64 {
        let text = guest.run_ok(command, LIMIT).await.unwrap();
        text.trim().parse().unwrap()
    };
    // Written right before the freeze.
    let frozen_at = number(&guest, "stat -c %Y /run/mark").await;
    let passed = async |guest: &Guest| {
        let passed = number(guest, "date +%s").await.checked_sub(frozen_at);
        Duration::from_secs(passed.unwrap())
    };
    let slack = Duration::from_secs(60);
    let before = passed(&guest).await;
    assert!(before < started.elapsed() + slack, "{before:?}");

    let boot_id = "/proc/sys/kernel/random/boot_id";
    let first_boot = read(&guest, boot_id).await;
    // The guest may end before the answer does.
    let _ = guest.run("systemctl reboot", LIMIT).await;
    let limit = Duration::from_secs(300);
    guest.booted_again(&first_boot, limit).await.unwrap();
    let after = passed(&guest).await;
    assert!(after >= before, "{after:?} after {before:?}");
    assert!(after < started.elapsed() + slack, "{after:?}");
    pair.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_find_each_other_by_dhcp_and_dns_and_a_cut_cable_parts_them() {
    let setup = setup();
    let frozen = Frozen::of_this_run(&setup).await.unwrap();
    let scratch = setup.scratch().unwrap();
    let pair = frozen.clone_in(&setup, scratch.path()).await.unwrap();
    let guest = pair.guest(1).await.unwrap();
    let addresses = guest.run_ok("ip -4 -o addr show", LIMIT).await.unwrap();
    assert!(
        addresses.contains(&format!("{}/24", address(1))),
        "{addresses}"
    );
    assert!(ping(&guest, "172.30.0.1").await, "the gateway is silent");
    assert!(ping(&guest, "node2").await, "node2 is silent");

    let cut = pair.cut(2).unwrap();
    assert!(!ping(&guest, &address(2).to_string()).await);
    assert!(ping(&guest, "172.30.0.1").await, "the wrong cable was cut");
    for rule in cut {
        pair.segment.rules().heal(rule).unwrap();
    }
    assert!(
        ping(&guest, &address(2).to_string()).await,
        "the cable was not mended"
    );
    pair.kill().await;
}

/// Frozen in full flow: see `freeze_a_pair`.
#[tokio::test(flavor = "multi_thread")]
async fn a_clone_takes_up_the_conversation_cleanly_each_time() {
    let setup = setup();
    let frozen = Frozen::of_this_run(&setup).await.unwrap();
    let scratch = setup.scratch().unwrap();
    for n in 0..5 {
        let dir = scratch.path().join(n.to_string());
        let pair = frozen.clone_in(&setup, &dir).await.unwrap();
        let resumed = Instant::now();
        let guests = tokio::join!(pair.guest(1), pair.guest(2));
        eprintln!("clone {n}: both answer after {:?}", resumed.elapsed());
        for guest in [guests.0.unwrap(), guests.1.unwrap()] {
            let left = guest.run("pgrep -x 'yes|cat'", LIMIT).await.unwrap();
            assert_eq!(
                (left.status, left.stdout.as_str()),
                (ExitStatus::Code(1), "")
            );
        }
        pair.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_a_network_is_reached_all_the_same() {
    let setup = setup();
    let frozen = Frozen::of_this_run(&setup).await.unwrap();
    let scratch = setup.scratch().unwrap();
    let pair = frozen.clone_in(&setup, scratch.path()).await.unwrap();
    let guest = pair.guest(1).await.unwrap();
    pair.machine(1).set_link(false).await.unwrap();
    let carrier = "until [ \"$(cat /sys/class/net/eth0/carrier)\" = 0 ]; do sleep 0.2; done";
    guest.run_ok(carrier, LIMIT).await.unwrap();
    assert!(!ping(&guest, "172.30.0.1").await, "its link is up");
    guest
        .write("/run/far", b"away", 0o600, LIMIT)
        .await
        .unwrap();
    assert_eq!(read(&guest, "/run/far").await, "away");

    // What its journal gets is there as it is written.
    let (seen, mut lines) = tokio::sync::mpsc::unbounded_channel();
    let follow = guest.follow("journalctl -f -n 0 -o cat -t far", LIMIT, |line| {
        let _ = seen.send(line.to_owned());
    });
    let write = async {
        // journalctl takes a while until it listens.
        while lines.try_recv().is_err() {
            guest
                .run_ok("systemd-cat -t far echo away", LIMIT)
                .await
                .unwrap();
        }
    };
    tokio::select! {
        ended = follow => panic!("{ended:?}"),
        () = write => {}
    }

    pair.machine(1).set_link(true).await.unwrap();
    let back = "until ping -c 1 -W 1 172.30.0.1; do sleep 0.2; done";
    guest.run_ok(back, LIMIT).await.unwrap();
    pair.kill().await;
}

/// The same facts for every image, whatever it was made of: what all else relies on.
#[tokio::test(flavor = "multi_thread")]
async fn the_image_is_what_its_manifest_says() {
    let setup = setup();
    let frozen = Frozen::of_this_run(&setup).await.unwrap();
    let scratch = setup.scratch().unwrap();
    let pair = frozen.clone_in(&setup, scratch.path()).await.unwrap();
    let guest = pair.guest(1).await.unwrap();
    let said = &setup.manifest;
    let out = async |command: &str| -> String {
        let text = guest.run_ok(command, LIMIT).await.unwrap();
        text.trim().to_owned()
    };

    // Anything else names what failed, or still starts.
    assert_eq!(out("systemctl --failed --no-legend --plain").await, "");
    assert_eq!(out("systemctl is-system-running --wait").await, "running");
    assert_eq!(
        out("systemctl is-active ssh.service systemd-networkd.service").await,
        "active\nactive"
    );
    assert_eq!(out("ls -x /sys/class/net | xargs").await, "eth0 lo");
    assert_eq!(
        out("cut -d ' ' -f 1,2 /etc/ssh/ssh_host_ed25519_key.pub").await,
        said.ssh_host_key
            .split(' ')
            .take(2)
            .collect::<Vec<_>>()
            .join(" ")
    );
    assert_eq!(out("ls /etc/ssh | grep -c 'ssh_host_.*_key$'").await, "1");
    assert_eq!(out("ls /usr/lib/modules").await, out("uname -r").await);
    assert_eq!(
        out("sha256sum /usr/local/bin/probe | cut -d ' ' -f 1").await,
        said.probe_sha256
    );
    assert_eq!(
        out("dpkg-query -W -f '${db:Status-Abbrev}\n' | grep -vc '^.i'; true").await,
        "0",
        "packages that are half there, or removed and not purged"
    );
    // The bundle's packages come after the list was made, or before: they are on hold.
    let held: usize = out("apt-mark showhold | wc -l").await.parse().unwrap();
    let installed: usize = out("dpkg-query -W | wc -l").await.parse().unwrap();
    let debian = said.from == "debian";
    assert_eq!(installed, said.packages + if debian { held } else { 0 });
    let kubernetes = "cri-tools kubeadm kubectl kubelet kubernetes-cni";
    let wanted = if said.kubernetes.is_some() {
        kubernetes
    } else {
        ""
    };
    assert_eq!(out("apt-mark showhold | sort | xargs").await, wanted);
    if said.kubernetes.is_some() {
        assert_eq!(
            out("systemctl is-enabled containerd; true").await,
            "disabled"
        );
        out("containerd --version").await;
        // Each class of nodes has a configuration that containerd understands, and what it names.
        let dump = async |config: &str| {
            out(&format!(
                "containerd --config /etc/containerd/{config}.toml config dump"
            ))
            .await
        };
        let (usual, emulated) = (dump("config").await, dump("emulated").await);
        assert!(usual.contains("SystemdCgroup = true") && !usual.contains("crun"));
        assert!(emulated.contains("SystemdCgroup = true"));
        assert_eq!(emulated.contains("/usr/bin/crun"), debian, "{emulated}");
        out("runc --version").await;
        if debian {
            out("/usr/bin/crun --version").await;
        }
    }
    let disk: u64 = out("cat /sys/class/block/vda/size").await.parse().unwrap();
    assert_eq!(disk / 2048, said.disk_mib);
    // Inodes take little of it, but a cloud image has a boot partition of a gibibyte.
    let percent = if debian { 80 } else { 75 };
    let root: u64 = out("df --output=size -m / | tail -n 1")
        .await
        .parse()
        .unwrap();
    assert!(
        root > said.disk_mib * percent / 100,
        "{root} MiB of {}",
        said.disk_mib
    );
    assert_eq!(
        out("which cloud-init snap; ls -d /etc/cloud /var/lib/cloud; true").await,
        ""
    );
    // Asked of nobody but the machine itself and the gateway.
    assert_eq!(out("cat /etc/resolv.conf").await, "nameserver 172.30.0.1");
    assert_eq!(
        out("systemctl list-units --type timer --state active --no-legend --plain").await,
        "",
        "something would start by itself"
    );
    assert_eq!(out("ls /var/lib/apt/lists | wc -l").await, "0");
    pair.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_in_a_guest_tell_all_about_their_end() {
    let setup = setup();
    let frozen = Frozen::of_this_run(&setup).await.unwrap();
    let scratch = setup.scratch().unwrap();
    let pair = frozen.clone_in(&setup, scratch.path()).await.unwrap();
    let guest = pair.guest(1).await.unwrap();

    let done = guest
        .run("echo out; echo err >&2; exit 3", LIMIT)
        .await
        .unwrap();
    assert_eq!(done.status, ExitStatus::Code(3));
    assert_eq!(
        (done.stdout.as_str(), done.stderr.as_str()),
        ("out\n", "err\n")
    );
    let killed = guest.run("kill -TERM $$", LIMIT).await.unwrap();
    assert_eq!(killed.status, ExitStatus::Signal("TERM".to_owned()));
    let error = guest
        .run_ok("echo why >&2; false", LIMIT)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("exit status 1") && error.contains("why"),
        "{error}"
    );

    // More than the agent's window: sending it waits for the reader.
    let long = vec![b'x'; 3_000_000];
    let counted = guest.run_with_input("wc -c", &long, LIMIT).await.unwrap();
    assert_eq!(counted.stdout.trim(), "3000000");
    let unread = guest.run_with_input("true", &long, LIMIT).await.unwrap();
    assert!(unread.status.success(), "{unread}");
    let path = "/root/new/it's a file";
    guest.write(path, b"content\n", 0o640, LIMIT).await.unwrap();
    let stat = guest
        .run_ok("stat -c '%a %s' \"/root/new/it's a file\"", LIMIT)
        .await
        .unwrap();
    assert_eq!(stat.trim(), "640 8");

    let started = Instant::now();
    let slow = "echo begun; echo $$ > /run/slow; exec sleep 600";
    let error = guest.run(slow, Duration::from_secs(5)).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5) + AT_ONCE);
    let GuestError::TimedOut { output, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(output.stdout, "begun\n");
    let gone = guest
        .run("sleep 1; ! kill -0 $(cat /run/slow)", LIMIT)
        .await
        .unwrap();
    assert!(
        gone.status.success(),
        "a command outlived its limit: {gone}"
    );

    let sleepers: Vec<_> = (0..12)
        .map(|n| {
            let guest = guest.clone();
            tokio::spawn(async move { guest.run_ok(&format!("sleep 3; echo {n}"), LIMIT).await })
        })
        .collect();
    let started = Instant::now();
    for (n, sleeper) in sleepers.into_iter().enumerate() {
        assert_eq!(sleeper.await.unwrap().unwrap(), format!("{n}\n"));
    }
    assert!(
        started.elapsed() < Duration::from_secs(12 * 3),
        "one after the other"
    );

    let host_key = read(&guest, "/etc/ssh/ssh_host_ed25519_key.pub").await;
    let user_key = std::fs::read_to_string(std::env::var("PODWIRE_SSH_KEY").unwrap()).unwrap();
    let other = ssh_key_pair("other").unwrap();
    let connect = async |private: &str, host: &str| {
        let gateway = pair.segment.gateway();
        let to = std::net::SocketAddrV4::new(address(1), 22);
        let stream = gateway.connect(to, LIMIT).await.unwrap();
        let credentials = SshCredentials::new(private, host).unwrap();
        SshSession::open(stream, &credentials, LIMIT).await
    };
    connect(&user_key, &host_key).await.unwrap();
    let stranger = connect(&user_key, &other.public).await.unwrap_err();
    assert!(matches!(stranger, SshError::HostKey { .. }), "{stranger}");
    let denied = connect(&other.private, &host_key).await.unwrap_err();
    assert!(matches!(denied, SshError::Denied), "{denied}");

    let limit = Duration::from_secs(120);
    pair.machine(1).power_off(limit).await.unwrap();
    assert_eq!(pair.machine(1).fault(), None, "an orderly end is no fault");
    pair.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_panic_and_a_killed_qemu_are_faults_at_once() {
    let setup = setup();
    let frozen = Frozen::of_this_run(&setup).await.unwrap();
    let scratch = setup.scratch().unwrap();
    let pair = frozen.clone_in(&setup, scratch.path()).await.unwrap();
    let panicking = pair.guest(1).await.unwrap();
    let command =
        "echo 1 > /proc/sys/kernel/sysrq; sleep 1; echo c > /proc/sysrq-trigger; sleep 600";
    let started = Instant::now();
    let error = panicking
        .run(command, Duration::from_secs(300))
        .await
        .unwrap_err();
    let GuestError::Fault { fault, .. } = &error else {
        panic!("{error}");
    };
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(
        fault.kind,
        FaultKind::Panic {
            message: "Kernel panic - not syncing: sysrq triggered crash".to_owned()
        }
    );
    assert!(
        fault
            .console
            .iter()
            .any(|line| line.contains("Kernel panic")),
        "{fault}"
    );
    assert_eq!(pair.machine(1).fault().as_ref(), Some(fault.as_ref()));

    assert_eq!(pair.machine(2).fault(), None);
    let guest = pair.guest(2).await.unwrap();
    let waiting =
        tokio::spawn(async move { guest.run("sleep 600", Duration::from_secs(300)).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    signal(pair.machine(2), rustix::process::Signal::ABORT);
    let started = Instant::now();
    let fault = pair.machine(2).faulted().await;
    let error = waiting.await.unwrap().unwrap_err();
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    assert!(matches!(error, GuestError::Fault { .. }), "{error}");
    let FaultKind::Exited { status, .. } = &fault.kind else {
        panic!("{fault}");
    };
    assert!(status.contains("SIGABRT"), "{status}");
    let error = pair.machine(2).pause().await.unwrap_err();
    assert!(matches!(error, VmError::Fault { .. }), "{error}");
    pair.kill().await;
}

fn signal(machine: &Machine, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(machine.pid().cast_signed()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_or_be_frozen_says_why() {
    let setup = setup();
    let scratch = setup.scratch().unwrap();
    let launch = async |spec: MachineSpec, dir: &str| {
        let dir = scratch.path().join(dir);
        Machine::launch(&setup.spawner, &setup.qemu, spec, Vec::new(), &dir).await
    };
    let waiting = || MachineSpec {
        disk: None,
        incoming: true,
        ..setup.machine("alone", "unused".into(), Ram::Anonymous)
    };

    let strange = MachineSpec {
        cpu_model: "no-such-cpu".to_owned(),
        ..waiting()
    };
    let started = Instant::now();
    let error = launch(strange, "strange").await.unwrap_err().to_string();
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    assert!(
        error.contains("no-such-cpu"),
        "QEMU's words are missing: {error}"
    );

    let missing = MachineSpec {
        kernel: scratch.path().join("nowhere"),
        ..waiting()
    };
    let error = launch(missing, "missing").await.unwrap_err();
    assert!(matches!(error, VmError::Missing { .. }), "{error}");

    let machine = launch(waiting(), "anonymous").await.unwrap();
    let state = scratch.path().join("state");
    let error = machine.save(&state).await.unwrap_err();
    assert!(matches!(error, VmError::NotATemplate { .. }), "{error}");
    std::fs::write(&state, "no device state").unwrap();
    let error = machine.load(&state).await.unwrap_err().to_string();
    assert!(error.contains("alone"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_accelerator_is_judged_by_a_guest_and_the_verdict_kept() {
    let setup = setup();
    let scratch = setup.scratch().unwrap();
    let dir = scratch.path();
    let key = VerdictKey::here(&setup.spawner, &setup.qemu, &setup.image.kernel).unwrap();
    let verdict = judge(&setup.spawner, &setup.qemu, &setup.image, dir)
        .await
        .unwrap();
    eprintln!("{verdict:?}");
    assert_eq!(verdict.accelerator, setup.accelerator, "{}", verdict.reason);
    assert!(verdict.boot_seconds > 0.1, "{verdict:?}");
    store_verdict(dir, &key, &verdict).unwrap();
    assert_eq!(cached_verdict(dir, &key), Some(verdict));
}

#[test]
fn no_qemu_outlives_its_owner() {
    let setup = setup();
    let scratch = setup.scratch().unwrap();
    let mut owner = Command::new(env!("CARGO_BIN_EXE_podwire-tests-owner"))
        .args([&setup.qemu, &setup.image.kernel])
        .arg(scratch.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pid = String::new();
    BufReader::new(owner.stdout.take().unwrap())
        .read_line(&mut pid)
        .unwrap();
    let pid = pid.trim();
    assert!(lives(pid), "the owner started no QEMU: {pid:?}");
    // SIGKILL: the owner can do nothing about it.
    owner.kill().unwrap();
    owner.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(2);
    while lives(pid) {
        assert!(Instant::now() < deadline, "QEMU {pid} outlived its owner");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn lives(pid: &str) -> bool {
    // A zombie waits only for whoever inherited it.
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.is_ok_and(|stat| stat.contains("qemu") && !stat.contains(") Z "))
}
