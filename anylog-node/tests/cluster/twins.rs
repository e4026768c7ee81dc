//! Two nodes that claim to be one member.

use super::chance::{Chance, setting};
use super::check::converge;
use super::load::{Senders, message, put};
use super::network::{Cluster, DBMS, Reach, TABLES};
use super::node::{eventually, eventually_or};
use super::record::Record;

// R22: a node with a copy of a member's home, started while the member runs, is refused and says why, and takes no rows. The member and
// its mate go on: no row is lost, none is there twice.
#[test]
fn a_copy_of_a_member_is_refused() {
    let cluster = Cluster::start(2, Reach::Direct);
    let numbers = cluster.numbers();
    let (record, mut chance) = (Record::default(), Chance::new(setting("ANYLOG_CHAOS_SEED").unwrap_or(1)));
    let load = Senders::new(2).start(&cluster, &record, &mut chance);
    let member = &cluster.members[1];
    eventually("both members have files", || {
        let shown = |of: &str| member.get(&format!("get tsd summary where table = {of}")).body.contains(DBMS);
        (shown("tsd_info") && shown(&format!("tsd_{}", numbers[0]))).then_some(())
    });
    let elsewhere = tempfile::tempdir().unwrap();
    let mut copy = member.copied(elsewhere.path());
    copy.spawn();
    let refusal = format!("member {} runs already: node 127.0.0.1:{}", numbers[1], member.ports().tcp);
    eventually_or(
        || format!("'{refusal}' is said: {}", copy.last_words()),
        || copy.log().contains(&refusal).then_some(()),
    );
    assert!(copy.log().contains("Two nodes cannot be one member"), "{}", copy.last_words());
    for table in TABLES {
        // It may have ended.
        if let Ok(answer) = put(copy.ports().rest, table, &message(table, 1, 1, 0)) {
            assert_ne!(answer.status, 200, "{}: {}", table.name, answer.body);
        }
    }
    assert_eq!(cluster.numbers(), numbers, "the policies say who is a member, and where");
    let _senders = load.settle();
    converge(&cluster, &record, 0, "after a copy of a member was there");
    copy.kill();
}
