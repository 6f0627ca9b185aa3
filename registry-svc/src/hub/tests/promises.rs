//! The promises of a watch, each by itself: etcd's six, and that nothing else is told than was asked for.
//!
//! Each is a function from a story to the first breach of the promise. That it can find one is tested too: a good story is
//! spoiled in one place, and the promise must notice.

use proptest::prelude::*;

use super::{
    world::{Heard, Story, World, acts, play},
    *,
};

type Kept = Result<(), String>;

/// What is told is what was selected.
fn filter(story: &Story) -> Kept {
    for log in &story.logs {
        let takes = |labels| log.selection.takes(labels);
        for heard in &log.heard {
            let is_selected = match heard {
                Heard::Snapshot { instances, .. } => instances.iter().all(|instance| log.selection.holds(instance)),
                Heard::Delta { events, .. } => events.iter().all(|event| match event {
                    Event::Put(instance) => log.selection.holds(instance),
                    Event::Removed(removal) => log.selection.scope.holds(&removal.key) && takes(&removal.labels),
                }),
                Heard::Opened { .. } | Heard::Bookmark { .. } => true,
            };
            ensure(is_selected, || {
                format!("{heard:?} was not asked for by {:?}", log.selection)
            })?;
        }
    }
    Ok(())
}

/// Revisions never go back, over all watches that one client resumes.
fn ordered(story: &Story) -> Kept {
    each(story, |_, before, heard| {
        ensure(before.is_none() || heard.revision() >= before, || {
            format!("{heard:?} after {before:?}")
        })
    })
}

/// No revision is told twice: what was told is never told again by a delta, nor replaced by a snapshot that is no newer.
fn unique(story: &Story) -> Kept {
    each(story, |_, before, heard| match heard {
        Heard::Delta { revision, .. } | Heard::Snapshot { revision, .. } => ensure(Some(*revision) > before, || {
            format!("{heard:?} again, after {before:?}")
        }),
        Heard::Opened { .. } | Heard::Bookmark { .. } => Ok(()),
    })
}

/// A revision is told as a whole and in its order, and a snapshot is of one revision.
fn atomic(story: &Story) -> Kept {
    each(story, |log, _, heard| match heard {
        Heard::Delta { revision, events } => {
            let before = Revision::new(revision.get() - 1);
            let expected: Vec<_> = story.expected(&log.selection, before, *revision).collect();
            let told = vec![(*revision, events.clone())];
            ensure(format!("{expected:?}") == format!("{told:?}"), || {
                format!("{told:?}, not {expected:?}")
            })
        }
        Heard::Snapshot {
            revision, instances, ..
        } => {
            ensure(instances.is_sorted_by(|a, b| a.key < b.key), || {
                format!("{heard:?} is not in order")
            })?;
            let told: World = instances.iter().map(|i| (i.key.clone(), Arc::clone(i))).collect();
            let expected = story.selected(&log.selection, *revision);
            ensure(told == expected, || format!("{heard:?}, not {expected:?}"))
        }
        Heard::Opened { .. } | Heard::Bookmark { .. } => Ok(()),
    })
}

/// What lies between two revisions that are told is told too, unless a snapshot stands for it.
fn reliable(story: &Story) -> Kept {
    each(story, |log, before, heard| {
        let (Heard::Delta { revision, .. }, Some(before)) = (heard, before) else {
            return Ok(());
        };
        let first = story.expected(&log.selection, before, *revision).next();
        let first = first.map(|(revision, _)| revision);
        ensure(first == Some(*revision), || {
            format!("{heard:?} after {before}, but there was {first:?}")
        })
    })
}

/// A bookmark means that everything up to it has been told.
fn bookmarkable(story: &Story) -> Kept {
    each(story, |log, before, heard| {
        let (Heard::Bookmark { revision }, Some(before)) = (heard, before) else {
            return Ok(());
        };
        let missed = story.expected(&log.selection, before, *revision).next();
        ensure(missed.is_none(), || {
            format!("{heard:?} after {before}, but there was {missed:?}")
        })
    })
}

