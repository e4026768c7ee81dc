//! Members that come back at other addresses.

use super::chance::{Chance, setting};
use super::check::converge;
use super::load::Senders;
use super::network::{Cluster, Reach};
use super::record::Record;

// R22: a member is known by the id of its policy: at other ports it goes on as the one that it was, and its mates find it there.
#[test]
fn a_member_may_come_back_at_other_ports() {
    let moves = setting("ANYLOG_CLUSTER_MOVES").unwrap_or(3);
    let mut cluster = Cluster::start(3, Reach::Direct);
    let numbers = cluster.numbers();
    let (record, mut chance) = (Record::default(), Chance::new(setting("ANYLOG_CHAOS_SEED").unwrap_or(1)));
    let mut senders = Senders::new(3);
    for round in 0..moves {
        let member = usize::try_from(round % 3).unwrap();
        let load = senders.start(&cluster, &record, &mut chance);
        std::thread::park_timeout(chance.millis(200, 600));
        if chance.percent(50) {
            cluster.members[member].kill();
        } else {
            cluster.members[member].terminate();
        }
        cluster.moves(member);
        cluster.all_ready();
        std::thread::park_timeout(chance.millis(200, 600));
        senders = load.settle();
        converge(&cluster, &record, round, &format!("after move {round}"));
        assert_eq!(cluster.numbers(), numbers, "members keep their numbers");
        record.next_phase();
    }
}
