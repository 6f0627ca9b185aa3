//! Seeds that once failed, with what had gone wrong. A seed tells its story for as long as the plan draws as it did then, so what
//! is found here gets a test of its own as well, where the mistake was.

use crate::simulation::{Options, run};

/// A seed that failed, and why.
const STORIES: [(u64, &str); 7] = [
    (
        237,
        "Cut off, registry 1 held a registration under provider 8's names that never reached the store. Provider 8 renewed \
         there and was told after five seconds that it had been succeeded.",
    ),
    (
        50,
        "The same with an expiry: a lease was told to be unknown that the log still had.",
    ),
    (
        1124,
        "The invariant's own mistake: two registries each begin a window of self-preservation, so a share may go in each.",
    ),
    (
        3286,
        "The invariant's own mistake: a registry that was stopped and then killed does not stay stopped in its next life.",
    ),
    (
        3891,
        "A lease had moved, its former registry did not know yet and promised its owner another 3 s, and the new one ended it \
         before they were over.",
    ),
    (
        7699,
        "The invariant's own mistake: what a registry has sent to the store may arrive in its next life, in which nothing was \
         heard yet.",
    ),
    (
        6597,
        "The simulation's own mistake: a commit that failed as its registry crashed stayed on its way, and reached the disk in a \
         later life.",
    ),
];

#[test]
fn seeds_that_once_failed() {
    for (seed, story) in STORIES {
        if let Err(failure) = run(Options::new(seed)) {
            panic!("{story}\n{failure}");
        }
    }
}
