//! From a published message to rows, by the mapping of the operator script.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::hint::black_box;

use anylog_benches::message;
use anylog_ingest::mapping::{Column, Inline, Mapper};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn mapping(c: &mut Criterion) {
    let timestamp = Column::new("timestamp", "timestamp", "bring [timestamp]", false).expect("a column");
    let value = Column::new("value", "float", "bring [value]", false).expect("a column");
    let mapper = Mapper::inline(Inline::new("test", "rand_data", vec![timestamp, value]).expect("a mapping"));
    let now = "2026-03-01T10:00:00Z".parse().expect("a time");
    let mut group = c.benchmark_group("mapping");
    for len in [message::LEN, 256] {
        let mut payload = Vec::new();
        message::append(&mut payload, 1, len);
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("a message of {len} bytes"), |b| {
            b.iter(|| mapper.map("anylog-demo", black_box(&payload), now).expect("it maps"));
        });
    }
    group.finish();
}

criterion_group!(benches, mapping);
criterion_main!(benches);
