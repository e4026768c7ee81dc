use anylog_ingest::sink::Issuer;
use anylog_ingest::{FileReceipt, Receipt, RowSink, SourceFile, Unmapped};
use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::*;

/// A store that takes a group for each permit. It refuses rows that say so, and groups with a row that says so.
struct Store {
    issuer: Issuer,
    permits: Semaphore,
    /// Requests of each group.
    groups: Mutex<Vec<usize>>,
    /// Of each group that came.
    behind: Mutex<Vec<Behind>>,
    begun: Notify,
}

#[async_trait]
impl RowSink for Store {
    async fn append(&self, group: RowGroup) -> Result<Receipt, SinkError> {
        self.behind.lock().push(group.behind.clone());
        self.begun.notify_one();
        self.permits.acquire().await.expect("open").forget();
        let part = group.parts.into_iter().next().expect("a part");
        let holds = |word: &str| part.rows.iter().any(|row| row.contains(word));
        if holds("unfit") {
            let (dbms, table, reason) = ("d".into(), "t".into(), "unfit".into());
            return Err(SinkError::Table { dbms, table, reason, status: anylog_core::Status::JSON_STRUCTURE });
        }
        assert!(!holds("panic"), "a bug of the store");
        if holds("full") {
            return Err(SinkError::DiskFull);
        }
        let bad = part.rows.iter().enumerate().filter(|(_, text)| text.contains("bad"));
        let refused: Vec<RefusedRow> = bad.map(|(row, _)| RefusedRow { row, ..RefusedRow::default() }).collect();
        let stored = part.rows.len() - refused.len();
        self.groups.lock().push(part.starts.len());
        Ok(Receipt::issue(&self.issuer, stored, refused))
    }

    async fn set_aside(&self, _: Unmapped) -> Result<Receipt, SinkError> {
        Err(SinkError::NotRunning)
    }

    async fn store_file(&self, _: SourceFile) -> Result<FileReceipt, SinkError> {
        Err(SinkError::NotRunning)
    }
}

fn store() -> (Arc<Store>, Together) {
    let slot = SinkSlot::new();
    let store = slot.mount(|issuer| {
        let (permits, groups, begun) = (Semaphore::new(0), Mutex::default(), Notify::new());
        Arc::new(Store { issuer, permits, groups, behind: Mutex::default(), begun })
    });
    (store, Together::new(slot))
}

fn lane(table: &str, origin: &str) -> Lane {
    let (source, instructions) = ("0".to_owned(), "0".to_owned());
    Lane { dbms: "d".into(), table: table.into(), source, instructions, origin: origin.into() }
}

fn texts(rows: &[&str]) -> Vec<String> {
    rows.iter().map(|row| (*row).to_owned()).collect()
}

type Request = tokio::task::JoinHandle<Outcome>;

fn request(together: &Together, lane: Lane, rows: &[&str]) -> Request {
    let (own, rows) = (together.clone(), texts(rows));
    tokio::spawn(async move { own.append(lane, rows).await })
}

/// Requests of which the first three are being stored, each alone, and the others wait.
async fn requests(store: &Store, together: &Together, rows: &[&[&str]]) -> Vec<Request> {
    let mut requests = Vec::new();
    for rows in rows {
        let begins = requests.len() < GROUPS;
        requests.push(request(together, lane("t", "rest 10.0.0.7"), rows));
        if begins {
            store.begun.notified().await;
        } else {
            // On one thread all that is ready has run after this.
            tokio::task::yield_now().await;
        }
    }
    requests
}

/// Requests of each group, in rising order: several groups are stored at a time.
fn sizes(store: &Store) -> Vec<usize> {
    let mut sizes = store.groups.lock().clone();
    sizes.sort_unstable();
    sizes
}

