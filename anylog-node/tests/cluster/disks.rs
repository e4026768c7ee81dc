//! A member whose disk is full.

use super::check::converge;
use super::load::put_rows;
use super::network::{Cluster, Reach, TABLES, table};
use super::node::eventually;
use super::record::Record;
use super::small_disk::SmallDisk;

// R12, R19, DUR-6: a member without space holds up nobody else, and gets what it missed when there is space.
#[test]
fn a_member_with_a_full_disk_holds_up_nobody() {
    let Some(disk) = SmallDisk::mount(96) else { return };
    let home = disk.path().join("home");
    let cluster = Cluster::start_with(3, Reach::Direct, |number, node| {
        if number == 2 {
            node.home = home.clone();
        }
    });
    let record = Record::default();
    let rest = |member: usize| cluster.members[member].ports().rest;
    for table in TABLES {
        assert!(put_rows(&record, rest(2), table, 2, 20));
    }
    disk.fill_to(4 << 20);
    eventually("the full member takes no rows", || (!put_rows(&record, rest(2), table("plain"), 2, 1)).then_some(()));
    for round in 0..3 {
        for table in TABLES {
            for member in [0, 1] {
                assert!(
                    put_rows(&record, rest(member), table, member, 20),
                    "round {round}, {} at {member}",
                    table.name
                );
            }
        }
    }
    disk.free_space();
    converge(&cluster, &record, 0, "after the disk had space again");
    assert!(put_rows(&record, rest(2), table("kept"), 2, 20));
    converge(&cluster, &record, 0, "at the end");
}
