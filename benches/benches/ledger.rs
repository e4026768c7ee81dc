//! A ledger of 10,000 policies in process: `cargo bench -p anylog-benches --bench ledger`.
//!
//! * **get**: `blockchain get` from the text of the query to its answer, of one policy among 10,000 of its type.
//! * **change and get**: a policy comes in, and the first reader after it looks. What is derived of a state of the ledger must not be
//!   derived again for every policy.
//! * **push**: one policy into the table of a master that holds 10,000, with its verdict; the database is in memory.
//!
//! Figures of a machine with 2 cores and much else at work, `--profile perf`:
//!
//! ```text
//! ledger of 10,000/get where name = ..                     4.5 µs
//! ledger of 10,000/get where name = .. and company = ..    5.2 µs
//! ledger of 10,000/get .. bring.first                     12   µs
//! ledger of 10,000/change and get                         28   µs
//! ledger of 10,000/push                                  209   µs
//! ```
//!
//! The same over a network of processes, with durable writes: `--bench ledger_network`.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::hint::black_box;
use std::sync::Arc;

use anylog_core::Node;
use anylog_dbms::{Catalog, ConnectRequest};
use anylog_ledger::{Destinations, Ledger, Policy, PushHow};
use anylog_net::LocalPeers;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use serde_json::json;

const POLICIES: usize = 10_000;

fn policy(number: usize) -> Policy {
    Policy::from_value(json!({"site": {
        "name": format!("site-{number:05}"),
        "company": format!("company {}", number % 20),
        "city": "Sabetha",
        "loc": "39.8958, -95.9922",
        "port": 32_148,
    }}))
    .expect("a policy")
}

fn ledger(home: &std::path::Path) -> Arc<Ledger> {
    let node = Node::builder().home(home).build();
    let catalog = Catalog::new(Arc::clone(&node));
    catalog.connect(ConnectRequest::sqlite_memory("blockchain")).expect("a database");
    Ledger::new(node, catalog, LocalPeers::new())
}

fn benches(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let _entered = runtime.enter();
    let home = tempfile::tempdir().expect("a directory");
    let ledger = ledger(home.path());
    let clock = anylog_core::time::SystemClock;
    let lines: Vec<String> = (0..POLICIES).map(|number| policy(number).prepare(&clock).to_json_text()).collect();
    std::fs::create_dir_all(ledger.path().parent().expect("a directory")).expect("a directory");
    std::fs::write(ledger.path(), lines.join("\n") + "\n").expect("a file");
    assert_eq!(ledger.policies("site").len(), POLICIES);

    let mut group = c.benchmark_group("ledger of 10,000");
    for (name, query) in [
        ("get where name = ..", "site where name = site-05000"),
        ("get where name = .. and company = ..", "site where company = \"company 0\" and name = site-05000"),
        ("get .. bring.first", "site where name = site-05000 bring.first [*][name] : [*][port]"),
    ] {
        group.bench_function(name, |b| b.iter(|| ledger.query(black_box(query)).expect("an answer")));
    }
    let mut number = POLICIES;
    group.bench_function("change and get", |b| {
        b.iter_batched(
            || {
                number += 1;
                // Stable storage takes its time; here only what the ledger does after it counts.
                let written = runtime.block_on(ledger.insert(policy(number), &Destinations::local()));
                written.expect("it is written");
            },
            |()| ledger.query(black_box("site where name = site-05000")).expect("an answer"),
            BatchSize::PerIteration,
        );
    });
    let all = lines.iter().map(|line| Arc::new(Policy::from_json_text(line).expect("a policy"))).collect();
    assert_eq!(ledger.import_to_table(&all, "here").expect("a table"), POLICIES);
    group.bench_function("push", |b| {
        b.iter_batched(
            || {
                number += 1;
                policy(number)
            },
            |policy| ledger.push(&policy, "here", PushHow::New).expect("it is taken"),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
