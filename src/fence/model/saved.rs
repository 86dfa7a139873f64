//! The same, of what is saved of a guest.

use super::*;

/// It was saved, and somebody starts it again from that memory, at any moment: no more of it is left than of a guest that was ended.
///
/// Fails if the memory is not removed, or only after the last round.
#[test]
fn a_guest_that_was_saved() {
    let answers = every_course(2, || {
        let mut world = hosts(true);
        world.may = |_, happens| matches!(happens, Happens::Starts(_) | Happens::Ends(_) | Happens::Cut(0) | Happens::Heals(0));
        world.hosts[pick(2)].saved = true;
        world
    });
    assert!(answers["Changed"] > 0 && answers["Already"] > 0 && answers["State"] > 0, "{answers:?}");
}

/// It is defined where libvirt has no worker left but those for what is urgent, and runs there or on the other host.
///
/// Fails if all that libvirt is asked is whether there is a memory (`virDomainHasManagedSaveImage`).
#[test]
fn a_guest_that_is_defined_where_libvirt_is_busy() {
    let create = || {
        let mut world = hosts(true);
        world.run_on(pick(2));
        world.be_busy_for(1, Duration::from_secs(100));
        world
    };
    assert_eq!(every_course_of(0, create, off).into_keys().collect::<Vec<_>>(), ["Changed"]);
}

/// It was saved where libvirt has another guest in its hands that it cannot kill: who asks for a list waits until it gives that up.
///
/// Fails if libvirt is asked for the list of those that were saved, although it answers the question.
#[test]
fn a_guest_beside_one_that_hangs() {
    let create = || {
        let mut world = hosts(true);
        world.run_on(pick(2));
        world.hosts[1].saved = pick(2) == 1;
        world.odd.listing = Duration::from_secs(80);
        world
    };
    assert_eq!(every_course_of(0, create, off).into_keys().collect::<Vec<_>>(), ["Changed"]);
}
