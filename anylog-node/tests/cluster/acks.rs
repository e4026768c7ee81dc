//! What senders are told while too few members can be reached.

use super::check::converge;
use super::load::{put, put_rows, row};
use super::network::{Cluster, DBMS, Reach, table};
use super::record::{Record, Way};

// DUR-3: never a silent downgrade.
#[test]
fn rows_that_too_few_can_have_are_held_back_or_refused() {
    let mut cluster = Cluster::start(2, Reach::Direct);
    let record = Record::default();
    let (kept, port) = (table("kept"), cluster.members[0].ports().rest);
    assert!(put_rows(&record, port, kept, 0, 5));
    cluster.members[1].kill();
    // Rows of tables with local acknowledgements do not wait.
    assert!(put_rows(&record, port, table("plain"), 0, 5));

    // Held back until the mate is there.
    let (waiting, sender) = (record.clone(), std::thread::spawn);
    let held = sender(move || put_rows(&waiting, port, table("kept"), 0, 5));
    for _ in 0..20 {
        assert!(put_rows(&record, port, table("plain"), 0, 5), "others are acknowledged meanwhile");
    }
    assert!(!held.is_finished(), "nobody else has these rows");
    cluster.all_ready();
    assert!(held.join().unwrap(), "the mate has them");

    // Refused when that is asked for.
    cluster.members[1].kill();
    cluster.members[0].post(&format!(
        "set buffer threshold where dbms = {DBMS} and table = kept and write_immediate = true and time = 1 second and \
         ack = replicated(2) and when_few = error"
    ));
    let (_, n) = record.begin(Way::Put, kept, 0, 1);
    let refused = put(port, kept, &row(n, 0, 0, "")).unwrap();
    assert!(refused.status >= 500, "{refused:?}");
    assert!(refused.body.contains('2'), "it says how many are asked for: {refused:?}");
    cluster.all_ready();
    converge(&cluster, &record, 0, "after all are there");
    assert!(put_rows(&record, port, kept, 0, 5));
    converge(&cluster, &record, 0, "at the end");
}
