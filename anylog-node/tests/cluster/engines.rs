//! Members whose databases lie in different engines.

use super::check::converge;
use super::load::put_rows;
use super::network::{Cluster, DBMS, Reach, TABLES};
use super::node::eventually;
use super::record::Record;
use super::server::Server;

// DUR-6: what members hold is the same whatever engine keeps it, and so is what is compared.
#[test]
fn a_member_in_postgresql_holds_the_same() {
    let server = Server::start();
    let mut cluster = Cluster::start_with(3, Reach::Direct, |number, node| {
        if number == 1 {
            node.set("DB_TYPE", "psql".to_owned());
            node.set("DB_IP", "127.0.0.1".to_owned());
            node.set("DB_PORT", server.port.to_string());
        }
    });
    let record = Record::default();
    for table in TABLES {
        for (member, node) in cluster.members.iter().enumerate() {
            assert!(put_rows(&record, node.ports().rest, table, member, 20));
        }
    }
    converge(&cluster, &record, 0, "rows of three members");
    eventually("digests are equal", || {
        let digest = |member: usize| {
            cluster.members[member].text(&format!("get cluster digest where dbms = {DBMS} and format = json"))
        };
        (digest(0) == digest(1)).then_some(())
    });
    // Only PostgreSQL has them all now.
    for member in [0, 2] {
        cluster.members[member].kill();
        cluster.members[member].wipe();
    }
    cluster.all_ready();
    converge(&cluster, &record, 0, "filled from PostgreSQL");
}
