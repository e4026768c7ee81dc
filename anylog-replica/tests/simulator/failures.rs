//! R19: one failure, at every action in turn, and the exchange comes to its end all the same.

use crate::oracle::Violation;
use crate::schedule::Fault;
use crate::world::{What, World};

/// A small life of a cluster in which every kind of action occurs: files of all tables, a member whose disk is lost while a file is
/// open, a file that comes to nothing, and one that is fetched anew.
fn life(fail_action: Option<u64>) -> Result<World, Violation> {
    let mut world = World::new(4, 3);
    world.tables = vec![1, 2, 3];
    world.fail_action = fail_action;
    world.begin(3);
    for at in 0..24 {
        world.at(100 + at * 100, What::Produce(at as usize % 3));
    }
    let faults = [
        (1_500, Fault::TakeAway(1)),
        (2_450, Fault::Wipe(0)),
        (3_500, Fault::Restart(0)),
        (3_600, Fault::Crash(1)),
        (4_000, Fault::Restart(1)),
    ];
    for (at, fault) in faults {
        world.at(at, What::Fault(fault));
    }
    world.run_until(6_000);
    world.calm_down();
    world.rest()?;
    Ok(world)
}

#[test]
fn a_failure_of_any_action_delays_and_loses_nothing() {
    let whole = life(None).expect("no failure, no violation");
    let kinds = ["Fetch", "SendFile", "SendRows", "StoreRows", "Seal", "Adopt", "Acknowledge", "Send"];
    for kind in kinds {
        assert!(whole.kinds.contains_key(kind), "no {kind} in {:?}", whole.kinds);
    }
    for action in 1..=whole.actions {
        let life = life(Some(action)).unwrap_or_else(|violation| panic!("action {action} fails: {violation}"));
        // One failure costs some attempts, not any number of them, and no quarter of an hour.
        assert!(life.actions < 2 * whole.actions, "action {action} fails: {} actions", life.actions);
        assert!(life.now < whole.now + 400_000, "action {action} fails: at rest after {} ms", life.now);
    }
}