/// A watch that resumes goes on where it was. There is a snapshot only for one that knows nothing, that resumes below the
/// history, or of whose selection the history has lost something; and it says which.
fn resumable(story: &Story) -> Kept {
    for log in &story.logs {
        let mut opened = None;
        for (before, heard) in log.with_before() {
            match heard {
                Heard::Opened { after, compacted } => opened = Some((*after, *compacted)),
                Heard::Snapshot { cause, compacted, .. } => {
                    // At the time of the first message, the history may have lost more than when the watch began.
                    let is_right = match (cause, opened.take()) {
                        (Cause::Initial, Some((after, _))) => after.is_none(),
                        (Cause::Compacted, Some((after, _))) => after.is_some_and(|after| after < *compacted),
                        (Cause::Coalesced, None) => before.is_some_and(|before| {
                            let mut lost = story.expected(&log.selection, before, *compacted);
                            lost.next().is_some()
                        }),
                        _ => false,
                    };
                    ensure(is_right, || format!("{heard:?} after {before:?}"))?;
                }
                Heard::Delta { .. } | Heard::Bookmark { .. } => {
                    if let Some((after, compacted)) = opened.take() {
                        let resumes = after.is_some_and(|after| after >= compacted);
                        ensure(resumes, || format!("{heard:?} instead of a snapshot, after {after:?}"))?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// In the end everybody knows the world as it is, by applying what it was told as a client does.
fn convergent(story: &Story) -> Kept {
    for log in &story.logs {
        let mut known = World::new();
        for heard in &log.heard {
            match heard {
                Heard::Opened { after: Some(_), .. } | Heard::Bookmark { .. } => {}
                Heard::Opened { after: None, .. } => known.clear(),
                Heard::Snapshot { instances, .. } => {
                    known = instances.iter().map(|i| (i.key.clone(), Arc::clone(i))).collect();
                }
                Heard::Delta { events, .. } => {
                    for event in events {
                        match event {
                            Event::Put(instance) => drop(known.insert(instance.key.clone(), Arc::clone(instance))),
                            Event::Removed(removal) => {
                                let was_known = known.remove(&removal.key).is_some();
                                ensure(was_known, || format!("{} left, but was not there", removal.key))?;
                            }
                        }
                    }
                }
            }
        }
        let present = Revision::new(story.worlds.len() as u64 - 1);
        let expected = story.selected(&log.selection, present);
        ensure(known == expected, || format!("{known:?}, not {expected:?}"))?;
        let last = log.heard.last().and_then(Heard::revision);
        ensure(last == Some(present), || format!("at {last:?}, not {present}"))?;
    }
    Ok(())
}

fn ensure(holds: bool, why: impl FnOnce() -> String) -> Kept {
    if holds { Ok(()) } else { Err(why()) }
}

fn each(story: &Story, check: impl Fn(&world::Log, Option<Revision>, &Heard) -> Kept) -> Kept {
    for log in &story.logs {
        for (before, heard) in log.with_before() {
            if !matches!(heard, Heard::Opened { .. }) {
                check(log, before, heard)?;
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn watches_are_filtered(acts in acts()) {
        prop_assert_eq!(filter(&play(acts)), Ok(()));
    }

    #[test]
    fn watches_are_ordered(acts in acts()) {
        prop_assert_eq!(ordered(&play(acts)), Ok(()));
    }

    #[test]
    fn watches_are_unique(acts in acts()) {
        prop_assert_eq!(unique(&play(acts)), Ok(()));
    }

    #[test]
    fn watches_are_atomic(acts in acts()) {
        prop_assert_eq!(atomic(&play(acts)), Ok(()));
    }

    #[test]
    fn watches_are_reliable(acts in acts()) {
        prop_assert_eq!(reliable(&play(acts)), Ok(()));
    }

    #[test]
    fn watches_are_resumable(acts in acts()) {
        prop_assert_eq!(resumable(&play(acts)), Ok(()));
    }

    #[test]
    fn watches_are_bookmarkable(acts in acts()) {
        prop_assert_eq!(bookmarkable(&play(acts)), Ok(()));
    }

    #[test]
    fn watches_converge(acts in acts()) {
        prop_assert_eq!(convergent(&play(acts)), Ok(()));
    }
}

/// A story in which one watcher of everything hears a snapshot, three deltas and a bookmark.
fn good() -> Story {
    let hub = hub();
    let selection = scope("");
    let mut watcher = hub.watch(&selection, WatchFrom::Nothing).expect("watches");
    let mut heard = vec![Heard::Opened {
        after: None,
        compacted: Revision::ZERO,
    }];
    let mut worlds = vec![World::new()];
    let mut batches = Vec::new();
    for id in ["1", "2", "3"] {
        let both = [instance(&hub, "a", id), instance(&hub, "b", id)];
        let mut world = worlds.last().expect("one").clone();
        world.extend(both.iter().map(|i| (i.key.clone(), Arc::clone(i))));
        worlds.push(world);
        batches.push(publish(&hub, both.iter().map(put).collect()));
        if id == "1" {
            let step = watcher.try_next(now(0).moment).expect("a snapshot");
            let Told::Part(part) = step.told else {
                panic!("not a snapshot")
            };
            heard.push(Heard::Snapshot {
                revision: step.revision,
                cause: part.cause,
                instances: part.instances().to_vec(),
                compacted: Revision::ZERO,
            });
            continue;
        }
        let revision = batches.last().expect("one").revision;
        let events = step::events(&batches[batches.len() - 1], &selection);
        heard.push(Heard::Delta { revision, events });
    }
    heard.push(Heard::Bookmark {
        revision: Revision::new(3),
    });
    Story {
        worlds,
        batches,
        logs: vec![world::Log { selection, heard }],
    }
}

/// A check that finds nothing proves nothing.
#[test]
fn each_promise_notices_when_it_is_broken() {
    type Spoil = fn(&mut Vec<Heard>);
    type Check = fn(&Story) -> Kept;
    let all: [Check; 8] = [
        filter,
        ordered,
        unique,
        atomic,
        reliable,
        resumable,
        bookmarkable,
        convergent,
    ];
    for check in all {
        assert_eq!(check(&good()), Ok(()));
    }
    // By place: 0 opened, 1 snapshot at 1, 2 delta at 2, 3 delta at 3, 4 bookmark at 3.
    let spoiled: [(&str, Check, Spoil); 10] = [
        ("two deltas change places", ordered, |heard| heard.swap(2, 3)),
        ("a delta is told twice", unique, |heard| {
            heard.insert(3, heard[2].clone())
        }),
        ("a delta is split", atomic, |heard| {
            if let Heard::Delta { events, .. } = &mut heard[2] {
                events.pop();
            }
        }),
        ("a snapshot lacks an instance", atomic, |heard| {
            if let Heard::Snapshot { instances, .. } = &mut heard[1] {
                instances.pop();
            }
        }),
        ("a delta is skipped", reliable, |heard| drop(heard.remove(2))),
        ("a bookmark skips a delta", bookmarkable, |heard| drop(heard.remove(3))),
        ("a snapshot of no need", resumable, |heard| heard.push(heard[1].clone())),
        ("a snapshot with another cause", resumable, |heard| {
            if let Heard::Snapshot { cause, .. } = &mut heard[1] {
                *cause = Cause::Compacted;
            }
        }),
        ("no snapshot at all", resumable, |heard| drop(heard.remove(1))),
        ("the last delta is missing", convergent, |heard| drop(heard.remove(3))),
    ];
    for (what, check, spoil) in spoiled {
        let mut story = good();
        spoil(&mut story.logs[0].heard);
        assert!(check(&story).is_err(), "not noticed: {what}");
    }
    let mut story = good();
    story.logs[0].selection = scope("a");
    assert!(filter(&story).is_err(), "not noticed: what was not asked for");
}
