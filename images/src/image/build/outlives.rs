//! What a step through sudo leaves when its run is killed.

use std::thread;
use std::time::Instant;

use podwire_process::Spawner;

use super::super::inquiry::tests::source;
use super::super::recipe::BASE;
use super::tests::of_base;
use super::*;
use crate::test_host::{Loud, Run};
use crate::{Cache, Entry, Removal};

const TEST: &str = "image::build::outlives::the_folder_of_what_outlives_its_run_is_left_alone";

/// A child that nobody kills with its parent: as what hangs in the kernel.
const STEP: &str = "echo $$ >main\n\
                    (echo begun; until [ -e \"$1/go\" ] || [ ! -d \"$1\" ]; do sleep 0.05; done)\n";

#[test]
fn the_folder_of_what_outlives_its_run_is_left_alone() {
    if let Some(dir) = Run::this() {
        let (cache, spawner) = (Cache::at(&dir.join("cache")).unwrap(), Spawner::start());
        let spawner = spawner.unwrap();
        let workshop = Workshop {
            cache: &cache,
            spawner: &spawner,
            report: &Loud,
            source: source(),
        };
        let recipe = Recipe::read(source(), BASE).unwrap();
        let build = of_base(&workshop, &recipe, Privilege::Sudo);
        let args = [dir.display().to_string()];
        return build.script(STEP, &args, "it", CUSTOMISE_LIMIT).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(&dir.path().join("cache")).unwrap();
    let mut run = Run::start(TEST, dir.path());
    assert!(run.says("begun"));
    let at_work = || {
        let entries = cache.entries().unwrap().into_iter();
        let mut found = entries.filter(Entry::is_unfinished);
        found.next()
    };
    let folder = at_work().unwrap();
    let main = fs::read_to_string(folder.path.join("main")).unwrap();
    let main = Path::new("/proc").join(main.trim());
    assert!(main.exists());
    run.kill();
    until(|| !main.exists());

    cache.sweep().unwrap();
    let left = at_work().unwrap();
    assert!(left.in_use && left.path.join("script.sh").exists());
    assert_eq!(cache.remove_entry(&left).unwrap(), Removal::InUse);
    assert_eq!(at_work().unwrap().path, folder.path);

    fs::write(dir.path().join("go"), "").unwrap();
    until(|| {
        cache.sweep().unwrap();
        at_work().is_none()
    });
}

fn until(done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(10));
    }
}
