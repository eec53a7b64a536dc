//! What the end of a terminal means.

use std::fs;

/// Whether whoever started this process wants it to outlive its terminal (nohup(1)): it ignores SIGHUP, as
/// long as nothing here has begun to listen to it.
pub fn hangup_is_ignored() -> bool {
    // Without the file nothing is known: then it is as usual.
    fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores_hangup(&status))
}

/// In the text of proc_pid_status(5).
fn ignores_hangup(status: &str) -> bool {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (libc::SIGHUP - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nohup_is_seen() {
        let status =
            |mask: &str| format!("Name:\txtask\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\n");
        assert!(ignores_hangup(&status("0000000000001001")));
        assert!(!ignores_hangup(&status("0000000000001000")));
        assert!(!ignores_hangup(""));
    }
}
