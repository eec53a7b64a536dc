//! Signals of a process 1: std has none.

use std::mem::MaybeUninit;

fn set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    #[expect(unsafe_code, reason = "std offers no signal sets")]
    // SAFETY: sigemptyset initialises the whole set; sigaddset then gets valid signal numbers.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGCHLD] {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

/// Keeps SIGTERM, SIGINT and SIGCHLD pending for [`wait_for_end`], in this and every later thread.
pub(crate) fn block() {
    #[expect(unsafe_code, reason = "std offers no signal masks")]
    // SAFETY: the set is initialised and the old mask is not asked for.
    unsafe {
        libc::sigprocmask(libc::SIG_BLOCK, &set(), std::ptr::null_mut());
    }
}

/// Reaps every child that ends, until SIGTERM or SIGINT comes. They must be blocked.
pub(crate) fn wait_for_end() {
    let set = set();
    loop {
        let mut signal = 0;
        #[expect(unsafe_code, reason = "std cannot wait for signals")]
        // SAFETY: both pointers are to live values of the right type.
        let error = unsafe { libc::sigwait(&set, &mut signal) };
        match signal {
            libc::SIGCHLD if error == 0 => reap(),
            libc::SIGTERM | libc::SIGINT if error == 0 => return,
            _ => {}
        }
    }
}

fn reap() {
    #[expect(unsafe_code, reason = "std reaps only children that it started")]
    // SAFETY: a null status pointer is allowed (waitpid(2)).
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
}
