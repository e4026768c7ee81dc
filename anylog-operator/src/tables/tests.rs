use anylog_core::Node;
use anylog_dbms::ConnectRequest;
use anylog_ledger::Ledger;
use anylog_net::LocalPeers;

use super::*;

#[test]
fn a_zone_comes_back_by_its_name() {
    for zone in [TimeZone::UTC, TimeZone::fixed(jiff::tz::offset(2)), TimeZone::fixed(jiff::tz::offset(-5))] {
        let at = Timestamp::UNIX_EPOCH;
        assert_eq!(zone_from(&zone_name(&zone)).to_offset(at), zone.to_offset(at));
    }
    if let Ok(berlin) = TimeZone::get("Europe/Berlin") {
        assert_eq!(zone_from(&zone_name(&berlin)), berlin);
    }
}

// A table of another member whose policy is not here yet holds up nobody's rows.
#[tokio::test(flavor = "multi_thread")]
async fn tables_are_made_while_the_policy_of_another_is_waited_for() {
    let home = tempfile::tempdir().unwrap();
    let node = Node::builder().home(home.path()).build();
    let catalog = Catalog::new(Arc::clone(&node));
    let ledger = Ledger::new(node, Arc::clone(&catalog), LocalPeers::new());
    catalog.connect(ConnectRequest::sqlite("d", home.path())).unwrap();
    let tables = Tables::new(catalog, Publisher::new(ledger));
    tables.set_rules(TableRules { create: true, ..TableRules::default() });
    let rows = [r#"{"v": 1}"#.to_owned()];
    for attempt in 0..5 {
        let (copied, own) = (format!("copied_{attempt}"), format!("own_{attempt}"));
        let made = tokio::select! {
            biased;
            _ = tables.ensure_as("d", &copied, &rows, &[], Some("")) => continue,
            made = tables.ensure("d", &own, &rows, &[]) => made,
        };
        assert_eq!(made.unwrap().table, own);
        return;
    }
    panic!("every table waited for another one");
}