/// Returns when no lane is left.
async fn at_rest(together: &Together) {
    let gone = async {
        while !together.lanes.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("a lane at rest is gone");
}

async fn outcome(request: Request) -> Outcome {
    tokio::time::timeout(Duration::from_secs(10), request).await.expect("an answer").expect("no panic")
}

#[tokio::test]
async fn a_store_that_panics_does_not_hold_up_its_table() {
    let (store, together) = store();
    let rows: [&[&str]; 7] = [&["panic"], &["panic"], &["panic"], &["2"], &["panic"], &["4"], &["5"]];
    let requests = requests(&store, &together, &rows).await;
    store.permits.add_permits(4);
    let outcomes = futures_util::future::join_all(requests.into_iter().map(outcome)).await;
    // One group of four waited; the panic among them cost them all their answers.
    assert!(outcomes.iter().all(|outcome| *outcome == Err(SinkError::NotRunning)), "{outcomes:?}");
    assert_eq!(outcomes.len(), 7);
    at_rest(&together).await;
    store.permits.add_permits(1);
    let next = request(&together, lane("t", "rest 10.0.0.7"), &["7"]);
    assert_eq!(outcome(next).await, Ok(Taken { stored: 1, refused: Vec::new() }));
}

#[tokio::test]
async fn requests_that_come_meanwhile_are_one_group_and_each_has_its_own_answer() {
    let (store, together) = store();
    let rows: [&[&str]; 6] = [&["a"], &["0"], &["1"], &["2", "bad 3"], &["4"], &["bad 5"]];
    let mut requests = requests(&store, &together, &rows).await;
    assert!(requests.iter().all(|request| !request.is_finished()), "nothing is answered before it is stored"); // DUR-1
    store.permits.add_permits(4);
    let refused = |row| vec![RefusedRow { row, ..RefusedRow::default() }];
    let mut expected =
        [(1, vec![]), (1, vec![]), (1, vec![]), (1, refused(1)), (1, vec![]), (0, refused(0))].into_iter();
    for request in requests.drain(..) {
        let (stored, refused) = expected.next().expect("as many");
        assert_eq!(outcome(request).await, Ok(Taken { stored, refused }));
    }
    assert_eq!(sizes(&store), [1, 1, 1, 3]);
    at_rest(&together).await;
}

// A group that is stored while others are under way has its share of all requests: small ones would cost more than they gain.
#[tokio::test]
async fn another_group_begins_when_it_has_its_share() {
    let (store, together) = store();
    let first: [&[&str]; 7] = [&["0"], &["1"], &["2"], &["3"], &["4"], &["5"], &["6"]];
    let mut all = requests(&store, &together, &first).await;
    store.permits.add_permits(GROUPS);
    // Four wait; one of the tasks takes them all.
    store.begun.notified().await;
    for number in 7..11 {
        all.push(request(&together, lane("t", "rest 10.0.0.7"), &[&number.to_string()]));
        tokio::task::yield_now().await;
    }
    // Of six that were there at one time two are enough for another.
    store.begun.notified().await;
    store.permits.add_permits(3);
    for request in all {
        assert_eq!(outcome(request).await, Ok(Taken { stored: 1, refused: Vec::new() }));
    }
    assert_eq!(sizes(&store), [1, 1, 1, 2, 2, 4]);
    at_rest(&together).await;
}

// Those who wait are known to the store, which need not end its work after each group.
#[tokio::test]
async fn the_store_knows_of_those_who_wait() {
    let (store, together) = store();
    let requests = requests(&store, &together, &[&["0"], &["1"], &["2"], &["3"]]).await;
    let known = || store.behind.lock().iter().map(Behind::are_some).collect::<Vec<_>>();
    assert_eq!(known(), [true; GROUPS]);
    store.permits.add_permits(1);
    store.begun.notified().await;
    assert_eq!(known(), [false; GROUPS + 1]);
    store.permits.add_permits(GROUPS);
    for request in requests {
        assert!(outcome(request).await.is_ok());
    }
}

#[tokio::test]
async fn a_request_that_fits_no_table_fails_alone() {
    let (store, together) = store();
    let requests = requests(&store, &together, &[&["0"], &["1"], &["1"], &["2"], &["unfit"], &["3"]]).await;
    store.permits.add_permits(7);
    let mut stored = Vec::new();
    for request in requests {
        stored.push(outcome(request).await.map(|taken| taken.stored).map_err(|error| error.to_string()));
    }
    assert_eq!(stored, [Ok(1), Ok(1), Ok(1), Ok(1), Err("table 'd.t': unfit".to_owned()), Ok(1)]);
}

#[tokio::test]
async fn trouble_of_the_store_is_everybodys() {
    let (store, together) = store();
    let requests = requests(&store, &together, &[&["0"], &["1"], &["1"], &["2"], &["full"]]).await;
    store.permits.add_permits(4);
    let mut outcomes = Vec::new();
    for request in requests {
        outcomes.push(outcome(request).await.map(|taken| taken.stored));
    }
    assert_eq!(outcomes, [Ok(1), Ok(1), Ok(1), Err(SinkError::DiskFull), Err(SinkError::DiskFull)]);
}

#[tokio::test]
async fn tables_and_senders_do_not_wait_for_each_other() {
    let (store, together) = store();
    let waiting = requests(&store, &together, &[&["1"]]).await;
    for (table, origin) in [("t", "rest 10.0.0.8"), ("u", "rest 10.0.0.7")] {
        request(&together, lane(table, origin), &["2"]);
        store.begun.notified().await;
    }
    assert_eq!(together.lanes.lock().len(), 3);
    store.permits.add_permits(3);
    for request in waiting {
        assert!(outcome(request).await.is_ok());
    }
}

#[tokio::test]
async fn a_request_whose_client_went_away_does_not_hold_up_the_others() {
    let (store, together) = store();
    let mut requests = requests(&store, &together, &[&["0"], &["1"], &["2"], &["3"], &["4"]]).await;
    for gone in requests.drain(..4) {
        gone.abort();
    }
    store.permits.add_permits(4);
    for request in requests {
        assert_eq!(outcome(request).await, Ok(Taken { stored: 1, refused: Vec::new() }));
    }
}

#[test]
fn large_requests_go_alone() {
    assert!(is_small(&vec!["{}".to_owned(); SMALL_ROWS]));
    assert!(!is_small(&vec!["{}".to_owned(); SMALL_ROWS + 1]));
    assert!(!is_small(&["x".repeat(SMALL_BYTES + 1)]));
}
